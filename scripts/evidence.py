"""Put the papers' claims to the test: the same as the installed command kdx-evidence."""

from kdx.commands import evidence

if __name__ == "__main__":
    evidence()
