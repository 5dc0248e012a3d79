"""Search for good settings: the same as the installed command kdx-tune."""

from kdx.cli.tune import main

if __name__ == "__main__":
    main()
