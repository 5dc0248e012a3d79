"""The list of commands, for `python -m kdx`."""

from __future__ import annotations

from kdx.cli import (
    advise,
    benchmark,
    cache,
    compare,
    evaluate,
    evidence,
    export,
    plan,
    predict,
    prepare,
    report,
    sweep_status,
    train,
    tune,
    views,
)

GUIDES = (
    *(train.GUIDE, plan.GUIDE, advise.GUIDE, tune.GUIDE, views.GUIDE, evaluate.GUIDE, export.GUIDE, prepare.GUIDE),
    *(evidence.GUIDE, benchmark.GUIDE),
)
PURPOSES = {
    **{f"kdx-{guide.name}": guide.purpose for guide in GUIDES},
    "kdx-predict": predict.PURPOSE,
    "kdx-compare": compare.PURPOSE,
    "kdx-report": report.PURPOSE,
    "kdx-sweep": sweep_status.PURPOSE,
    "kdx-cache": cache.PURPOSE,
}


def main() -> None:
    """Print each command with its purpose."""
    print("kdx: knowledge distillation, from a config to compared numbers\n")
    for name, purpose in PURPOSES.items():
        print(f"  {name:<15}{purpose}")
    print("\nCOMMAND --help shows examples and keys. Not on PATH? python -m kdx.cli.train")
