"""kdx-report, from a checkout."""

from kdx.report.commands import report

if __name__ == "__main__":
    report()
