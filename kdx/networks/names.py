"""Which architectures there are, read from source text: importing timm to find a typo would take seconds."""

from __future__ import annotations

import difflib
import functools
import importlib.util
import re
from pathlib import Path

_REGISTERED = re.compile(r"^@register_model\s+def (\w+)\(", re.MULTILINE)


@functools.cache
def architectures() -> frozenset[str]:
    """Names of all architectures that timm and kdx.networks register."""
    timm = importlib.util.find_spec("timm")
    assert timm is not None and timm.submodule_search_locations
    folders = [Path(timm.submodule_search_locations[0], "models"), Path(__file__).parent]
    sources = (path.read_text(encoding="utf-8") for folder in folders for path in folder.rglob("*.py"))
    return frozenset(name for source in sources for name in _REGISTERED.findall(source))


def check_architecture(name: str) -> None:
    """Raise ValueError, with the closest names, unless `name` (with or without a pretrained tag) can be built."""
    if name.startswith(("hf-hub:", "hf_hub:", "local-dir:")) or name.split(".")[0] in architectures():
        return
    close = difflib.get_close_matches(name.split(".")[0], sorted(architectures()), n=4, cutoff=0.5)
    hint = f" Close: {', '.join(close)}." if close else ""
    raise ValueError(f"timm has no architecture '{name}'.{hint} All names: python -c 'import timm; print(timm.list_models())'")
