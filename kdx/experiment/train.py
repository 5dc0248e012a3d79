"""Training of a student (first its teacher, if not stored), selection on val, one test; all results are in the run's folder."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from kdx.config.errors import ConfigError
from kdx.config.schema import RunConfig, to_plain
from kdx.costs.energy import EnergyMeter
from kdx.data.source import Images, SplitName
from kdx.data.splits import fingerprint
from kdx.experiment import build, loggers, teacher
from kdx.experiment.assemble import assemble
from kdx.experiment.build import Parts
from kdx.experiment.cost import measure_cost
from kdx.experiment.data import carve_splits, check_images, found_in, read_data, read_splits, warn_of_duplicates
from kdx.experiment.dry_run import dry_run
from kdx.experiment.final_metrics import TEMPERATURES, final_metrics
from kdx.experiment.job import begun, refuse_other_data
from kdx.experiment.judging import judges, report_faults
from kdx.experiment.leaks import leaks
from kdx.experiment.length import KEY, settled
from kdx.experiment.stored import show_result, stored_metrics
from kdx.experiment.students import count_parameters, save_students, teacher_card
from kdx.experiment.trainer import best_score, compiling, fit, make_trainer, select
from kdx.experiment.weight_checks import check_weights
from kdx.metrics.selection import directions
from kdx.report.panel import draw_views
from kdx.run.folder import RunFolder, forget_peak_memory, peak_memory_mb
from kdx.run.study import PRUNED
from kdx.training.callbacks.pruning import pruned, pruning
from kdx.training.ranks import rank
from kdx.training.sharing import Sharing
from kdx.training.telemetry import NonFiniteLossError

log = logging.getLogger("kdx")


def train(parts: Parts, folder: RunFolder, quiet: bool = False, *, describe: bool = True) -> dict[str, float]:
    """Train, select on val, test once, and write all results into the folder.

    A run that was cut off goes on from its newest checkpoint, and ends as if it had not been; a finished one is not repeated.

    Args:
        parts: The objects of a checked config.
        folder: The run's folder, created if missing.
        quiet: Whether to omit the table at the end.
        describe: Whether to log what the data set contains.

    Returns:
        The final metrics by flat name, as in metrics.json; empty for a trial of a search that was pruned.

    Raises:
        ConfigError: If data, networks or weights do not fit the config, or if the folder holds another run.
        NonFiniteLossError: If the loss is NaN or infinite.
    """
    with begun(parts, folder) as (folder, finished):
        if finished:
            log.info("Finished already: %s", folder.path)
        metrics = stored_metrics(folder) if finished else _train(parts, folder, describe)
    if rank() == 0 and not quiet and metrics:
        show_result(parts.config, folder)
    return metrics


def _train(parts: Parts, folder: RunFolder, describe: bool) -> dict[str, float]:
    """Train in a folder that this process holds. Return the final metrics."""
    config, clock = parts.config, parts.sharing.clock
    start = clock()
    check_weights(parts)
    published, splits = read_data(parts, describe=describe)
    stated, config = config, settled(config, splits)
    if config is not stated:
        log.info("trainer.%s=auto: val after every %d epochs, at most 5 %% of the arithmetic", KEY, config.trainer[KEY])
    parts.config = config
    dry_run(parts, splits)
    splits = check_images(parts, published)
    about = {"identity": parts.identity, "data": fingerprint(published)}
    if rank() == 0:
        refuse_other_data(config, folder, about["data"])
    provenance = folder.start(to_plain(stated), about) if rank() == 0 else {}  # now that all fits, a run begins
    duplicates = warn_of_duplicates(config.data, splits, found_in(config))
    teacher_seconds: list[float] = []  # of the members that are trained in this run

    def train_member(config: RunConfig, key: str, member_folder: Path) -> None:
        began = clock()
        try:
            train_teacher(config, key, member_folder, parts.sharing.for_teacher())
        except ConfigError as error:
            raise ConfigError(f"In the training of the teacher, of which it is the student: {error}") from None
        teacher_seconds.append(clock() - began)

    before_teacher = clock()
    files = teacher.obtain(parts, published, train_member)
    start += clock() - before_teacher  # time, energy and memory are the student's
    energy = EnergyMeter()
    forget_peak_memory()
    experiment = assemble(parts, splits, files, folder.path)
    if judges(config):
        report_faults(leaks(parts, published), config, experiment.caveats)
    module = experiment.module
    picture = save_panel(parts, splits, folder)
    callbacks = [build.make(node, f"callbacks.{name}") for name, node in (config.callbacks or {}).items()]
    for callback in callbacks:
        experiment.caveats |= getattr(callback, "caveats", {})
    callbacks += [*pruning(folder.path), *compiling(config)]
    info = loggers.run_info(config, folder)
    opened = loggers.open_loggers(config, folder, info)
    if picture is not None:
        for journal in loggers.journals(opened):
            journal.picture("views", picture)
    trainer = make_trainer(config, folder, callbacks=callbacks, logger=opened)
    for name, own in files.items():
        log.info("%s: %s", name, own.file or "timm's pretrained weights")
    before = experiment.teacher.fingerprint if experiment.teacher is not None else None
    failed = True
    try:
        fit(trainer, experiment, config.ckpt_path)
        if (at := pruned(trainer)) is not None:
            log.info("Pruned after epoch %d: %s %.4f", at["epoch"], at["metric"], at["value"])
            if trainer.is_global_zero:
                folder.write(PRUNED, at)
            failed = False
            return {}
        selected, last = select(parts, trainer, experiment, folder)
        metrics = {**count_parameters(experiment), **final_metrics(parts, experiment, trainer, folder)}
        metrics["seconds"] = clock() - start
        metrics |= {"teacher_seconds": sum(teacher_seconds)} if teacher_seconds else {}
        metrics["peak_memory_mb"] = peak_memory_mb()
        joules = energy.joules()
        metrics |= {} if joules is None else {"energy_joules": joules}
        assert experiment.teacher is None or experiment.teacher.fingerprint == before, "the teacher's weights changed"
        if trainer.is_global_zero:
            save_students(module, config, folder, parts.source.names, metrics.get(TEMPERATURES["student_scaled"]))
            if experiment.teacher is not None:
                folder.write("teacher.json", teacher_card(experiment.teacher, files))
            costs = measure_cost(parts, experiment, trainer, metrics.get("images_per_second"))
            metrics |= costs.metrics
            report = {
                "metrics": metrics,
                "last": last or {name: value for name, value in metrics.items() if name.startswith("val/")},
                "selection": selected,
                "higher_is_better": directions(parts.metrics),
                "data": {
                    "fingerprint": about["data"],
                    "revision": parts.source.revision,
                    "duplicates_in_test": duplicates,
                    "skipped": experiment.datamodule.skipped,
                },
                "caveats": experiment.caveats,
                "cost": {"protocol": costs.protocol, "repetitions": costs.repetitions},
                "provenance": provenance,
            }
            folder.write("metrics.json", report)
            loggers.conclude(opened, info, report, best_score(trainer))
        failed = False
    except NonFiniteLossError as error:
        for journal in loggers.journals(opened):
            journal.alert("Loss is not finite", str(error))
        raise
    finally:
        loggers.close(opened, failed)
    return metrics


def train_teacher(config: RunConfig, key: str, folder: Path, sharing: Sharing) -> None:
    """Train the teacher that `config` describes, and that has this key, into `folder`."""
    parts = build.parts(config)
    parts.identity, parts.sharing = key, sharing
    metrics = train(parts, RunFolder(folder), quiet=True, describe=False)
    name = config.student["architecture"]
    log.info("Teacher %s trained in %.0f s: val accuracy %.4f", name, metrics["seconds"], metrics["val/student/accuracy"])


def show_views(parts: Parts, folder: RunFolder) -> Path | None:
    """Write `views.png`, the first batch as teacher and student see it, without training. Return its path."""
    folder.path.mkdir(parents=True, exist_ok=True)
    return save_panel(parts, carve_splits(parts.config.data, read_splits(parts.config.data, parts.source)), folder)


def save_panel(parts: Parts, splits: Mapping[SplitName, Images], folder: RunFolder) -> Path | None:
    """Write `views.png`, the first batch as teacher and student see it. Return its path; None on other ranks than the first."""
    if rank() > 0:
        return None
    config = parts.config
    observer = build.observers(parts, num_classes=max(parts.source.num_classes or 2, 2))["train"]
    observer.teacher = config.teacher is not None  # even if its outputs are stored, so that it does not run in training
    path = folder.path / "views.png"
    draw_views(observer, splits["train"], config.data.batch_size, config.seed, config.data.on_bad_image).save(path)
    return path
