"""Names of the available architectures, read from source text, because importing timm takes seconds."""

from __future__ import annotations

import ast
import difflib
import functools
import importlib.util
import re
from pathlib import Path

_REGISTERED = re.compile(r"^@register_model\s+def (\w+)\(", re.MULTILINE)
_TAGGED = re.compile(r"""^\s*["'](\w+)\.([\w.-]+)\*?["']\s*:""", re.MULTILINE)
SAME_WEIGHTS = "_flax"  # ending of variants that load the published weights of their `architecture`
FOLDER = "local-dir:"  # before the path of a folder with config.json and weights
_ELSEWHERE = ("hf-hub:", "hf_hub:", FOLDER)


@functools.cache
def _registered() -> tuple[frozenset[str], frozenset[str], dict[str, set[str]]]:
    """Architectures of timm, those of kdx, and the pretrained tags of each that appear in the source text."""
    timm = importlib.util.find_spec("timm")
    assert timm is not None and timm.submodule_search_locations
    timm_names: set[str] = set()
    tags: dict[str, set[str]] = {}
    for path in Path(timm.submodule_search_locations[0], "models").rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        timm_names.update(_REGISTERED.findall(source))
        for name, tag in _TAGGED.findall(source):
            tags.setdefault(name, set()).add(tag)
    sources = (path.read_text(encoding="utf-8") for path in Path(__file__).parent.rglob("*.py"))
    variants = {name: arguments for source in sources for name, arguments in _variants(source).items()}
    for name, arguments in variants.items():
        tags |= {name: tags[arguments["architecture"]]} if name.endswith(SAME_WEIGHTS) else {}
    return frozenset(timm_names), frozenset(variants), tags


def _variants(source: str) -> dict[str, dict[str, str]]:
    """Return the literal `VARIANTS` that a module passes to `kdx.networks.registration.register`."""
    if "VARIANTS" not in source:
        return {}
    for node in ast.parse(source).body:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        if any(isinstance(target, ast.Name) and target.id == "VARIANTS" for target in targets):
            assert isinstance(node, (ast.Assign, ast.AnnAssign)) and isinstance(node.value, ast.Dict)
            keys = (key for key in node.value.keys if key is not None)
            return {ast.literal_eval(key): _literals(value) for key, value in zip(keys, node.value.values, strict=True)}
    return {}


def _literals(node: ast.expr) -> dict[str, str]:
    """Return the text items of a literal mapping."""
    pairs = zip(node.keys, node.values, strict=True) if isinstance(node, ast.Dict) else ()
    constant = [(key, value) for key, value in pairs if isinstance(key, ast.Constant) and isinstance(value, ast.Constant)]
    return {str(key.value): str(value.value) for key, value in constant}


def architectures() -> frozenset[str]:
    """Return the names of all architectures that timm and kdx.networks register."""
    timm_names, kdx_names, _ = _registered()
    return timm_names | kdx_names


def check_architecture(name: str) -> None:
    """Raise ValueError, with suggestions, unless `name` (with or without a pretrained tag) can be built."""
    if name.startswith(_ELSEWHERE):
        return
    architecture, _, tag = name.partition(".")
    timm_names, kdx_names, tags = _registered()
    if architecture not in timm_names | kdx_names:
        close = difflib.get_close_matches(architecture, sorted(timm_names | kdx_names), n=4, cutoff=0.5)
        hint = f" Did you mean {', '.join(close)}?" if close else ""
        command = "python -c 'import timm; print(timm.list_models())'"
        raise ValueError(f"Unknown architecture '{name}'.{hint} List all names: {command}")
    available = tags.get(architecture, set())
    # Tags that timm's source computes are checked when the network is built.
    if tag and tag not in available and (available or architecture in kdx_names):
        raise ValueError(unknown_tag(architecture, tag, available))


def located(name: str) -> str:
    """Return the name of an architecture with the absolute path of its folder, if it has one.

    Raises ValueError if the folder does not contain a network.
    """
    if not name.startswith(FOLDER):
        return name
    folder = Path(name.removeprefix(FOLDER)).absolute()
    if not (folder / "config.json").is_file():
        raise ValueError(f"No config.json in the folder of '{name}': expected a folder written by timm.models.save_for_hf")
    return f"{FOLDER}{folder}"


def unknown_tag(architecture: str, tag: str, available: set[str]) -> str:
    """Return the error message for a pretrained tag that does not exist."""
    if not available:
        return f"No pretrained weights for {architecture}: remove '.{tag}' from the name"
    return f"Unknown pretrained tag '{tag}' of {architecture}; available: {', '.join(sorted(available))}; or remove '.{tag}'"


def comes_from_elsewhere(name: str) -> bool:
    """Return whether `name` is the address of a model (hub or local folder), which timm's lists do not contain."""
    return name.startswith(_ELSEWHERE)


@functools.cache
def synsets(subset: str) -> tuple[str, ...]:
    """Return the WordNet IDs of the classes of "imagenet", "imagenet_a" or "imagenet_r" in label order, from timm's lists."""
    timm = importlib.util.find_spec("timm")
    assert timm is not None and timm.submodule_search_locations
    listed = Path(timm.submodule_search_locations[0], "data", "_info", f"{subset}_synsets.txt")
    return tuple(listed.read_text(encoding="utf-8").split())
