"""kdx-advise: is it worth to distill here? Short trials of several methods against labels alone, with a verdict and a cost."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, NoReturn

import hydra
from annotated_types import Gt, Le, MinLen
from omegaconf import OmegaConf

from kdx.cli import app, arguments, launchers, sweep, train
from kdx.cli.arguments import Arguments
from kdx.cli.compose import compose_train, opened
from kdx.cli.help import Guide
from kdx.config.check import check
from kdx.config.errors import ConfigError
from kdx.config.requests import typed
from kdx.config.schema import RunConfig
from kdx.ranges import Count

GUIDE = Guide(
    name="advise",
    config="advise",
    purpose="Tell whether it is worth to distill here, from short trials against labels alone.",
    result=(
        "A table with intervals; distill, do not distill or undecided for accuracy, NLL and ECE; the cost of a whole run; and "
        "the commands to go on with. The trials are a sweep, with its report.html; the same command goes on with it."
    ),
    examples=(
        ("kdx-advise data=digits300", "the main job's networks and resolutions, with 300 images"),
        ("kdx-advise data=digits300 share=0.3 seeds=5", "longer trials, and more of them"),
        ("kdx-advise data=digits300 methods=[kd,funmatch]", "some of the methods; the group method lists them"),
    ),
    usage="[share=SHARE] [seeds=N] [methods=[...]] [any words of kdx-train]",
    more_groups={"method": "methods=[...]: ways to distill"},
    note="Methods that need long training, such as funmatch, gain more from a larger share than others. All groups and keys of "
    "a run: kdx-train --help.",
)
CHOSEN = {
    "seed": "kdx-advise chooses the seeds: use seeds=N",
    "method": "kdx-advise tries several methods: use methods=[NAME,...]",
    "baselines": "kdx-advise compares with labels alone, baseline=scratch: remove baselines=",
}


@dataclass(frozen=True)
class Request:
    """The keys of conf/advise.yaml, which explains them."""

    share: Annotated[float, Gt(0), Le(1)]
    seeds: Count
    methods: Annotated[list[str], MinLen(1)]


SCRATCH = "scratch"  # the baseline, from labels alone
OWN = tuple(item.name for item in fields(Request))


def main() -> NoReturn:
    """Run kdx-advise."""
    launchers.register()
    app.run(app.Command(GUIDE, check, lambda config: None, start=_advise))


def _advise(given: Arguments) -> None:
    own = [word for word in given.overrides if word.partition("=")[0] in OWN]
    words = [word for word in given.overrides if word not in own]
    with opened(given):
        plain: Any = OmegaConf.to_container(hydra.compose("advise", own))
        request = typed(Request, {name: plain[name] for name in OWN})
        length, short = _lengths(_checked(words), request.share)
        tried = [f"method={','.join(request.methods)}", f"seed=range({request.seeds})", f"baselines=[{SCRATCH}]"]
        trials = [*words, *tried, *short]
        folder = Path(str(sweep.multirun_config("train", trials).hydra.sweep.dir))
    options = [name if value is None else f"{name}={value}" for name, value in given.options.items()]
    sys.argv = ["kdx-train", "-m", *options, *trials]
    failed = 0
    try:
        app.execute(app.Command(train.GUIDE, check, train.job_runner()), arguments.parse(sys.argv[1:]))
    except SystemExit as ended:  # some trials have failed: what can be told is told
        if ended.code != app.FAILED:
            raise
        failed = app.FAILED
    if "--cfg" in given.options:
        return
    _show(folder, words, request, length)
    sys.exit(failed)


def _checked(words: Sequence[str]) -> RunConfig:
    """Return the config of the whole run. ConfigError if there is nothing to advise on."""
    for word in words:
        if (key := word.lstrip("+~").partition("=")[0]) in CHOSEN:
            raise ConfigError(CHOSEN[key])
    config = check(compose_train(words))
    if config.teacher is None:
        raise ConfigError("kdx-advise needs a teacher to learn from, but teacher=none: select one, e.g. teacher=online")
    return config


def _lengths(config: RunConfig, share: float) -> tuple[float, list[str]]:
    """Return how many times longer a whole run is than a trial, and the words that shorten a run."""
    for key in ("max_steps", "max_epochs"):
        whole = config.trainer.get(key) or -1
        if whole > 0:
            short = max(1, round(share * whole))
            return whole / short, [f"trainer.{key}={short}"]
    raise ConfigError("kdx-advise needs the length of a run: set trainer.max_epochs=N")


def _show(folder: Path, words: Sequence[str], request: Request, longer: float) -> None:
    """Print the table, the answers, the cost of a whole run, and commands to go on with; write them to advice.txt, too."""
    from rich.console import Console
    from rich.table import Table

    from kdx.compare.advice import advise, rows
    from kdx.run.durations import duration

    trials = _trials(folder, request.methods)
    answers = advise(trials)
    if not answers:
        raise ValueError(f"no method can be compared with labels alone: kdx-sweep status {folder} shows what is missing")
    headings, lines = rows(trials)
    n = max(len(seeds) for seeds in trials.values())
    table = Table(title=f"{request.share:.0%} of the training, n = {n}", caption="Δ: to scratch, paired by seed, 95 % interval")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "method" else "right")
    for line in lines:
        table.add_row(*line)
    text = [f"{answer}." for answer in answers]
    method = next((answer.method for answer in answers if answer.decision == "distill"), SCRATCH)
    seconds = [metrics["seconds"] for metrics in trials[method].values()]
    took = sum(seconds) / len(seconds)
    chosen = f"{'baseline' if method == SCRATCH else 'method'}={method}"
    text.append(f"A run of {chosen} in full takes about {duration(longer * took)}; a trial took {duration(took)}.")
    command = shlex.join(words)
    if any(answer.decision == "undecided" for answer in answers):
        more = f"share={min(1.0, 3 * request.share):g} seeds={request.seeds + 2}"
        text.append(f"Undecided: kdx-advise {command} {more}")
    text.append(f"To go on: kdx-train {command} {chosen}")
    with (folder / "advice.txt").open("w", encoding="utf-8") as file:
        for console in (Console(width=None if sys.stdout.isatty() else 200), Console(file=file, width=200)):
            console.print(table)
            console.print("\n".join(text), highlight=False, soft_wrap=True)


def _trials(folder: Path, methods: Sequence[str]) -> dict[str, dict[int, dict[str, float]]]:
    """Return the metrics of the finished trials, by method and seed."""
    from kdx.compare.metric_selection import numbers
    from kdx.compare.runs import find_runs
    from kdx.run.sweep_folder import read_plan

    jobs = read_plan(folder).jobs
    found: dict[str, dict[int, dict[str, float]]] = {method: {} for method in (SCRATCH, *methods)}
    for run in find_runs([folder]):
        word = next((word for word in jobs.get(run.path.name, ()) if word.startswith(("method=", "baseline="))), "")
        if run.state == "finished" and run.seed is not None and word:
            found[word.partition("=")[2]][run.seed] = numbers(run)
    return {method: seeds for method, seeds in found.items() if seeds}


if __name__ == "__main__":
    main()
