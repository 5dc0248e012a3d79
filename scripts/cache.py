"""kdx-cache, from a checkout."""

from kdx.cli.cache import main

if __name__ == "__main__":
    main()
