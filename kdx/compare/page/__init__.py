"""A self-contained HTML page of runs: `write` creates it, `watch` keeps it up to date."""

from kdx.compare.page.watching import watch
from kdx.compare.page.writing import write

__all__ = ["watch", "write"]
