"""Write a data set as shards: the same as the installed command kdx-prepare."""

from kdx.cli.prepare import main

if __name__ == "__main__":
    main()
