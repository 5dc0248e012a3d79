"""Export the student of a finished run: the same as the installed command kdx-export."""

from kdx.cli.main import export

if __name__ == "__main__":
    export()
