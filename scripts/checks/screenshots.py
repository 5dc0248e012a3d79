"""Pictures of whole pages in headless Chromium: 1400 and 390 px, light and dark; and what the console said.

python scripts/checks/screenshots.py report.html --folder pictures
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/compare"))

from browser import Seen, find_chromium  # noqa: E402 - the tests of the page are found by the path above
from playwright.sync_api import sync_playwright  # noqa: E402 - as above

WIDTHS, THEMES = (1400, 390), ("light", "dark")
TALL = 3000  # pixels of a picture; a longer page has several


def pictures(chromium: object, page: Path, folder: Path) -> bool:
    """Write the pictures of a page, and return whether the console stayed empty and nothing but boxes scrolls sideways."""
    right = True
    for width, theme in itertools.product(WIDTHS, THEMES):
        seen = Seen(chromium, page, width=width, theme=theme, touch=width < 600)
        seen.scroll_through()
        tall, wide = (seen.page.evaluate(f"document.documentElement.scroll{side}") for side in ("Height", "Width"))
        name = f"{page.stem}-{width}-{theme}"
        seen.page.add_style_tag(content=".top { position: static !important }")
        seen.page.evaluate("scrollTo(0, 0)")
        for part, top in enumerate(range(0, tall, TALL)):
            clip = {"x": 0, "y": top, "width": width, "height": min(TALL, tall - top)}
            seen.page.screenshot(path=folder / f"{name}-{part}.png", full_page=True, clip=clip)
        print(f"{name}: {tall} px{'' if wide == width else f', {wide} px WIDE'}", *seen.errors, *seen.abroad(), sep="\n  ")
        right &= wide == width and not seen.errors and not seen.abroad()
        seen.context.close()
    return right


def main() -> None:
    """Take the pictures; exit with status 1 if something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", type=Path, nargs="+")
    parser.add_argument("--folder", type=Path, default=Path("pictures"))
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        right = [pictures(chromium, page.absolute(), given.folder) for page in given.pages]
        chromium.close()
    sys.exit(0 if all(right) else 1)


if __name__ == "__main__":
    main()
