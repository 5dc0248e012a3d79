"""Tell whether it is worth to distill: the same as the installed command kdx-advise."""

from kdx.cli.advise import main

if __name__ == "__main__":
    main()
