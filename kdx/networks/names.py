"""Which architectures there are, read from source text: importing timm to find a typo would take seconds."""

from __future__ import annotations

import ast
import difflib
import functools
import importlib.util
import re
from pathlib import Path

_REGISTERED = re.compile(r"^@register_model\s+def (\w+)\(", re.MULTILINE)
_TAGGED = re.compile(r"""^\s*["'](\w+)\.([\w.-]+)\*?["']\s*:""", re.MULTILINE)
_ELSEWHERE = ("hf-hub:", "hf_hub:", "local-dir:")


@functools.cache
def _known() -> tuple[frozenset[str], frozenset[str], dict[str, set[str]]]:
    """Architectures of timm, those of kdx, and the pretrained tags of each where the source text names them."""
    timm = importlib.util.find_spec("timm")
    assert timm is not None and timm.submodule_search_locations
    theirs: set[str] = set()
    tags: dict[str, set[str]] = {}
    for path in Path(timm.submodule_search_locations[0], "models").rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        theirs.update(_REGISTERED.findall(source))
        for name, tag in _TAGGED.findall(source):
            tags.setdefault(name, set()).add(tag)
    own = (path.read_text(encoding="utf-8") for path in Path(__file__).parent.rglob("*.py"))
    return frozenset(theirs), frozenset(name for source in own for name in _variants(source)), tags


def _variants(source: str) -> list[str]:
    """The keys of the literal `VARIANTS` that `kdx.networks.registration.register` is called with."""
    if "VARIANTS" not in source:
        return []
    for node in ast.parse(source).body:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        if any(isinstance(target, ast.Name) and target.id == "VARIANTS" for target in targets):
            assert isinstance(node, (ast.Assign, ast.AnnAssign)) and isinstance(node.value, ast.Dict)
            return [ast.literal_eval(key) for key in node.value.keys if key is not None]
    return []


def architectures() -> frozenset[str]:
    """Names of all architectures that timm and kdx.networks register."""
    theirs, own, _ = _known()
    return theirs | own


def check_architecture(name: str) -> None:
    """Raise ValueError, with what is meant or there, unless `name` (with or without a pretrained tag) can be built."""
    if name.startswith(_ELSEWHERE):
        return
    architecture, _, tag = name.partition(".")
    theirs, own, tags = _known()
    if architecture not in theirs | own:
        close = difflib.get_close_matches(architecture, sorted(theirs | own), n=4, cutoff=0.5)
        hint = f" Close: {', '.join(close)}." if close else ""
        everything = "python -c 'import timm; print(timm.list_models())'"
        raise ValueError(f"timm has no architecture '{name}'.{hint} All names: {everything}")
    known = tags.get(architecture, set())
    # Where timm's source computes its tags, building the network will tell.
    if tag and tag not in known and (known or architecture in own):
        raise ValueError(unknown_tag(architecture, tag, known))


def unknown_tag(architecture: str, tag: str, known: set[str]) -> str:
    """What to say of a pretrained tag that does not exist."""
    if not known:
        return f"there are no pretrained weights of {architecture}: give the name without '.{tag}'"
    there = ", ".join(sorted(known))
    return f"{architecture} has no pretrained weights '{tag}': give one of {there}, or the name without '.{tag}'"


def comes_from_elsewhere(name: str) -> bool:
    """Whether `name` is the address of a model, which timm's lists know nothing of."""
    return name.startswith(_ELSEWHERE)


@functools.cache
def synsets(subset: str) -> tuple[str, ...]:
    """WordNet's names of the classes of "imagenet", "imagenet_a" or "imagenet_r", in the order of their labels; timm's list."""
    timm = importlib.util.find_spec("timm")
    assert timm is not None and timm.submodule_search_locations
    listed = Path(timm.submodule_search_locations[0], "data", "_info", f"{subset}_synsets.txt")
    return tuple(listed.read_text(encoding="utf-8").split())
