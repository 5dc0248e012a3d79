"""student.json, the card of a trained network: plain data, from which nothing is built but that network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kdx.config.errors import ConfigError
from kdx.config.plugins import interpolations, targets

REMEDY = "give the folder of a finished run, or copy student.json again"
KEYS = {"architecture": str, "resolution": int, "model_args": dict, "pretrained_cfg": dict}


def read_card(path: Path) -> dict[str, Any]:
    """Return the content of a student.json. ConfigError if it does not describe a student, or is more than plain data.

    The config.json of an export in timm's form has the resolution in `pretrained_cfg` alone.
    """
    try:
        card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if "resolution" not in card and (size := card.get("pretrained_cfg", {}).get("input_size")):
            card["resolution"] = size[-1]
        absent = sorted(key for key, kind in KEYS.items() if not isinstance(card.get(key), kind))
        if absent := absent or sorted({"num_classes", "in_chans"} - set(card["model_args"])):
            raise ValueError(f"no {absent[0]}")
        if absent := sorted({"mean", "std"} - set(card["pretrained_cfg"])):
            raise ValueError(f"no {absent[0]}")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} does not describe a student ({error}): {REMEDY}") from None
    named = [f"{where}._target_" for where, _ in targets(card)] + interpolations(card)
    if named:
        raise ConfigError(f"{path} has {named[0]}={{...}}, but a card is plain data from which nothing is built: do not use it")
    return card
