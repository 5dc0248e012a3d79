"""A run is a state of its folder: it begins in an empty one, goes on in its own, and is not repeated when it is finished."""

from __future__ import annotations

import itertools
import logging
import shlex
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

from kdx.config.errors import ConfigError
from kdx.config.influence import difference
from kdx.config.schema import AUTO, RunConfig, to_plain
from kdx.experiment.build import Parts
from kdx.experiment.resume import newest_good_checkpoint
from kdx.experiment.teacher import NAME as TEACHER
from kdx.run import job
from kdx.run.folder import RunFolder
from kdx.run.masking import masked
from kdx.run.provenance import VERSION
from kdx.training.ranks import rank

log = logging.getLogger("kdx")

ELSEWHERE = "use another folder (hydra.run.dir=FOLDER, sweep=new), or on_conflict=fork"


@contextmanager
def begun(parts: Parts, folder: RunFolder) -> Iterator[tuple[RunFolder, bool]]:
    """Hold the folder in which a run takes place; yield it, and whether the run is finished there.

    `parts.config.ckpt_path` then names the checkpoint from which it goes on, or is None. All ranks decide alike, because the
    files that they look at change only when all take part in the training.

    Raises:
        ConfigError: If the folder holds another run, or if another process works in it.
    """
    with ExitStack() as stack:
        folder = _settled(parts, folder, stack)
        finished = job.state(folder.path) == "finished" and parts.config.ckpt_path == AUTO
        if parts.config.ckpt_path == AUTO:
            parts.config = replace(parts.config, ckpt_path=None if finished else _checkpoint(folder))
        if rank() == 0 and not finished:
            stack.enter_context(job.attempt(folder.path))
        try:
            yield folder, finished
        except (KeyboardInterrupt, SystemExit):
            if rank() == 0 and parts.config.name != TEACHER:
                where = shlex.quote(str(folder.path))
                log.warning("To go on: kdx-train --config-dir=%s --config-name=rerun hydra.run.dir=%s", where, where)
            raise


def _settled(parts: Parts, folder: RunFolder, stack: ExitStack) -> RunFolder:
    """Return the folder in which the run may take place, held in `stack`: this one or, with on_conflict=fork, FOLDER-2, ..."""
    for number in itertools.count(1):
        place = folder if number == 1 else replace(folder, path=folder.path.with_name(f"{folder.path.name}-{number}"))
        with ExitStack() as held:
            try:
                held.enter_context(job.held(place.path) if rank() == 0 else nullcontext())
                conflict = conflict_of(parts.config, parts.identity, place)
            except job.HeldError as error:
                raise ConfigError(f"{error}: wait until it has ended, or {ELSEWHERE}") from None
            if conflict is None:
                stack.push(held.pop_all())
                return place
        if parts.config.on_conflict == "refuse":
            raise ConfigError(f"{place.path} holds {conflict}; {ELSEWHERE}")
        log.info("%s holds %s; on_conflict=fork takes another folder", place.path, conflict.splitlines()[0].rstrip(":"))
    raise AssertionError("endless")


def conflict_of(config: RunConfig, identity: str, folder: RunFolder) -> str | None:
    """Return what the folder holds if this run must not take place there, with the difference in three lines; else None."""
    state, given = job.state(folder.path), config.ckpt_path
    if state == "empty" or (given not in (None, AUTO) and folder.checkpoints.resolve() in Path(given).resolve().parents):
        return None
    if given != AUTO:
        return f"a {state} run, with which ckpt_path=auto goes on, and not ckpt_path={'null' if given is None else given}"
    there = folder.read("run.json")
    if there.get("identity") != identity:
        lines = difference(there.get("config", {}), masked(to_plain(config))) or ["the same config, but other code of your own"]
        return "another run:" + "".join(f"\n  {line}" for line in lines) + "\n "
    begun_by = there.get("provenance", {}).get("versions", {}).get("kdx")
    if state == "begun" and begun_by != VERSION:
        return f"a run that kdx {begun_by} began, and this is kdx {VERSION}: go on with that version"
    return None


def refuse_other_data(config: RunConfig, folder: RunFolder, data: str) -> None:
    """Raise ConfigError if the run in the folder began with other images or labels than `data`, their fingerprint.

    Files count by path and time, so after a move, such as to the disk of another machine, nothing can be said.
    """
    there = folder.read("run.json") if job.state(folder.path) != "empty" else {}
    moved = there.get("config", {}).get("data", {}).get("root") != config.data.root
    if not moved and there.get("data") not in (None, data):
        raise ConfigError(f"{folder.path} holds a run on other data: images or labels have changed since it began; {ELSEWHERE}")


def _checkpoint(folder: RunFolder) -> str | None:
    """Return the newest good checkpoint of a begun run; None if it starts from the beginning."""
    path = newest_good_checkpoint(folder.checkpoints)
    if path is not None and rank() == 0:
        log.info("Going on from %s", path)
    return None if path is None else str(path)
