"""The pages of the repository, their code blocks, commands, headings and links."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
TUTORIALS = sorted((ROOT / "scripts" / "tutorials").glob("*.md"))


def pages() -> list[Path]:
    """All Markdown files that are tracked."""
    names = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in names.splitlines()]


@dataclass(frozen=True)
class Block:
    """A block of code, and its language."""

    language: str
    text: str

    @property
    def file(self) -> str | None:
        """The file that the first line names in a comment, such as `# conf/losses/mine.yaml`."""
        match = re.match(r"# (\S+\.(?:py|yaml))\n", self.text)
        return match[1] if match else None


def blocks(page: Path, language: str | None = None) -> list[Block]:
    """The blocks of a page, all or those in one language."""
    texts = re.findall(r"^```(\w+)\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [Block(*block) for block in texts if language in (None, block[0])]


def commands(page: Path) -> list[str]:
    """The kdx commands in a page's bash blocks, from their name on, without what installs or starts them."""
    lines = [line for block in blocks(page, "bash") for line in block.text.replace("\\\n", " ").splitlines()]
    return [match[0] for line in lines if (match := re.search(r"(?<![\w/])kdx-[a-z]+( .*)?$", line))]


def links(page: Path) -> list[tuple[str, str]]:
    """(file, heading) of the links of a page to others and to itself; the file is "" for itself."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    targets = re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)", text)
    return [link for link in targets if not link[0].startswith("http")]


def headings(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
