"""kdx-report, from a checkout."""

from kdx.cli.compare import report

if __name__ == "__main__":
    report()
