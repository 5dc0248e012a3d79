"""The result of a finished run, with those of its baselines: read from their folders and shown, without importing torch."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from kdx.config.check import check_plain
from kdx.config.identity import job_identity
from kdx.config.schema import AUTO, RunConfig, to_plain
from kdx.report.summary import show, verdict
from kdx.run import job
from kdx.run.folder import RunFolder
from kdx.run.ranks import own_rank

log = logging.getLogger("kdx")

# Overrides that leave an experiment what it was when its result was measured.
NEUTRAL = ("experiment", "seed", "logger", "outputs", "hydra", "name", "tags", "baselines")


def result(config: RunConfig, folder: RunFolder) -> dict[str, float] | None:
    """Return the final metrics of a run and print its table, if it and its baselines are finished in the folder; else None."""
    baselines = {name: baseline_of(config, name) for name in config.baselines}
    places = {name: RunFolder(folder.baselines / name, folder.group, folder.overrides) for name in baselines}
    if not _finished(config, folder) or not all(_finished(baselines[name], place) for name, place in places.items()):
        return None
    metrics = stored_metrics(folder)
    if own_rank() == 0:
        log.info("Finished already: %s", folder.path)
        if not baselines:
            show_result(config, folder)
        else:
            show_comparison(config, folder, metrics, {name: stored_metrics(place) for name, place in places.items()})
    return metrics


def _finished(config: RunConfig, folder: RunFolder) -> bool:
    if config.ckpt_path != AUTO or job.state(folder.path) != "finished":
        return False
    if own_rank() == 0 and job.is_held(folder.path):
        return False
    return bool(folder.read("run.json").get("identity") == job_identity(to_plain(config)))


def stored_metrics(folder: RunFolder) -> dict[str, float]:
    """Return the final metrics of a finished run by flat name."""
    metrics: dict[str, float] = folder.read("metrics.json")["metrics"]
    return metrics


def show_result(config: RunConfig, folder: RunFolder) -> None:
    """Print the table of a finished run."""
    report = folder.read("metrics.json")
    pixels = {"teacher": config.resolution.teacher, "student": config.student_resolution}
    title, caveats = f"{config.name} · {report['selection']['text']}", list(report.get("caveats", {}).values())
    split = "test" if config.test else "val"
    show(report["metrics"], pixels, split, title, str(folder.path), list(config.metrics), caveats=caveats)


def baseline_of(config: RunConfig, name: str) -> RunConfig:
    """Return the config of a run's baseline. ConfigError if the baseline does not apply."""
    return check_plain({**to_plain(config), "baseline": name, "baselines": [], "measured": None, "ckpt_path": AUTO})


def show_comparison(
    config: RunConfig, folder: RunFolder, metrics: Mapping[str, float], baselines: Mapping[str, Mapping[str, float]]
) -> None:
    """Print the table of teacher, student and baselines, and the difference to each baseline on this seed."""
    split, report = "test" if config.test else "val", folder.read("metrics.json")
    title = f"{config.name} · seed {config.seed} · {report['selection']['text']}"
    caveats = list(report.get("caveats", {}).values())
    pixels = {"teacher": config.resolution.teacher, "student": config.student_resolution}
    show(metrics, pixels, split, title, str(folder.path), list(config.metrics), baselines, caveats)
    for name, numbers in baselines.items():
        print(verdict(metrics, numbers, split, name))
    print(f"One seed is not enough for a conclusion. Use five: add -m 'seed=range(5)' baselines=[{','.join(baselines)}]")
    if config.measured and all(word.lstrip("+~").split("=")[0].split(".")[0] in NEUTRAL for word in folder.overrides):
        print(config.measured)
