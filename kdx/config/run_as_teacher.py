"""The student of a finished run as a teacher: its network, weights and resolution, read from the run's folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CARD, WEIGHTS = "student.json", "student.safetensors"


def adopted(run: str) -> dict[str, Any]:
    """`network`, `checkpoint` and `resolution` of a teacher that is the student of the finished run in folder `run`.

    ValueError says what is missing there.
    """
    folder = Path(run)
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        args, trained = dict(card["model_args"]), card["pretrained_cfg"]
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"there is no finished run in {run} ({error}): give the folder that holds {CARD} and {WEIGHTS}"
        ) from None
    if not (folder / WEIGHTS).is_file():
        raise ValueError(f"the run in {run} has no {WEIGHTS}: was it cut off? Give the folder of a finished run")
    own = {key: value for key, value in args.items() if key not in ("num_classes", "in_chans")}
    network = {
        "_target_": "kdx.networks.network.Network",
        "_partial_": True,
        "architecture": card["architecture"],
        "pretrained": False,
        "mean": trained["mean"],
        "std": trained["std"],
        "args": own,
    }
    return {"network": network, "checkpoint": str(folder / WEIGHTS), "resolution": card["resolution"]}
