"""kdx-benchmark: measure how fast kdx is on this machine, beside a bare PyTorch loop."""

from __future__ import annotations

import sys
from itertools import takewhile
from typing import Any, NoReturn

from omegaconf import DictConfig, OmegaConf

from kdx.benchmarks.request import RUNS, BenchmarkRequest, request, words_of
from kdx.cli import app
from kdx.cli.compose import compose_train
from kdx.cli.help import Guide
from kdx.config.check import check

GUIDE = Guide(
    name="benchmark",
    config="benchmark",
    usage="[SETTING ...] [KEY=VALUE ...]",
    purpose="Measure how fast kdx is on this machine, beside a bare PyTorch loop.",
    result="Tables of milliseconds, ratios, shares of a step, start-up and memory; and with to=FILE all numbers as JSON.",
    examples=(
        ("kdx-benchmark", "all settings, about half an hour on 2 cores"),
        ("kdx-benchmark digits resnet56 to=FILE", "two settings, with the numbers as JSON"),
        ("kdx-benchmark resnet56 variants=[safe] ranks=2", "one variant, and two processes"),
    ),
)


def _request(cfg: DictConfig) -> BenchmarkRequest:
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    asked = request(plain)
    for name in asked.settings:
        if name in RUNS:
            check(compose_train([*words_of(name, asked.words), "data.root=images"]))
    return asked


def _benchmark(cfg: DictConfig) -> None:
    asked = _request(cfg)
    from kdx.benchmarks.session import benchmark

    benchmark(asked)


def main() -> NoReturn:
    """Run kdx-benchmark."""
    words = sys.argv[1:]
    settings = list(takewhile(lambda word: "=" not in word and not word.startswith("-"), words))
    if settings:
        sys.argv[1:] = [f"settings=[{','.join(settings)}]", *words[len(settings) :]]
    app.run(app.Command(GUIDE, _request, _benchmark))


if __name__ == "__main__":
    main()
