"""Final metrics for student, teacher and calibrated variants: the selected weights on val and, once, on test."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from kdx.config.schema import RunConfig
from kdx.data.source import SplitName
from kdx.experiment.assemble import Experiment
from kdx.experiment.build import Parts
from kdx.report import disagreement, per_class, reliability
from kdx.run.folder import RunFolder
from kdx.training.final_pass import FinalPass, FinalPassResult

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytorch_lightning import Trainer

log = logging.getLogger("kdx")

# Scaled network -> name in metrics.json of the temperature that was fitted on val.
TEMPERATURES = {
    "student_scaled": "calibration_temperature/student",
    "teacher_scaled": "calibration_temperature/teacher_scaled",
}


def assessed_networks(config: RunConfig, *, labels: bool) -> dict[str, int]:
    """Return the networks and variants that a final pass measures, with the input resolution of each in px.

    A calibrated teacher is also measured without calibration, as teacher_raw. Any other teacher, and an ensemble, whose members
    are calibrated one by one, is also measured after temperature scaling on val, as teacher_scaled.
    """
    student, *further = sorted(config.student_resolutions, reverse=True)
    networks = {"student": student}
    if labels:
        networks["student_scaled"] = student
    networks |= {f"student_at_{side}": side for side in further}
    if config.teacher is not None:
        side = config.resolution.teacher
        networks["teacher"] = side
        if config.calibration is not None and len(config.members) == 1:
            networks["teacher_raw"] = side
        elif labels:
            networks["teacher_scaled"] = side
        if side != student:
            networks["teacher_at_student_resolution"] = student
    return networks


def final_metrics(parts: Parts, experiment: Experiment, trainer: Trainer, folder: RunFolder) -> dict[str, float]:
    """Return the final metrics by flat name: preflight, and the selected weights on val and, with `test`, once on test.

    Student and teacher are scaled with temperatures fitted on val, `calibration_temperature/...`. Undefined metrics, such as
    the AUROC of a network without errors, are omitted. The first rank writes reliability.json and .png, per_class.csv,
    disagreement.json and .png.
    """
    module = experiment.module
    metrics: dict[str, float] = {}
    if module.preflight is not None:
        preflight = module.preflight.metrics
        metrics |= {f"preflight/{name}": value for name, value in preflight.items() if "/" in name}
        metrics |= {name: value for name, value in preflight.items() if name.startswith("calibration_temperature")}
    networks = _able(experiment, assessed_networks(parts.config, labels=parts.source.labels))
    widen(experiment, networks)
    results: dict[SplitName, FinalPassResult] = {"val": _measure("val", trainer, networks, parts, experiment)}
    temperatures = results["val"].temperatures
    metrics |= {TEMPERATURES[name]: value for name, value in temperatures.items()}
    metrics |= numbers("val", results["val"], module.val_metrics)
    if parts.config.test:
        results["test"] = _measure("test", trainer, networks, parts, experiment, temperatures)
        metrics |= numbers("test", results["test"], module.test_metrics)
    if module.telemetry.all_images:  # else nothing was left to train after a resume
        metrics["images_per_second"] = module.telemetry.images_per_second
    if trainer.is_global_zero:
        save(networks, results, parts, experiment, folder)
    return metrics


def measured_again(
    parts: Parts, experiment: Experiment, trainer: Trainer, split: SplitName, metrics: Mapping[str, float]
) -> dict[str, float]:
    """Return the metrics of a finished run on a split: `split/network/name` -> value.

    `experiment` has the split in place of test. `metrics` are those of the run, with the temperatures that were fitted on val;
    a network without one, as in older runs, is not scaled.
    """
    temperatures = {name: metrics[key] for name, key in TEMPERATURES.items() if key in metrics}
    networks = _able(experiment, assessed_networks(parts.config, labels=parts.source.labels))
    widen(experiment, networks)
    result = _measure("test", trainer, networks, parts, experiment, temperatures)
    return numbers(split, result, experiment.module.test_metrics)


def _able(experiment: Experiment, networks: dict[str, int]) -> dict[str, int]:
    """Return the networks without a teacher that does not run at the student's resolution, as a ViT of another size."""
    low, teacher = "teacher_at_student_resolution", experiment.teacher
    able = low not in networks or (teacher is not None and teacher.runs_at(networks[low]))
    return {name: side for name, side in networks.items() if able or name != low}


def widen(experiment: Experiment, networks: Mapping[str, int]) -> None:
    """Render val and test at the student's additional resolutions too, if it has any."""
    further = [side for name, side in networks.items() if name.startswith("student_at_")]
    if further:
        observers = experiment.datamodule.observers
        widened = {name: observers[name].widened(further) for name in ("val", "test")}
        experiment.datamodule.observers = {**observers, **widened}


def numbers(split: str, result: FinalPassResult, suite: Mapping[str, float]) -> dict[str, float]:
    """Return all metrics of a split by flat name, without NaN; `suite` takes precedence over the final pass."""
    return {f"{split}/{name}": value for name, value in {**result.numbers, **suite}.items() if value == value}


def _measure(
    split: Literal["val", "test"],
    trainer: Trainer,
    networks: Mapping[str, int],
    parts: Parts,
    experiment: Experiment,
    temperatures: Mapping[str, float] | None = None,
) -> FinalPassResult:
    """Return the result of a final pass over a split."""
    module, examination = experiment.module, experiment.module.examination
    module.findings = None
    module.final_pass = FinalPass(
        networks,
        module.distiller.student.num_classes,
        temperatures,
        labels=parts.source.labels,
        added_metrics=parts.metrics,
        at_student=None if examination is None else functools.partial(examination.at_student, split),
    )
    run_loop = trainer.validate if split == "val" else trainer.test
    run_loop(module, datamodule=experiment.datamodule, verbose=False)
    return module.findings or FinalPassResult({}, {})  # empty with trainer.limit_val_batches=0


def save(
    networks: Mapping[str, int],
    results: Mapping[SplitName, FinalPassResult],
    parts: Parts,
    experiment: Experiment,
    folder: RunFolder,
) -> None:
    """Write reliability diagrams, per-class metrics, and the examples of the last split with the largest disagreement."""
    assessed = {split: result.assessed for split, result in results.items()}
    diagrams = [
        {
            "split": split,
            "network": name,
            "resolution": networks[name],
            **dict(zip(("count", "confidence", "correct"), network.diagram.tolist(), strict=True)),
        }
        for split, assessed_by_name in assessed.items()
        for name, network in assessed_by_name.items()
        if network.diagram is not None
    ]
    if diagrams:
        content: dict[str, Any] = {"num_bins": len(diagrams[0]["count"]), "diagrams": diagrams}
        folder.write("reliability.json", content)
        with _optional("reliability.png"):
            reliability.figure(content).savefig(folder.path / "reliability.png", dpi=110)
        tables: dict[str, dict[str, list[list[float]]]] = {
            split: {name: item.per_class.tolist() for name, item in assessed_by_name.items() if item.per_class is not None}
            for split, assessed_by_name in assessed.items()
        }
        per_class.write(folder.path / "per_class.csv", tables, parts.source.names)
    split = list(results)[-1]
    furthest = results[split].furthest
    if furthest:
        folder.write("disagreement.json", {"split": split, "examples": furthest})
        with _optional("disagreement.png"):
            images = [experiment.datamodule.splits[split][row["index"]] for row in furthest]
            disagreement.picture(images, furthest, parts.source.names).save(folder.path / "disagreement.png")


@contextmanager
def _optional(name: str) -> Iterator[None]:
    """Log a warning if a picture cannot be drawn, so that the metrics of a long run are still saved."""
    try:
        yield
    except Exception as error:  # fonts, disks and drawing libraries raise many kinds
        log.warning("%s not drawn: %s", name, error)
