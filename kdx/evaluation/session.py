"""An evaluation from request to results: numbers, a table, a picture, predictions."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from kdx.config.check import ConfigError
from kdx.data import class_map
from kdx.data.cache import cached, key
from kdx.data.corruptions import Shift, Step
from kdx.data.source import BadImageError, Images, Source, SplitName
from kdx.data.splits import carve, fingerprint
from kdx.evaluation import classes, results
from kdx.evaluation.measure import Bench, InDepth, Sink, device, num_batches
from kdx.evaluation.predictions import Predictions
from kdx.evaluation.request import EvaluationRequest
from kdx.evaluation.results import EvaluationResult
from kdx.evaluation.subjects import MeasuredNetworks, subject
from kdx.experiment import build
from kdx.metrics.base import EvaluationMetric
from kdx.metrics.disagreement import Disagreement
from kdx.metrics.selection import applicable
from kdx.run.folder import RunFolder
from kdx.run.provenance import provenance

log = logging.getLogger("kdx")


def evaluate(
    asked: EvaluationRequest, run: DictConfig | None, other: DictConfig | None, data_name: str, overrides: Sequence[str]
) -> Path:
    """Measure what was asked for and write it; gives the JSON file.

    `run` is the checked config of the run that the network belongs to; `other` is one whose data are to be used in place of the
    run's, and `data_name` what they are called. ConfigError says what does not fit.
    """
    cfg = other or run
    assert cfg is not None
    shifts: dict[str, Shift] = {name: build.make(node, f"shift.{name}") for name, node in (asked.shift or {}).items()}
    source: Source = build.make(cfg.data.source, "data.source")
    split = asked.split_of(run)
    images = images_of(cfg, source, split)
    networks = subject(asked, run, source)
    outputs = outputs_of(asked, source, networks)
    folder, name = place(asked, data_name, split, list(shifts))
    data = OmegaConf.merge(
        cfg.data, {key: value for key in ("batch_size", "num_workers") if (value := getattr(asked, key)) is not None}
    )
    crop = build.make(cfg.data.eval_crop, "data.eval_crop")
    metrics = added_metrics(run, len(outputs), labels=images.labels is not None)
    bench = Bench(networks.to(device()), torch.from_numpy(outputs).to(device()), crop, data, device(), metrics=metrics)
    sides = asked.sides or [networks.resolution.student]
    console = Console() if Console().is_terminal else Console(width=150)
    with Predictions(folder / f"{name}.parquet") if asked.predictions else nullcontext() as predictions:
        found = everything(bench, images, split, sides, steps_of(shifts, asked, sides[0]), asked.seed, predictions, console)
    about = {
        "of": networks.of,
        "data": {"name": data_name, "root": cfg.data.root, "fingerprint": fingerprint({split: images}), "images": len(images)},
        "split": split,
        "resolution": {"teacher": networks.resolution.teacher, "student": sides[0]},
        "classes": {"measured": len(outputs), "outputs": networks.student.num_classes},
    }
    content = {**about, "clean": found.clean, "shift": found.shift, "skipped": bench.skipped}
    RunFolder(folder).write(f"{name}.json", {**content, "provenance": provenance(tuple(overrides))})
    title = f"{networks.text} · {data_name} {split}, {len(images)} images, {sides[0]} px"
    names = source.names if source.names is not None and len(source.names) == len(outputs) else None
    results.show(found, images, split, title, names, folder / name, console)
    return folder / f"{name}.json"


def added_metrics(run: DictConfig | None, num_classes: int, *, labels: bool) -> dict[str, EvaluationMetric]:
    """The metrics that the run adds to the built-in ones, as far as these data allow them."""
    metrics = build.unchecked(run).metrics if run is not None else {}
    possible = applicable(metrics, num_classes, labels=labels, teacher=True)
    return {name: metric for name, metric in metrics.items() if name in possible}


def steps_of(shifts: Mapping[str, Shift], asked: EvaluationRequest, side: int) -> list[tuple[str, Step]]:
    """All that is to be measured beside the clean images; what a shift cannot do here is said."""
    steps = [(what, step) for what, shift in shifts.items() for step in shift.steps(asked.severities, side)]
    for what in set(shifts) - {what for what, _ in steps}:
        log.warning("%d px cannot be halved: give shift.%s.sides=[...] in px, of 4 or more", side, what)
    return steps


def everything(
    bench: Bench,
    images: Images,
    split: str,
    sides: Sequence[int],
    steps: Sequence[tuple[str, Step]],
    seed: int,
    predictions: Predictions | None,
    console: Console,
) -> EvaluationResult:
    """The clean images in depth, then every step, while a bar says how long it will take."""
    taught = bench.subject.teacher is not None
    depth = InDepth(bench, labels=images.labels is not None)
    furthest = Disagreement().to(bench.device) if taught else None
    passes = sum(len(sides) if step.side is None else 1 for _, step in steps) + len(sides)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("clean", total=passes * num_batches(images, bench.data.batch_size))
        bench = replace(bench, tick=lambda: progress.advance(task))
        clean = measured(bench, images, split, sides, [sink for sink in (depth, furthest, predictions) if sink is not None])
        shift = []
        for what, step in steps:
            progress.update(task, description=f"{what} {step.side or step.severity}")
            shift.append(row(bench, images, split, sides, what, step, seed))
            if not console.is_terminal:  # where no bar is seen
                log.info("%d of %d shifts: %s %d", len(shift), len(steps), what, step.severity)
    assessed = depth.compute()
    clean |= {f"{split}/{who}/{what}": value for who, own in assessed.items() for what, value in own.numbers.items()}
    return EvaluationResult(clean, shift, classes.tables(assessed), furthest.compute() if furthest is not None else [])


def measured(bench: Bench, images: Images, split: str, sides: Sequence[int], sinks: Sequence[Sink] = ()) -> dict[str, float]:
    """Flat names for all resolutions of the student: the first is `student`, others are `student_at_6`."""
    found = {f"{split}/{name}": value for name, value in bench.measure(images, sides[0], sinks=sinks).items()}
    for side in sides[1:]:
        numbers = bench.measure(images, side, teacher=False)
        found |= {f"{split}/student_at_{side}/{name.removeprefix('student/')}": value for name, value in numbers.items()}
    return found


def row(bench: Bench, images: Images, split: str, sides: Sequence[int], what: str, step: Step, seed: int) -> dict[str, Any]:
    """One shift at one severity."""
    side = {} if step.side is None else {"side": step.side}
    shifted = step.of(images, seed)
    _warn_of_nothing(images, shifted, f"{what} at severity {step.severity}", what)
    metrics = measured(bench, shifted, split, sides if step.side is None else [step.side])
    return {"corruption": what, "severity": step.severity, **side, "metrics": metrics}


def _warn_of_nothing(images: Images, shifted: Images, title: str, what: str) -> None:
    """Say so where a corruption is too weak for images as small as these to show in them."""
    try:
        own, changed = images[0], shifted[0]
    except BadImageError:
        return
    if shifted is not images and np.array_equal(own, changed):
        height, width = own.shape[1:]
        log.warning(
            "%s changes nothing in an image of %dx%d px: conf/shift/%s.yaml has what to raise", title, height, width, what
        )


def images_of(cfg: DictConfig, source: Source, split: SplitName) -> Images:
    """A split of the data set, carved as a run would. ConfigError if there is no such split, or nothing in it."""
    data = cfg.data
    try:
        source.check()
        own = source.splits()
        if data.cache is not None:
            own = {name: cached(images, Path(data.cache), key(images, name), log.info) for name, images in own.items()}
        if "train" in own:
            own = carve(own, val=data.val_share, test=data.test_share, train_size=data.train_size, seed=data.split_seed)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if split not in own:
        raise ConfigError(f"split={split}: the data set has only {' and '.join(own)}: give split={next(iter(own))}")
    if not len(own[split]):
        raise ConfigError(f"split={split} has no image: raise data.{split}_share, or give another split")
    return own[split]


def outputs_of(asked: EvaluationRequest, source: Source, networks: MeasuredNetworks) -> class_map.Outputs:
    """The outputs [K] that stand for the data set's classes."""
    num_outputs = networks.student.num_classes
    num_classes = source.num_classes or num_outputs
    try:
        if asked.class_map is not None:
            return class_map.from_file(Path(asked.class_map), source.names, num_classes, num_outputs)
        return class_map.outputs_for(source.names, num_classes, networks.names, num_outputs)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def place(asked: EvaluationRequest, data_name: str, split: str, shifts: Sequence[str]) -> tuple[Path, str]:
    """The folder for the results, made if need be, and what they are called there."""
    assert asked.to is not None or asked.folder is not None
    folder = Path(asked.to) if asked.to is not None else asked.folder / "evaluations"  # type: ignore[operator]  # asserted
    folder.mkdir(parents=True, exist_ok=True)
    file = asked.student or asked.checkpoint
    parts = [
        Path(file).stem if file else asked.timm,
        data_name,
        split,
        "+".join(shifts),
        "+".join(f"{r}px" for r in asked.sides),
    ]
    return folder, asked.name or "-".join(part for part in parts if part)
