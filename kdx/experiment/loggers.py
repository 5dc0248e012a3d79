"""Logger setup and teardown: every logger gets the same information when a run starts and when it ends."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kdx.config.schema import RunConfig, to_plain
from kdx.experiment import build
from kdx.report import per_class
from kdx.run.folder import RunFolder
from kdx.run.masking import mask, masked
from kdx.training.loggers.journal import FinalReport, Journal, RunInfo
from kdx.training.loggers.metrics_file import MetricsFile
from kdx.training.ranks import rank

log = logging.getLogger("kdx")
QUIET = ("hydra", "outputs", "logger", "trainer", "callbacks", "experiment", "seed", "baseline", "baselines", "name", "tags")
PICTURES = ("reliability", "disagreement")
KEYS, SUMS = ("split", "network", "resolution"), ("count", "confidence", "correct")  # columns of a reliability diagram


def run_info(config: RunConfig, folder: RunFolder) -> RunInfo:
    """Return the information for loggers at the start; the name consists of the run's name, baseline, overrides and seed."""
    overrides = [text.lstrip("+~") for text in folder.overrides]
    shown = [text for text in overrides if text.partition("=")[0].partition("@")[0].split(".")[0] not in QUIET]
    baseline = [config.baseline] if config.baseline else []
    experiments = [text.partition("=")[2] for text in overrides if text.startswith("experiment=")]
    checkpoint = config.checkpoint
    return RunInfo(
        folder=folder.path,
        name=" ".join([config.name, *baseline, *map(mask, shown), f"s{config.seed}"]),
        job_type=f"baseline-{config.baseline}" if config.baseline else "train",
        monitor=config.monitor,
        mode=config.monitor_mode,
        config=masked(to_plain(config)),
        group=folder.group,
        tags=[*map(mask, config.tags), *experiments, *baseline],
        resumed=checkpoint.resolve().parent.parent if checkpoint is not None else None,
    )


def open_loggers(config: RunConfig, folder: RunFolder, info: RunInfo) -> list[Any]:
    """Return the logger of metrics.csv and, on the first rank, the loggers of the config."""
    if rank() > 0:
        return [MetricsFile(folder.path)]
    extra = []
    for name, node in (config.logger or {}).items():
        logger = build.make(node, f"logger.{name}")(save_dir=str(folder.path))
        if isinstance(logger, Journal):
            logger.begin(info)
        else:
            logger.log_hyperparams(dict(info.config))
        if not getattr(logger, "broken", False):  # Lightning would start a logger again whose start failed
            extra.append(logger)
    return [MetricsFile(folder.path), *extra]


def journals(loggers: Iterable[Any]) -> list[Journal]:
    """Return the loggers that accept pictures and tables."""
    return [logger for logger in loggers if isinstance(logger, Journal)]


def conclude(loggers: Iterable[Any], info: RunInfo, report: Mapping[str, Any], best: float | None) -> None:
    """Pass final metrics and the student, then pictures and tables, to all loggers. `report` is the content of metrics.json."""
    cards = _json(info.folder / "teacher.json").get("members", {})
    teachers = {name: card["sha256"] for name, card in cards.items()}
    conclusion = FinalReport(report["metrics"], report["last"], best, report["selection"], teachers, report.get("caveats", {}))
    tables = _tables(info.folder)
    for journal in journals(loggers):
        journal.conclude(info, conclusion)
        for name in PICTURES:
            path = info.folder / f"{name}.png"
            if path.is_file():
                journal.picture(name, path)
        for name, (columns, rows) in tables.items():
            journal.table(name, columns, rows)
    for logger in loggers:
        if not isinstance(logger, Journal):
            with _optional(logger):
                logger.log_metrics({name: value for name, value in report["metrics"].items() if "/" in name})


def close(loggers: Iterable[Any], failed: bool) -> None:
    """Close all loggers, so that the next run of a sweep starts with new ones."""
    for logger in loggers:
        if isinstance(logger, Journal):
            logger.close(failed)
        else:
            with _optional(logger):
                if hasattr(logger.experiment, "finish"):
                    logger.experiment.finish()


@contextmanager
def _optional(logger: Any) -> Iterator[None]:
    """Log a warning if a logger that is no Journal fails at the end; metrics.json is already written."""
    try:
        yield
    except Exception as error:  # from a server, a full disk or a library
        log.warning(
            "%s failed (%s: %s); the run's folder contains all results", type(logger).__name__, type(error).__name__, error
        )


def _tables(folder: Path) -> dict[str, per_class.TypedTable]:
    """Return the tables in a run's folder: name -> columns and rows, each column of one type or None."""
    tables: dict[str, per_class.TypedTable] = {}
    if (folder / "per_class.csv").is_file():
        tables["per_class"] = per_class.read(folder / "per_class.csv")
    diagrams = _json(folder / "reliability.json").get("diagrams", [])
    if diagrams:
        tables["reliability"] = (
            [*KEYS, "bin", *SUMS],
            [
                [*(diagram[key] for key in KEYS), i, *(diagram[key][i] for key in SUMS)]
                for diagram in diagrams
                for i in range(len(diagram["count"]))
            ],
        )
    examples = _json(folder / "disagreement.json").get("examples", [])
    if examples:
        columns = [name for name, value in examples[0].items() if not isinstance(value, (list, dict))]
        tables["disagreement"] = columns, [[example.get(name) for name in columns] for example in examples]
    return tables


def _json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return content
