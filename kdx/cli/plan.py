"""kdx-plan: what a command of kdx-train would do, and how long it would take, from a few steps of each kind of run."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from kdx.cli import app, train
from kdx.cli.arguments import Arguments
from kdx.cli.child import Child, forwarding, quoted
from kdx.cli.compose import compose_train, opened
from kdx.cli.forecast import LIMIT, STEPS, Forecast, Pace
from kdx.cli.help import Guide
from kdx.cli.sweep_job import options, own_words
from kdx.config.check import check
from kdx.config.errors import ConfigError
from kdx.config.identity import digest
from kdx.config.influence import UNRELATED, flat, relevant
from kdx.config.schema import RunConfig, to_plain

if TYPE_CHECKING:
    from kdx.experiment.outline import Outline

GUIDE = Guide(
    name="plan",
    config="train",
    purpose="Tell what a command of kdx-train would do, and how long it would take.",
    result="Jobs, images, steps, learning rate, teachers that would be trained, time, memory and disk. Nothing is kept.",
    examples=(
        ("kdx-plan", "the main job"),
        ("kdx-plan -m temperature.value=1,4 baselines=[scratch]", "a sweep, with its baseline"),
        ("kdx-train experiment=funmatch_digits --dry-run", "the same, as an option of kdx-train"),
    ),
    more_keys=("data", "teacher"),
    more_groups=train.MORE_GROUPS,
    note=f"Each kind of run takes {STEPS} steps in a temporary folder; the rest is computed.",
)
# What does not change how long a step takes; and words of the user that a measurement replaces.
SAME_WORK = ("seed", "temperature.value", "lr_schedule", "optimizer.lr", "monitor")
REPLACED = ("outputs=", "logger=", "logger.", "hydra.", "baselines=", "measured=", "preflight=", "ckpt_path=", "sweep=")
MOST = 6  # kinds of runs that are measured


def main() -> NoReturn:
    """Run kdx-plan."""
    sys.argv[1:] = [part for word in sys.argv[1:] if word != "--dry-run" for part in train.in_full(word)]
    app.run(app.Command(GUIDE, check, _nothing, start=_plan))


def _nothing(cfg: Any) -> None:
    """Hydra runs no job of kdx-plan."""


def _plan(arguments: Arguments) -> None:
    with opened(arguments):
        runs = list(_runs(arguments))
    kinds: dict[str, list[tuple[list[str], RunConfig]]] = {}
    for words, config in runs:
        kinds.setdefault(_work(config), []).append((words, config))
    from kdx.cli.forecast import show
    from kdx.experiment import build
    from kdx.experiment.outline import outline

    found: list[Forecast] = []
    for number, same in enumerate(kinds.values(), 1):
        words, config = same[0]
        plan = outline(build.parts(config))
        pace = None
        if number <= MOST:
            print(f"measuring {number} of {min(len(kinds), MOST)} kinds of runs, {STEPS} steps ...", file=sys.stderr)
            pace = _measured(words, config, plan)
        further = {_teachers(other): other for _, other in same[1:] if plan.teachers and _teachers(other) != _teachers(config)}
        others = [outline(build.parts(other)).teachers for other in further.values()]
        found.append(Forecast(_label(words, config), len(same), plan, pace or found[-1].pace, others))
    show(found, measured=min(len(kinds), MOST))


def _runs(arguments: Arguments) -> Iterator[tuple[list[str], RunConfig]]:
    """Yield the words and the config of every run that the command trains, baselines included."""
    if "--multirun" in arguments.options:
        from kdx.cli import sweep

        config = sweep.multirun_config("train", arguments.overrides)
        for job in [*sweep.jobs(config), *(job for batch in sweep.baseline_jobs(config).values() for job in batch)]:
            yield list(job), replace(check(sweep.job_config(config, job)), baselines=[])
        return
    words = list(arguments.overrides)
    single = check(compose_train(words))
    yield words, replace(single, baselines=[])
    for name in single.baselines:
        own = [*words, f"baseline={name}"]
        yield own, replace(check(compose_train(own)), baselines=[])


def _work(config: RunConfig) -> str:
    """Return what is equal for runs whose steps take equally long: all settings but seeds, names and real numbers."""
    values = relevant(flat(to_plain(config)), (*UNRELATED, *SAME_WORK))
    return digest({key: value for key, value in values.items() if not isinstance(value, float)})


def _teachers(config: RunConfig) -> str:
    """Return what is equal for runs that have the same teachers."""
    plain = to_plain(config)
    return digest([plain[name] for name in ("teacher", "data", "views", "augmentation", "interpolation", "resolution")])


def _label(words: Sequence[str], config: RunConfig) -> str:
    own = [word for word in own_words(words) if not word.startswith(REPLACED)]
    return config.name if not own else f"{config.name}: {' '.join(own)}"


def _measured(words: Sequence[str], config: RunConfig, plan: Outline) -> Pace:
    """Return how long the parts of a run take, by a short one of the same kind. ConfigError if that fails."""
    with tempfile.TemporaryDirectory(prefix="kdx-plan-") as temporary:
        root = Path(temporary)
        for training in plan.teachers.values():
            if training.done:  # the short run reads the teacher that is there
                link = root / "outputs" / "teachers" / training.folder.name
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(training.folder.absolute(), target_is_directory=True)
        own = [word for word in own_words(words) if not word.startswith(REPLACED)]
        child = Child([*options(), *own, *_short(root, config, plan)], root / "run")
        with forwarding([child]):
            child.process.wait()
        if child.process.returncode:
            console = (child.folder / "console.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise ConfigError(f"the short run failed: {(console or ['no message'])[-1].removeprefix('kdx: ')}")
        metrics = json.loads((child.folder / "metrics.json").read_text(encoding="utf-8"))["metrics"]
        paces = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in (root / "pace").iterdir()}
        size = sum(file.stat().st_size for file in child.folder.rglob("*") if file.is_file())
        return Pace(child.seconds, metrics, paces.pop("run"), paces, size)


def _short(root: Path, config: RunConfig, plan: Outline) -> Iterator[str]:
    """Yield the words of a short run in a temporary folder, which writes its pace and that of each teacher's training."""
    yield from (f"outputs={quoted(root / 'outputs')}", "logger=none", "preflight=off", "ckpt_path=null", "baselines=[]")
    yield "measured=null"
    missing = {path: training.outline.length for path, training in plan.teachers.items() if not training.done}
    trained = [(f"{path}.recipe.", path.rpartition(".")[2], length) for path, length in missing.items()]
    for path, name, length in [("", "run", plan.length), *trained]:
        node = f"{{_target_: kdx.training.callbacks.pace.Pace, file: {quoted(root / 'pace' / f'{name}.json')}}}"
        yield f"++{path}callbacks.pace={node}"
        yield f"++{path}trainer.max_steps={min(STEPS, length.total)}"
        yield f"++{path}trainer.check_val_every_n_epoch=1"
        for split in ("val", "test"):
            if plan.images[split] > LIMIT * config.data.batch_size:
                yield f"++{path}trainer.limit_{split}_batches={LIMIT}"


if __name__ == "__main__":
    main()
