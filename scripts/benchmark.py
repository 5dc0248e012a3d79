"""How fast is the way from files to pixels? Prints a table of ratios."""

import os

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # as the commands do, before torch is imported

from kdx.benchmarks import run

if __name__ == "__main__":
    run()
