"""Names of the built-in metrics, for checks that do not import torch."""

from __future__ import annotations

from collections.abc import Mapping

OF_NETWORK: Mapping[str, bool | None] = {  # name -> higher is better, None if neither is
    "accuracy": True,
    "top5": True,
    "nll": False,
    "brier": False,
    "entropy": None,
    "ece": False,
}
OF_PAIR: Mapping[str, bool | None] = {"agreement": True, "kl": False}  # of the student and its teacher or peers
