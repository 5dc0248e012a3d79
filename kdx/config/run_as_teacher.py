"""The student of a finished run as a teacher: its network, weights and resolution, read from the run's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kdx.config.cards import read_card

CARD, WEIGHTS = "student.json", "student.safetensors"


def student_of_run(run: str) -> dict[str, Any]:
    """Return `network`, `checkpoint` and `resolution` of a teacher that is the student of a finished run.

    Args:
        run: The folder of the run.

    Raises:
        ValueError: If a file is missing or invalid.
    """
    folder = Path(run)
    try:
        card = read_card(folder / CARD)
    except ValueError as error:
        raise ValueError(f"{run} is not a finished run ({error}); expected a folder with {CARD} and {WEIGHTS}") from None
    if not (folder / WEIGHTS).is_file():
        raise ValueError(f"{run} has no {WEIGHTS}: the run is not finished; expected the folder of a finished run")
    network_args = {key: value for key, value in card["model_args"].items() if key not in ("num_classes", "in_chans")}
    network = {
        "_target_": "kdx.networks.network.Network",
        "_partial_": True,
        "architecture": card["architecture"],
        "pretrained": False,
        "mean": card["pretrained_cfg"]["mean"],
        "std": card["pretrained_cfg"]["std"],
        "args": network_args,
    }
    return {"network": network, "checkpoint": str(folder / WEIGHTS), "resolution": card["resolution"]}
