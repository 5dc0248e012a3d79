"""kdx-sweep, from a checkout."""

from kdx.cli.sweep_status import main

if __name__ == "__main__":
    main()
