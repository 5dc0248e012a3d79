"""Tell what a run would do and how long it would take: the same as the installed command kdx-plan."""

from kdx.cli.plan import main

if __name__ == "__main__":
    main()
