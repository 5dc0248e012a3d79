"""Train a student: the same as the installed command kdx-train."""

from kdx.cli.train import main

if __name__ == "__main__":
    main()
