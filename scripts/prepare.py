"""Write a data set as shards: the same as the installed command kdx-prepare."""

from kdx.cli.main import prepare

if __name__ == "__main__":
    prepare()
