"""Put the papers' claims to the test: the same as the installed command kdx-evidence."""

from kdx.cli.main import evidence

if __name__ == "__main__":
    evidence()
