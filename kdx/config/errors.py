"""ConfigError, and the messages for unknown keys, invalid values and renamed classes."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from kdx.config.mounted import MOUNTED, usage
from kdx.config.other_words import UNSUPPORTED, key_for, target_for
from kdx.run.masking import MASK, is_secret, mask, masked_keys


class ConfigError(ValueError):
    """A configuration that cannot run. The message ends with the remedy; secrets in it are masked."""

    def __init__(self, message: str) -> None:
        super().__init__(mask(message))


def invalid(path: str, value: Any, reason: str) -> str:
    """Return the message for an invalid value, without the value if it is a secret."""
    return mask(f"{path}={value}: {reason}", [str(value)] if is_secret(path) else [])


def refuse_masked(config: Mapping[str, Any]) -> None:
    """Raise ConfigError if a config, read from a run's folder, has secrets that were masked there."""
    keys = masked_keys(config)
    if keys:
        raise ConfigError(
            f"A run's config.yaml has {MASK} in place of secret values; give those of {', '.join(keys)} again, as "
            f"{keys[0]}=VALUE or '{keys[0]}=${{oc.env:VARIABLE}}'"
        )


def nearest(word: str, candidates: list[str]) -> str:
    """Return " Did you mean 'X'?" with the most similar candidate; empty if none is similar."""
    lower = {candidate.lower(): candidate for candidate in reversed(candidates)}
    close = difflib.get_close_matches(word, candidates, n=1, cutoff=0.5) or [
        lower[name] for name in difflib.get_close_matches(word.lower(), lower, n=1, cutoff=0.5)
    ]
    return f" Did you mean '{close[0]}'?" if close else ""


def unknown(path: str, keys: list[str]) -> str:
    """Return the message for an unknown key, with the most similar key, or all keys if none is similar."""
    word = path.split(".")[-1]
    available = [key for key in keys if key != "hydra" and not key.startswith("_")]
    reason = UNSUPPORTED.get(word) if word not in available else None
    if reason is not None:
        return f"Unknown key '{path}': {reason}"
    if path in MOUNTED and "trainer" in keys:
        return f"Unknown key '{path}'. Did you mean {' or '.join(MOUNTED[path])}? Its options are selected with {usage(path)}"
    suggestion = key_for(path) if "." in path or "trainer" in keys else None  # at the root, only if these are keys of a run
    if suggestion is None or word in available:
        hint = nearest(word, available) or (f" Available: {', '.join(available)}" if available else "")
    else:
        hint = f" Did you mean {suggestion}?"
    return f"Unknown key '{path}'.{hint}"


def explain_omegaconf(error: OmegaConfBaseException) -> str:
    """Return a one-line message for an unknown key, a wrong type or an invalid interpolation."""
    key = error.full_key or str(error.key or "")
    parent = error.parent_node
    if "is not a ListConfig" in str(error):
        return f"{key} expects a list: {key}=[VALUE]"
    if "not in" in str(error) or "Key '" in str(error):
        keys = [str(k) for k in parent] if isinstance(parent, DictConfig) and not parent._is_none() else []
        keys = keys or ([f.name for f in fields(error.object_type)] if is_dataclass(error.object_type) else [])
        return unknown(key, keys)
    return f"{key + ': ' if key else ''}{(str(error).strip().splitlines() or [''])[0]}"


def renamed(target: str) -> str | None:
    """Return the message for a class that was renamed since kdx 0.1; None for other classes."""
    new = target_for(target)
    return None if new is None else f"this name is from kdx 0.1; use {new}"
