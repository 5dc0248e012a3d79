"""Export the student of a finished run: the same as the installed command kdx-export."""

from kdx.commands import export

if __name__ == "__main__":
    export()
