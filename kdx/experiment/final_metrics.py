"""The selected weights on val and, once, on test, in depth: numbers for metrics.json, and the files that explain them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from kdx.config.check import members
from kdx.data.source import SplitName
from kdx.experiment import build
from kdx.experiment.assemble import Experiment
from kdx.report import disagreement, per_class, reliability
from kdx.run.folder import RunFolder
from kdx.training.final_pass import FinalPass, FinalPassResult

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pytorch_lightning import Trainer

log = logging.getLogger("kdx")

# Under which name in the run's metrics a temperature that was fitted on val is kept, by who is scaled with it.
TEMPERATURES = {
    "student_scaled": "calibration_temperature/student",
    "teacher_scaled": "calibration_temperature/teacher_scaled",
}


def cast(cfg: DictConfig, *, labels: bool) -> dict[str, int]:
    """Who is assessed in a final pass, with the resolution in px that each sees.

    A teacher that was calibrated is shown without it, too, as teacher_raw; any other, and an ensemble, whose calibrated members
    are not calibrated together, after temperature scaling on val, as teacher_scaled.
    """
    student, *further = sorted(build.student_resolutions(cfg), reverse=True)
    found = {"student": student}
    if labels:
        found["student_scaled"] = student
    found |= {f"student_at_{side}": side for side in further}
    if cfg.teacher is not None:
        own = cfg.resolution.teacher
        found["teacher"] = own
        if cfg.calibration is not None and len(members(cfg)) == 1:
            found["teacher_raw"] = own
        elif labels:
            found["teacher_scaled"] = own
        if own != student:
            found["teacher_at_student_resolution"] = student
    return found


def measured(
    cfg: DictConfig, parts: build.Parts, experiment: Experiment, trainer: Trainer, folder: RunFolder
) -> dict[str, float]:
    """Preflight, and the selected weights on val and (once, if the config has a test) on test: metrics by flat name.

    Student and teacher are scaled with temperatures fitted on val, `calibration_temperature/...`. A number that does not exist,
    such as the AUROC of a network that is always right, is left out. The first rank writes reliability.json and .png,
    per_class.csv, disagreement.json and .png.
    """
    module = experiment.module
    metrics: dict[str, float] = {}
    if module.preflight is not None:
        found = module.preflight.metrics
        metrics |= {f"preflight/{name}": value for name, value in found.items() if "/" in name}
        metrics |= {name: value for name, value in found.items() if name.startswith("calibration_temperature")}
    who = cast(cfg, labels=parts.source.labels)
    widen(experiment, who)
    findings: dict[SplitName, FinalPassResult] = {"val": _look(trainer.validate, who, parts, experiment)}
    temperatures = findings["val"].temperatures
    metrics |= {TEMPERATURES[name]: value for name, value in temperatures.items()}
    metrics |= numbers("val", findings["val"], module.val_metrics)
    if cfg.test:
        findings["test"] = _look(trainer.test, who, parts, experiment, temperatures)
        metrics |= numbers("test", findings["test"], module.test_metrics)
    metrics["images_per_second"] = module.telemetry.images_per_second
    if trainer.is_global_zero:
        save(who, findings, parts, experiment, folder)
    return metrics


def again(
    cfg: DictConfig,
    parts: build.Parts,
    experiment: Experiment,
    trainer: Trainer,
    split: SplitName,
    metrics: Mapping[str, float],
) -> dict[str, float]:
    """The numbers of a finished run on a split, as the run measured them: `split/who/what` -> value.

    The split is what the experiment has as its test. `metrics` are the run's own, from which come the temperatures that were
    fitted on val; who has none there, as in an older run, is not scaled.
    """
    known = {name: metrics[key] for name, key in TEMPERATURES.items() if key in metrics}
    who = cast(cfg, labels=parts.source.labels)
    widen(experiment, who)
    found = _look(trainer.test, who, parts, experiment, known)
    return numbers(split, found, experiment.module.test_metrics)


def widen(experiment: Experiment, who: Mapping[str, int]) -> None:
    """Let val and test be seen at the student's further resolutions as well, if it has any."""
    further = [side for name, side in who.items() if name.startswith("student_at_")]
    if further:
        own = experiment.datamodule.observers
        wide = {name: own[name].widened(further) for name in ("val", "test")}
        experiment.datamodule.observers = {**own, **wide}


def numbers(split: str, findings: FinalPassResult, suite: Mapping[str, float]) -> dict[str, float]:
    """Everything about a split by flat name, without what is not a number; the suite's word counts where both say it."""
    return {f"{split}/{name}": value for name, value in {**findings.numbers, **suite}.items() if value == value}


def _look(
    go: Callable[..., Any],
    who: Mapping[str, int],
    parts: build.Parts,
    experiment: Experiment,
    temperatures: Mapping[str, float] | None = None,
) -> FinalPassResult:
    """What the final pass finds while `go`, the trainer's validate or test, shows a split to the module."""
    module = experiment.module
    module.findings = None
    module.final_pass = FinalPass(
        who, module.distiller.student.num_classes, temperatures, labels=parts.source.labels, added_metrics=parts.metrics
    )
    go(module, datamodule=experiment.datamodule, verbose=False)
    return module.findings or FinalPassResult({}, {})  # nothing where trainer.limit_val_batches=0 leaves nothing to see


def save(
    who: Mapping[str, int],
    findings: Mapping[SplitName, FinalPassResult],
    parts: build.Parts,
    experiment: Experiment,
    folder: RunFolder,
) -> None:
    """Write the diagrams, the classes, and the examples of the last split on which student and teacher are furthest apart."""
    assessed = {split: found.assessed for split, found in findings.items()}
    diagrams = [
        {
            "split": split,
            "who": name,
            "resolution": who[name],
            **dict(zip(("count", "confidence", "correct"), one.diagram.tolist(), strict=True)),
        }
        for split, everyone in assessed.items()
        for name, one in everyone.items()
        if one.diagram is not None
    ]
    if diagrams:
        content: dict[str, Any] = {"num_bins": len(diagrams[0]["count"]), "diagrams": diagrams}
        folder.write("reliability.json", content)
        with _dispensable("reliability.png"):
            reliability.figure(content).savefig(folder.path / "reliability.png", dpi=110)
        tables: dict[str, dict[str, list[list[float]]]] = {
            split: {name: one.per_class.tolist() for name, one in everyone.items() if one.per_class is not None}
            for split, everyone in assessed.items()
        }
        per_class.write(folder.path / "per_class.csv", tables, parts.source.names)
    split = list(findings)[-1]
    furthest = findings[split].furthest
    if furthest:
        folder.write("disagreement.json", {"split": split, "examples": furthest})
        with _dispensable("disagreement.png"):
            images = [experiment.datamodule.splits[split][row["index"]] for row in furthest]
            disagreement.picture(images, furthest, parts.source.names).save(folder.path / "disagreement.png")


@contextmanager
def _dispensable(name: str) -> Iterator[None]:
    """A picture that cannot be drawn is said and left out: the numbers of a long run are not lost for it."""
    try:
        yield
    except Exception as error:  # whatever fonts, disks and drawing libraries think of
        log.warning("%s is not drawn: %s", name, error)
