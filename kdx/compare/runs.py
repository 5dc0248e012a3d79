"""The runs under some folders: what they were asked to do, how far they came and what they found."""

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

State = Literal["finished", "going", "stopped", "damaged"]
Curves = dict[str, list[tuple[int, int, float]]]  # name -> (epoch, step, value)

PATIENCE = 600.0  # seconds without a sign of life after which a run has stopped
FEWEST = 50  # runs under a root from which on an index is worth making
SKIPPED = ("teachers", "wandb")  # teachers are runs too, but not the ones that are asked for
RUN_FILES = ("run.json", "config.yaml")  # either makes a folder a run's


@dataclass(frozen=True)
class RunRecord:
    """One run folder. `problem` says what is wrong with it and what to do; it is empty if nothing is.

    Metrics by flat name; `last` are those of the last weights on val, where other weights were selected. `higher_is_better`
    says it of each quantity ("accuracy"); None where neither is; empty for a run of an older kdx.
    """

    path: Path
    state: State
    problem: str
    config: Mapping[str, Any]
    metrics: Mapping[str, float]
    last: Mapping[str, float]
    selection: Mapping[str, Any]
    data: Mapping[str, Any]
    provenance: Mapping[str, Any]
    cost: Mapping[str, Any]
    higher_is_better: Mapping[str, bool | None]
    started: str | None
    group: str | None

    @property
    def name(self) -> str:
        """As in the config; the folder's where that is lost."""
        return str(self.config.get("name", self.path.name))

    @property
    def seed(self) -> int | None:
        """None only where the config is lost."""
        seed = self.config.get("seed")
        return seed if isinstance(seed, int) else None

    @property
    def baseline(self) -> str | None:
        """Which equal-budget baseline the run is, if it is one."""
        return self.config.get("baseline")

    @property
    def added_metrics(self) -> list[str]:
        """Names of the metrics that the run measures beside the built-in ones."""
        metrics = self.config.get("metrics")
        return list(metrics) if isinstance(metrics, dict) else []

    @cached_property
    def flat_config(self) -> dict[str, Any]:
        """Dotted path -> value; a list, an empty mapping and None are values."""
        return dict(_flat(self.config))


def find_runs(roots: Sequence[str | Path]) -> list[RunRecord]:
    """All runs under the roots, sorted by path, each once. A root is a run folder, a sweep, any tree of them, or a glob.

    Teachers (`outputs/teachers`) only if they are given themselves. ValueError if a root does not exist; a damaged run is
    no error, and that there are no runs is for the caller to say.
    """
    now = time.time()
    found: dict[str, RunRecord] = {}
    for root in list(_expand(roots)):
        folders = {real: folder for real, folder in _run_folders(root) if real not in found}
        beside = not _is_run(root) and (len(folders) >= FEWEST or (root / FILE).exists())
        with _uncollected(), Index(root) if beside else nullcontext() as index:
            for real, folder in folders.items():
                found[real] = _load(folder, os.path.relpath(folder, root), index, now)
            if index is not None:
                index.forget({os.path.relpath(folder, root) for folder in folders.values()})
    return sorted(found.values(), key=lambda run: _natural(str(run.path)))


def read_curves(run: RunRecord) -> Curves:
    """The curves in `metrics.csv` by flat name; empty without the file. A last line that is still being written is left out."""
    try:
        text = (run.path / "metrics.csv").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    lines = text.splitlines()
    if lines and not text.endswith("\n"):
        lines.pop()
    curves: Curves = {}
    for row in csv.DictReader(lines):
        step, epoch = _number(row.get("step")), _number(row.get("epoch"))
        if step is None:
            continue
        for name, cell in row.items():
            value = _number(cell) if name not in ("step", "epoch", None) else None  # None: cells beyond the header's
            if value is not None:
                curves.setdefault(name, []).append((int(epoch or 0), int(step), value))
    return curves


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without garbage collection, which finds no cycles in plain data and takes a third of the time of reading it."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _expand(roots: Sequence[str | Path]) -> Iterator[Path]:
    for root in roots:
        path = Path(root).expanduser()
        if path.is_dir():
            yield path
        elif path.exists():
            raise ValueError(f"{root} is a file: give the folder of a run, or a folder with runs in it")
        elif glob.has_magic(str(path)):
            matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True)) if os.path.isdir(match)]
            matches = [match for match in matches if match.name not in SKIPPED or match.name == path.name]
            if not matches:
                raise ValueError(f"no folder matches {root}: give a folder with runs in it, such as outputs")
            yield from matches
        else:
            raise ValueError(f"{root} does not exist: give a folder with runs in it, such as outputs")


def _run_folders(root: Path) -> Iterator[tuple[str, Path]]:
    """(real path, path as given) of every run folder; it looks into none of them, and follows a link only once."""
    seen: set[str] = set()
    waiting = [(os.path.realpath(root), str(root))]
    while waiting:
        real, folder = waiting.pop()
        if real in seen:
            continue
        seen.add(real)
        try:
            entries = list(os.scandir(folder))
        except OSError:
            continue
        if any(entry.name in RUN_FILES for entry in entries):
            yield real, Path(folder)
            continue
        for entry in entries:
            if entry.is_dir() and entry.name not in SKIPPED and not entry.name.startswith("."):
                below = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(real, entry.name)
                waiting.append((below, entry.path))


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
    state: State = "finished" if finished else "going" if now - _last_change(folder) < PATIENCE else "stopped"
    if values["problem"]:
        state = "damaged"
    if values["group"] is None and (folder.parent / "multirun.yaml").exists():  # a sweep of an older kdx
        values["group"] = folder.parent.name
    return RunRecord(path=folder, state=state, **values)


def _last_change(folder: Path) -> float:
    """When a file of the run, or of its checkpoints, was last written; seconds since 1970."""
    last = 0.0
    for place in (folder, folder / "checkpoints"):
        with suppress(OSError):
            last = max([last, *(entry.stat().st_mtime for entry in os.scandir(place))])
    return last


def _flat(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _number(cell: str | None) -> float | None:
    try:
        value = float(cell) if cell else None
    except (ValueError, TypeError):
        return None
    return value if value is not None and math.isfinite(value) else None


def _natural(text: str) -> list[tuple[int, str]]:
    """So that run 10 comes after run 9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)]
