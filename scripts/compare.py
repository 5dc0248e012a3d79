"""kdx-compare, from a checkout."""

from kdx.report.commands import compare

if __name__ == "__main__":
    compare()
