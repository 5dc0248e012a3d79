"""Evaluate a finished run again: the same as the installed command kdx-evaluate."""

from kdx.cli.evaluate import main

if __name__ == "__main__":
    main()
