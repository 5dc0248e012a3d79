"""Put the papers' claims to the test: the same as the installed command kdx-evidence."""

from kdx.cli.evidence import main

if __name__ == "__main__":
    main()
