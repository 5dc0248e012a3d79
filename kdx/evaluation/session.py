"""Run an evaluation from request to results: metrics, tables, figures, predictions."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from kdx.config.errors import ConfigError
from kdx.config.schema import DataConfig, RunConfig
from kdx.data import class_map
from kdx.data.corruptions import Shift, Step
from kdx.data.source import SPLITS, BadImageError, Images, Joined, Source
from kdx.data.splits import carve_configured, carved_from, fingerprint
from kdx.evaluation import places, results, worst_classes
from kdx.evaluation.loading import load_networks
from kdx.evaluation.measure import Bench, InDepth, Sink, device, num_batches
from kdx.evaluation.measured_networks import MeasuredNetworks
from kdx.evaluation.predictions import Predictions
from kdx.evaluation.request import EvaluatedSplit, EvaluationRequest
from kdx.evaluation.results import EvaluationResult
from kdx.experiment import build
from kdx.experiment.data import on_disk, read_splits
from kdx.metrics.base import EvaluationMetric
from kdx.metrics.disagreement import Disagreement
from kdx.metrics.selection import applicable
from kdx.run.folder import RunFolder
from kdx.run.provenance import provenance

log = logging.getLogger("kdx")


def evaluate(
    request: EvaluationRequest, run: RunConfig | None, other: RunConfig | None, data_name: str, overrides: Sequence[str]
) -> Path:
    """Evaluate as requested, write the results, and return the path of the JSON file.

    Args:
        request: What to evaluate, and how.
        run: The checked config of the run that the network belongs to, if any.
        other: A config whose data replace the data of the run.
        data_name: The name of the data in titles and file names.
        overrides: The command line, for the provenance.

    Raises:
        ConfigError: If networks, data and request do not fit together.
    """
    config = other or run
    assert config is not None
    shifts: dict[str, Shift] = {name: build.make(node, f"shift.{name}") for name, node in (request.shift or {}).items()}
    source: Source = build.make(config.data.source, "data.source")
    split = request.split_of(run)
    data = replace(config.data, batch_size=request.batch_size or config.data.batch_size)
    data = data if request.num_workers is None else replace(data, num_workers=request.num_workers)
    images = images_of(data, source, split)
    networks = load_networks(request, run, source)
    outputs = outputs_of(request, source, networks)
    folder, name = places.results_path(request, data_name, split, list(shifts))
    of_data = fingerprint({str(split): images})
    name = name if request.name else places.distinct(folder, name, networks.of["sha256"], of_data)
    crop = networks.crop or build.make(config.data.eval_crop, "data.eval_crop")
    metrics = added_metrics(run, len(outputs), labels=images.labels is not None)
    bench = Bench(networks.to(device()), torch.from_numpy(outputs).to(device()), crop, data, device(), metrics=metrics)
    sides = sides_of(request, networks)
    console = Console() if Console().is_terminal else Console(width=150)
    with Predictions(folder / f"{name}.parquet") if request.predictions else nullcontext() as predictions:
        steps = steps_of(shifts, request, sides[0], networks.only_side)
        result = measure_all(bench, images, split, sides, steps, request.seed, predictions, console)
    about = {
        "of": networks.of,
        "data": {
            "name": data_name,
            "root": config.data.root,
            "fingerprint": of_data,
            "revision": source.revision,
            "images": len(images),
        },
        "split": split,
        "resolution": {"teacher": networks.resolution.teacher, "student": sides[0]},
        "classes": {"measured": len(outputs), "outputs": networks.student.num_classes},
    }
    content = {**about, "clean": result.clean, "shift": result.shift, "skipped": bench.skipped}
    RunFolder(folder).write(f"{name}.json", {**content, "provenance": provenance(tuple(overrides))})
    title = f"{networks.text} · {data_name} {split}, {len(images)} images, {sides[0]} px"
    names = source.names if source.names is not None and len(source.names) == len(outputs) else None
    results.show(result, images, split, title, names, folder / name, console)
    return folder / f"{name}.json"


def added_metrics(run: RunConfig | None, num_classes: int, *, labels: bool) -> dict[str, EvaluationMetric]:
    """Return the metrics that the run adds to the built-in ones, as far as these data allow them."""
    metrics = build.unchecked(run).metrics if run is not None else {}
    possible = applicable(metrics, num_classes, labels=labels, teacher=True)
    return {name: metric for name, metric in metrics.items() if name in possible}


def sides_of(request: EvaluationRequest, networks: MeasuredNetworks) -> list[int]:
    """Return the resolutions to measure, px. ConfigError if an exported file does not take one of them."""
    own = networks.only_side
    others = [side for side in request.sides if own not in (None, side)]
    if others:
        raise ConfigError(
            f"resolution={others[0]}: {request.file} takes only images of {own} px: remove resolution=, or give "
            "file=student.safetensors of the same export"
        )
    return request.sides or [networks.resolution.student]


def steps_of(
    shifts: Mapping[str, Shift], request: EvaluationRequest, side: int, only: int | None = None
) -> list[tuple[str, Step]]:
    """Return all steps of the shifts, as (name of the shift, step); log a warning for a shift without steps.

    A network that takes `only` one resolution has no steps at others.
    """
    steps = [(name, step) for name, shift in shifts.items() for step in shift.steps(request.severities, side)]
    fixed = {name for name, step in steps if step.side not in (None, only or step.side)}
    for name in sorted(fixed):
        log.warning("shift %s is left out: the file takes only images of %d px; give file=student.safetensors", name, side)
    steps = [(name, step) for name, step in steps if name not in fixed]
    shifts = {name: shift for name, shift in shifts.items() if name not in fixed}
    for name in set(shifts) - {name for name, _ in steps}:
        log.warning(
            "shift %s has no effect at %d px; set shift.%s.sides=[...] to resolutions of at least 4 px", name, side, name
        )
    return steps


def measure_all(
    bench: Bench,
    images: Images,
    split: str,
    sides: Sequence[int],
    steps: Sequence[tuple[str, Step]],
    seed: int,
    predictions: Predictions | None,
    console: Console,
) -> EvaluationResult:
    """Measure the clean images in depth, then every step of the shifts, with a progress bar."""
    has_teacher = bench.subject.teacher is not None
    depth = InDepth(bench, labels=images.labels is not None)
    furthest = Disagreement().to(bench.device) if has_teacher else None
    passes = sum(len(sides) if step.side is None else 1 for _, step in steps) + len(sides)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("clean", total=passes * num_batches(images, bench.data.batch_size))
        bench = replace(bench, tick=lambda: progress.advance(task))
        sinks = [sink for sink in (depth, furthest, predictions) if sink is not None]
        clean = measure_resolutions(bench, images, split, sides, sinks)
        shift = []
        for name, step in steps:
            progress.update(task, description=f"{name} {step.side or step.severity}")
            shift.append(measure_shift(bench, images, split, sides, name, step, seed))
            if not console.is_terminal:  # without a progress bar
                log.info("%d of %d shifts: %s %d", len(shift), len(steps), name, step.severity)
    assessed = depth.compute()
    for network, assessment in assessed.items():
        clean |= {f"{split}/{network}/{metric}": value for metric, value in assessment.numbers.items()}
    return EvaluationResult(clean, shift, worst_classes.tables(assessed), furthest.compute() if furthest is not None else [])


def measure_resolutions(
    bench: Bench, images: Images, split: str, sides: Sequence[int], sinks: Sequence[Sink] = ()
) -> dict[str, float]:
    """Return metrics by flat name at all resolutions: `student` at the first, `student_at_PX` at the others."""
    metrics = {f"{split}/{name}": value for name, value in bench.measure(images, sides[0], sinks=sinks).items()}
    for side in sides[1:]:
        numbers = bench.measure(images, side, teacher=False)
        of_student = {name[8:]: value for name, value in numbers.items() if name.startswith("student/")}
        metrics |= {f"{split}/student_at_{side}/{name}": value for name, value in of_student.items()}
    return metrics


def measure_shift(
    bench: Bench, images: Images, split: str, sides: Sequence[int], name: str, step: Step, seed: int
) -> dict[str, Any]:
    """Return the metrics under one shift at one severity, with the name of the shift and the severity."""
    side = {} if step.side is None else {"side": step.side}
    shifted = step.of(images, seed)
    _warn_if_unchanged(images, shifted, name, step.severity)
    metrics = measure_resolutions(bench, shifted, split, sides if step.side is None else [step.side])
    return {"corruption": name, "severity": step.severity, **side, "metrics": metrics}


def _warn_if_unchanged(images: Images, shifted: Images, name: str, severity: int) -> None:
    """Log a warning if a corruption is too weak to change images of this size."""
    try:
        original, changed = images[0], shifted[0]
    except BadImageError:
        return
    if shifted is not images and np.array_equal(original, changed):
        height, width = original.shape[1:]
        message = "%s at severity %d has no effect on images of %dx%d px; raise its parameters in conf/shift/%s.yaml"
        log.warning(message, name, severity, height, width, name)


def images_of(data: DataConfig, source: Source, split: EvaluatedSplit) -> Images:
    """Return the images of a split of the data set, carved as in a run; of all its own splits for "all".

    Raises:
        ConfigError: If there is no such split, or if it is empty.
    """
    try:
        source.check()
    except ValueError as error:
        raise ConfigError(str(error)) from None
    splits = published = on_disk(data, read_splits(data, source))
    if split == "all":
        return Joined([published[name] for name in SPLITS if name in published])
    try:
        if "train" in splits:
            splits = carve_configured(splits, data)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if split not in splits:
        raise ConfigError(f"Unknown split={split}: the data set has {' and '.join(splits)}; give split={next(iter(splits))}")
    origin = carved_from(published, data.test_from).get(split)
    if origin is not None:
        text = "The data set has no %s split: %d of %d images of %s are used; split=all uses all images of the data set"
        log.info(text, split, len(splits[split]), len(published[origin]), origin)
    for remark in source.remarks():
        log.warning("%s", remark)
    if not len(splits[split]):
        raise ConfigError(f"split={split} is empty: raise data.{split}_share, or give another split")
    return splits[split]


def outputs_of(request: EvaluationRequest, source: Source, networks: MeasuredNetworks) -> class_map.Outputs:
    """Return the indices [K] of the network's outputs for the K classes of the data set."""
    num_outputs = networks.student.num_classes
    num_classes = source.num_classes or num_outputs
    try:
        if request.class_map is not None:
            return class_map.from_file(Path(request.class_map), source.names, num_classes, num_outputs)
        return class_map.outputs_for(source.names, num_classes, networks.names, num_outputs)
    except ValueError as error:
        raise ConfigError(str(error)) from None
