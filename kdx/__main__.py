"""python -m kdx: the list of commands."""

from __future__ import annotations

from kdx.cli.overview import main

if __name__ == "__main__":
    main()
