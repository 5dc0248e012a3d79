"""kdx-compare, from a checkout."""

from kdx.cli.compare import compare

if __name__ == "__main__":
    compare()
