"""Final metrics for student, teacher and calibrated variants: the selected weights on val and, once, on test."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from kdx.config.schema import RunConfig
from kdx.data.source import SplitName
from kdx.experiment.assemble import Experiment
from kdx.experiment.build import Parts
from kdx.report import disagreement, per_class, reliability
from kdx.run.folder import RunFolder
from kdx.training.final_pass import FinalPass, FinalPassResult

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pytorch_lightning import Trainer

log = logging.getLogger("kdx")

# The name in metrics.json of a temperature that was fitted on val, by the network that is scaled with it.
TEMPERATURES = {
    "student_scaled": "calibration_temperature/student",
    "teacher_scaled": "calibration_temperature/teacher_scaled",
}


def assessed_networks(config: RunConfig, *, labels: bool) -> dict[str, int]:
    """The networks and their variants that a final pass measures, with the resolution in px at which each sees the images.

    A calibrated teacher is measured without its calibration too, as teacher_raw. Any other teacher, and an ensemble, whose
    members are calibrated one by one, is measured after temperature scaling on val as well, as teacher_scaled.
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
    """Final metrics by flat name: the preflight, and the selected weights on val and (once, if the config has a test) on test.

    Student and teacher are scaled with temperatures fitted on val, `calibration_temperature/...`. A number that does not exist,
    such as the AUROC of a network without errors, is left out. The first rank writes reliability.json and .png,
    per_class.csv, disagreement.json and .png.
    """
    module = experiment.module
    metrics: dict[str, float] = {}
    if module.preflight is not None:
        preflight = module.preflight.metrics
        metrics |= {f"preflight/{name}": value for name, value in preflight.items() if "/" in name}
        metrics |= {name: value for name, value in preflight.items() if name.startswith("calibration_temperature")}
    networks = assessed_networks(parts.config, labels=parts.source.labels)
    widen(experiment, networks)
    results: dict[SplitName, FinalPassResult] = {"val": _look(trainer.validate, networks, parts, experiment)}
    temperatures = results["val"].temperatures
    metrics |= {TEMPERATURES[name]: value for name, value in temperatures.items()}
    metrics |= numbers("val", results["val"], module.val_metrics)
    if parts.config.test:
        results["test"] = _look(trainer.test, networks, parts, experiment, temperatures)
        metrics |= numbers("test", results["test"], module.test_metrics)
    metrics["images_per_second"] = module.telemetry.images_per_second
    if trainer.is_global_zero:
        save(networks, results, parts, experiment, folder)
    return metrics


def measured_again(
    parts: Parts, experiment: Experiment, trainer: Trainer, split: SplitName, metrics: Mapping[str, float]
) -> dict[str, float]:
    """The numbers of a finished run on a split, as the run measured them: `split/network/name` -> value.

    The split is what the experiment has as its test. `metrics` are the run's own, from which come the temperatures that were
    fitted on val; a network without one, as in an older run, is not scaled.
    """
    temperatures = {name: metrics[key] for name, key in TEMPERATURES.items() if key in metrics}
    networks = assessed_networks(parts.config, labels=parts.source.labels)
    widen(experiment, networks)
    result = _look(trainer.test, networks, parts, experiment, temperatures)
    return numbers(split, result, experiment.module.test_metrics)


def widen(experiment: Experiment, networks: Mapping[str, int]) -> None:
    """Show val and test at the student's further resolutions as well, if it has any."""
    further = [side for name, side in networks.items() if name.startswith("student_at_")]
    if further:
        own = experiment.datamodule.observers
        wide = {name: own[name].widened(further) for name in ("val", "test")}
        experiment.datamodule.observers = {**own, **wide}


def numbers(split: str, result: FinalPassResult, suite: Mapping[str, float]) -> dict[str, float]:
    """All numbers of a split by flat name, without NaN; where suite and final pass both have one, the suite's."""
    return {f"{split}/{name}": value for name, value in {**result.numbers, **suite}.items() if value == value}


def _look(
    go: Callable[..., Any],
    networks: Mapping[str, int],
    parts: Parts,
    experiment: Experiment,
    temperatures: Mapping[str, float] | None = None,
) -> FinalPassResult:
    """The result of a final pass while `go`, the trainer's validate or test, shows a split to the module."""
    module = experiment.module
    module.findings = None
    module.final_pass = FinalPass(
        networks, module.distiller.student.num_classes, temperatures, labels=parts.source.labels, added_metrics=parts.metrics
    )
    go(module, datamodule=experiment.datamodule, verbose=False)
    return module.findings or FinalPassResult({}, {})  # empty with trainer.limit_val_batches=0


def save(
    networks: Mapping[str, int],
    results: Mapping[SplitName, FinalPassResult],
    parts: Parts,
    experiment: Experiment,
    folder: RunFolder,
) -> None:
    """Write the diagrams, the classes, and the examples of the last split on which student and teacher are furthest apart."""
    assessed = {split: found.assessed for split, found in results.items()}
    diagrams = [
        {
            "split": split,
            "network": name,
            "resolution": networks[name],
            **dict(zip(("count", "confidence", "correct"), one.diagram.tolist(), strict=True)),
        }
        for split, everyone in assessed.items()
        for name, one in everyone.items()
        if one.diagram is not None
    ]
    if diagrams:
        content: dict[str, Any] = {"num_bins": len(diagrams[0]["count"]), "diagrams": diagrams}
        folder.write("reliability.json", content)
        with _optional("reliability.png"):
            reliability.figure(content).savefig(folder.path / "reliability.png", dpi=110)
        tables: dict[str, dict[str, list[list[float]]]] = {
            split: {name: one.per_class.tolist() for name, one in everyone.items() if one.per_class is not None}
            for split, everyone in assessed.items()
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
    """Log a warning if a picture cannot be drawn, so that the numbers of a long run are not lost for it."""
    try:
        yield
    except Exception as error:  # fonts, disks and drawing libraries raise many kinds
        log.warning("%s is not drawn: %s", name, error)
