"""The error of a config, and the sentences that say what is wrong and what to type instead."""

from __future__ import annotations

import difflib
from dataclasses import fields, is_dataclass

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from kdx.config.other_words import key_for, target_for


class ConfigError(ValueError):
    """A configuration that cannot run. The message ends with the remedy."""


def nearest(word: str, known: list[str]) -> str:
    """A sentence that names the most similar known word; empty if none is similar."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""


def unknown(path: str, known: list[str]) -> str:
    """What to say of a key that does not exist: the nearest one, else all there are."""
    word = path.split(".")[-1]
    available = [key for key in known if key != "hydra" and not key.startswith("_")]
    other = key_for(path) if "." in path or "trainer" in known else None  # at the root, only where these are keys of a run
    if other is None or word in available:
        hint = nearest(word, available) or (f" Available: {', '.join(available)}" if available else "")
    else:
        hint = f" Did you mean {other}?"
    return f"Unknown key '{path}'.{hint}"


def explain_omegaconf(error: OmegaConfBaseException) -> str:
    """One line for an unknown key, a wrong type or a broken interpolation."""
    key = error.full_key or str(error.key or "")
    parent = error.parent_node
    if "not in" in str(error) or "Key '" in str(error):
        known = [str(k) for k in parent] if isinstance(parent, DictConfig) and not parent._is_none() else []
        known = known or ([f.name for f in fields(error.object_type)] if is_dataclass(error.object_type) else [])
        return unknown(key, known)
    return f"{key + ': ' if key else ''}{(str(error).strip().splitlines() or [''])[0]}"


def renamed(target: str) -> str | None:
    """What to say of a class of an earlier version; None for others."""
    new = target_for(target)
    return None if new is None else f"this name is from kdx 0.1; use {new}"
