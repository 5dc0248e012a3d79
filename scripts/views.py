"""Draw the inputs of teacher and student for the first batch: the same as the installed command kdx-views."""

from kdx.cli.views import main

if __name__ == "__main__":
    main()
