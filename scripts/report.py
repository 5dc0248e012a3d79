"""kdx-report, from a checkout."""

from kdx.cli.report import main

if __name__ == "__main__":
    main()
