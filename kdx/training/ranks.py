"""Which of several processes is this?"""

from __future__ import annotations

from pytorch_lightning.utilities import rank_zero_only


def rank() -> int:
    """The rank of this process over all nodes, 0 where there is only one; known before any process group is."""
    return int(getattr(rank_zero_only, "rank", 0))
