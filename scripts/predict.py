"""Tell what a student says of images: the same as the installed command kdx-predict."""

from kdx.cli.predict import main

if __name__ == "__main__":
    main()
