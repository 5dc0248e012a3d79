"""The identity of a job: equal for configs that compute the same, on whatever machine and in whatever folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from kdx.config.influence import PLACE, UNRELATED, flat, relevant
from kdx.config.plugins import own_code, targets


def job_identity(config: Mapping[str, Any]) -> str:
    """Return the identity of a resolved config, 16 hexadecimal digits. The user's own modules that it names count as well."""
    computing = {key: value for key, value in config.items() if key not in UNRELATED}
    return digest([relevant(flat(config), (*UNRELATED, *PLACE)), code_of(computing)])


def code_of(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the SHA-256 of the user's own module of each `_target_` of a config; kdx and installed packages are left out."""
    named = sorted({str(node["_target_"]) for _, node in targets(dict(config))})
    own = {target: own_code(target) for target in named if not target.startswith("kdx.")}  # also in a checkout of kdx
    return {target: code for target, code in own.items() if code is not None}


def digest(content: Any) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of plain data, as JSON."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
