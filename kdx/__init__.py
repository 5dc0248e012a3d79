"""kdx: compose, run and measure knowledge-distillation experiments.

    run = kdx.train("experiment=cqkd_digits", "trainer.max_epochs=2")
    run.metrics["test/student/accuracy"]

`compose`, `train`, `evaluate`, `open_run` and `Run` are the Python API; they are imported when they are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdx.api import Run, compose, evaluate, open_run, train

__version__ = "0.3.0"
__all__ = ["Run", "compose", "evaluate", "open_run", "train"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from kdx import api

        return getattr(api, name)
    raise AttributeError(f"module 'kdx' has no attribute '{name}'; the API is {', '.join(__all__)}")
