"""Export the student of a finished run: the same as the installed command kdx-export."""

from kdx.cli.export import main

if __name__ == "__main__":
    main()
