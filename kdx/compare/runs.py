"""Find the runs under given folders and read their config, state and metrics."""

from __future__ import annotations

import csv
import gc
import glob
import math
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from kdx.compare.index import FILE, Index
from kdx.compare.records import FILES, Record, read_record
from kdx.config.influence import flat
from kdx.run import job
from kdx.run.study import PRUNED

State = Literal["finished", "running", "pruned", "failed", "stopped", "damaged"]
Curves = dict[str, list[tuple[int, int, float]]]  # name -> (epoch, step, value)

STOPPED_AFTER = 600.0  # seconds since the last write after which an unfinished run counts as stopped
INDEX_FROM = 50  # number of runs under a root from which an index is written
SKIPPED = ("teachers", "wandb")  # teachers are runs as well, but are only read if their folder is given
RUN_FILES = ("run.json", "config.yaml")  # a folder with one of these files is a run folder


@dataclass(frozen=True)
class RunRecord:
    """The content of one run folder."""

    path: Path
    state: State
    problem: str  # an error in the files with its remedy, or that with which the run failed; "" if there is none
    config: Mapping[str, Any]
    metrics: Mapping[str, float]  # by flat name, of the selected weights
    last: Mapping[str, float]  # on val, of the last weights, if other weights were selected
    selection: Mapping[str, Any]
    data: Mapping[str, Any]
    provenance: Mapping[str, Any]
    cost: Mapping[str, Any]
    caveats: Mapping[str, str]  # what limits the meaning of the numbers, by a word for the kind
    higher_is_better: Mapping[str, bool | None]
    started: str | None
    group: str | None

    @property
    def name(self) -> str:
        """The name in the config; the name of the folder if the config cannot be read."""
        return str(self.config.get("name", self.path.name))

    @property
    def seed(self) -> int | None:
        """The seed; None if the config cannot be read."""
        seed = self.config.get("seed")
        return seed if isinstance(seed, int) else None

    @property
    def baseline(self) -> str | None:
        """The name of the equal-budget baseline that the run is; None if it is not a baseline."""
        return self.config.get("baseline")

    @property
    def added_metrics(self) -> list[str]:
        """Names of the metrics that the run measures beside the built-in ones."""
        metrics = self.config.get("metrics")
        return list(metrics) if isinstance(metrics, dict) else []

    @cached_property
    def flat_config(self) -> dict[str, Any]:
        """Config values by dotted path. Lists, empty mappings and None are values."""
        return flat(self.config)


def find_runs(roots: Sequence[str | Path]) -> list[RunRecord]:
    """Return all runs under the roots, sorted by path, each once.

    Teachers (`outputs/teachers`) are only included if their folder is itself a root. Damaged runs are included with the state
    "damaged". The result may be empty.

    Args:
        roots: Run folders, sweep folders, any folders that contain them, or globs.

    Raises:
        ValueError: If a root does not exist.
    """
    now = time.time()
    records: dict[str, RunRecord] = {}
    for root in list(_expand(roots)):
        folders = {real: folder for real, folder in _run_folders(root) if real not in records}
        indexed = not _is_run(root) and (len(folders) >= INDEX_FROM or (root / FILE).exists())
        with _no_garbage_collection(), Index(root) if indexed else nullcontext() as index:
            for real, folder in folders.items():
                records[real] = _load(folder, os.path.relpath(folder, root), index, now)
            if index is not None:
                index.keep_only({os.path.relpath(folder, root) for folder in folders.values()})
    return sorted(records.values(), key=lambda run: _natural(str(run.path)))


def read_curves(run: RunRecord) -> Curves:
    """Return the curves in `metrics.csv` as {flat name: [(epoch, step, value)]}; empty if there is no such file.

    A last line without a line end is ignored: the run is still writing it.
    """
    try:
        text = (run.path / "metrics.csv").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    lines = text.splitlines()
    if lines and not text.endswith("\n"):
        lines.pop()
    curves: Curves = {}
    rows = csv.reader(lines)
    names = next(rows, [])
    places = {name: place for place, name in enumerate(names)}
    step_at, epoch_at = places.pop("step", len(names)), places.pop("epoch", len(names))
    for row in rows:
        step, epoch = (_number(row[at]) if at < len(row) else None for at in (step_at, epoch_at))
        if step is None:
            continue
        for name, place in places.items():
            if place < len(row) and row[place] and (value := _number(row[place])) is not None:  # most cells are empty
                curves.setdefault(name, []).append((int(epoch or 0), int(step), value))
    return curves


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Disable garbage collection: it finds no cycles in plain data and takes a third of the reading time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _expand(roots: Sequence[str | Path]) -> Iterator[Path]:
    for root in roots:
        path = Path(root).expanduser()
        if path.is_dir():
            yield path
        elif path.exists():
            raise ValueError(f"{root} is a file: give a run folder or a folder that contains runs")
        elif glob.has_magic(str(path)):
            matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True)) if os.path.isdir(match)]
            matches = [match for match in matches if match.name not in SKIPPED or match.name == path.name]
            if not matches:
                raise ValueError(f"No folder matches {root}: give a folder that contains runs, such as outputs")
            yield from matches
        else:
            raise ValueError(f"{root} does not exist: give a folder that contains runs, such as outputs")


BASELINES = "baselines"  # the folder of a run that holds its equal-budget baselines, as in kdx.run.folder


def _run_folders(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield (real path, path as given) of every run folder and of its baselines; a link is followed once.

    Nothing else inside of a run folder is searched.
    """
    visited: set[str] = set()
    queue = [(os.path.realpath(root), str(root))]
    while queue:
        real, folder = queue.pop()
        if real in visited:
            continue
        visited.add(real)
        try:
            entries = list(os.scandir(folder))
        except OSError:
            continue
        if any(entry.name in RUN_FILES for entry in entries):
            yield real, Path(folder)
            entries = [entry for entry in entries if entry.name == BASELINES]
        for entry in entries:
            if entry.is_dir() and entry.name not in SKIPPED and not entry.name.startswith("."):
                below = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(real, entry.name)
                queue.append((below, entry.path))


def _is_run(folder: Path) -> bool:
    return any((folder / name).exists() for name in RUN_FILES)


def _load(folder: Path, relative: str, index: Index | None, now: float) -> RunRecord:
    stats: dict[str, os.stat_result] = {}
    for name in FILES:
        with suppress(OSError):
            stats[name] = os.stat(os.path.join(folder, name))
    stamp = " ".join(f"{name}:{stat.st_mtime_ns}:{stat.st_size}" for name, stat in stats.items())
    record = index.get(relative, stamp) if index else None
    if record is None:
        record = read_record(folder, frozenset(stats))
        if index:
            index.put(relative, stamp, record)
    return _run(folder, record, now)


def _run(folder: Path, record: Record, now: float) -> RunRecord:
    values = dict(record)
    finished = values.pop("finished")
    state: State = "finished" if finished else "running" if _is_running(folder, now) else "stopped"
    if state == "stopped" and (folder / PRUNED).is_file():
        state = "pruned"
    if values["problem"]:
        state = "damaged"
    elif state == "stopped" and (attempts := job.attempts(folder)) and attempts[-1].error:
        state, values["problem"] = "failed", attempts[-1].error
    if values["group"] is None and (folder.parent / "multirun.yaml").exists():  # a sweep of an older version
        values["group"] = folder.parent.name
    return RunRecord(path=folder, state=state, **values)


def _is_running(folder: Path, now: float) -> bool:
    """Return whether a process works on the run; of runs of older versions, which hold no lock, whether it did lately."""
    return job.is_held(folder) if (folder / job.LOCK).is_file() else now - _last_change(folder) < STOPPED_AFTER


def _last_change(folder: Path) -> float:
    """Return the time of the last write to the run folder or its checkpoints, in seconds since 1970."""
    last = 0.0
    for directory in (folder, folder / "checkpoints"):
        with suppress(OSError):
            last = max([last, *(entry.stat().st_mtime for entry in os.scandir(directory))])
    return last


def _number(cell: str | None) -> float | None:
    try:
        value = float(cell) if cell else None
    except (ValueError, TypeError):
        return None
    return value if value is not None and math.isfinite(value) else None


def _natural(text: str) -> list[tuple[int, str]]:
    """Return a sort key that places run 10 after run 9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)]
