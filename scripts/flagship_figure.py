"""Draw the README's figure from the sweep of its table: python scripts/flagship_figure.py SWEEP .github/flagship.png"""

import sys
from pathlib import Path

from kdx.evidence.seed_pairs import sweep_figure

TITLE = "Digits, 100 training images: student at 4 px, teacher at 8 px, n = 5"

if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("Usage: python scripts/flagship_figure.py SWEEP FILE.png")
    sweep_figure(Path(sys.argv[1]), TITLE).savefig(sys.argv[2], dpi=160)
