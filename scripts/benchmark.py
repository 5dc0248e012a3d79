"""Measure how fast kdx is on this machine: the same as the installed command kdx-benchmark."""

from kdx.cli.benchmark import main

if __name__ == "__main__":
    main()
