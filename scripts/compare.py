"""kdx-compare, from a checkout."""

from kdx.cli.compare import main

if __name__ == "__main__":
    main()
