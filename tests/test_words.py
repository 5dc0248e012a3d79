"""Texts of kdx: phrases that were hard to understand, and British spellings, must not come back."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Paths, relative to the repository, that hold names of version 0.1.
EXCLUDED = ("CHANGELOG.md", "kdx/config/other_words.py")

PHRASES = (
    "there is no '",
    "has no value: give",
    "is none: give",
    "inside a group that is none",
    "nobody knows",
    "no epoch was compared on val",
    "adds runs to a sweep: add -m",
    "a seed counts once",
    "name each a single time",
    "says nothing of the spread",
    "there is nothing called",
    "which value is white is not known",
    "nothing to tell apart",
    "is said below the table",
    "which is said",
    "where nvml tells",
    "a mistake is answered in",
    "in depth.",
    "elsewhere.**",
    "made-up one that is always right",
    "no one, but peers",
    "such a control says nothing",
    "what they are told",
    "in the same words whichever",
    "has something to say",
    "have something to say",
    "have a say",
    "has a say",
    "nothing to say",
    "decides for itself",
    "the system does not tell",
    "tells apart",
    "tell apart",
    "classes apart",
    "form no square",
    "is no map of",
    "holds no image",
    "there is no such folder",
    "has no value. expected",
    "nobody looks at",
    "who asks",
    "whoever builds",
    "who it is",
    "what is said",
    "must not notice",
    "plays no part",
    "a student that graduated",
    "thinks of",
    "people at once",
)
BRITISH = re.compile(
    r"\b(\w*colour\w*|behaviour\w*|favour\w*|neighbour\w*|centre[sd]?|grey\w*|"
    r"catalogue\w*|licence\w*|labell(?:ed|ing)|modell(?:ed|ing|er)|cancell(?:ed|ing)|\w*(?:normal|optim|regular|initial|general|standard|random|"
    r"summar|organ|recogn|visual|synchron|serial|parallel|quant|minim|maxim|util|categor|character|final|custom)is(?:e|es|ed|ing|er|ers|ation)"
    r"|analyse[sd]?)\b",
    re.IGNORECASE,
)


def texts() -> list[Path]:
    """All source, configuration and documentation files outside of EXCLUDED."""
    folders = ("kdx", "conf", "scripts")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".yaml", ".md", ".sh")]
    files += [*ROOT.glob("*.md"), *(ROOT / "tests").glob("*.md"), *(ROOT / "outputs").glob("*.md")]
    skipped = [ROOT / name for name in EXCLUDED]
    return sorted(path for path in files if not any(path == skip or skip in path.parents for skip in skipped))


def findings(text: str) -> list[str]:
    """Phrases and British spellings in a text; line breaks and comment signs do not hide a phrase."""
    flat = re.sub(r"\s+(#\s+)?", " ", text.lower())
    return [phrase for phrase in PHRASES if phrase in flat] + [match.group() for match in BRITISH.finditer(text)]


def test_no_text_uses_a_phrase_that_was_hard_to_understand() -> None:
    found = {str(path.relative_to(ROOT)): findings(path.read_text(encoding="utf-8")) for path in texts()}
    assert {path: phrases for path, phrases in found.items() if phrases} == {}


def test_the_excluded_paths_exist() -> None:
    assert [name for name in EXCLUDED if not (ROOT / name).exists()] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("There is no 'x' in 'losses'.", ["there is no '"]),
        ("the budget differs, which\n    # is said", ["which is said"]),
        ("a grey colour, normalised", ["grey", "colour", "normalised"]),
        ("a gray color, normalized, centered; raise otherwise", []),
    ],
)
def test_the_check_finds_what_it_is_for(text: str, expected: list[str]) -> None:
    assert findings(text) == expected
