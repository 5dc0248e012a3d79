"""Runs as one HTML page that holds everything it shows: `write` makes it, `watch` keeps it up to date."""

from kdx.compare.page.watching import watch
from kdx.compare.page.writing import write

__all__ = ["watch", "write"]
