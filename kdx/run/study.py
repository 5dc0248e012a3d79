"""The study of a search in its folder: Optuna's journal, and what the process of a trial reads and writes there."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

log = logging.getLogger("kdx")

NAME, LOG = "kdx", "study.log"
TRIAL, PRUNED = "trial.json", "pruned.json"  # in the folder of a trial: what it is, and at which epoch it was pruned
VARIABLE = "KDX_TRIAL"  # names the folder of the trial for the processes that train it
PrunerName = Literal["median", "hyperband", "none"]
Storage = Any  # of Optuna, which is imported only where it is used: it is an extra


def storage(folder: Path) -> Storage:
    """Return the storage of the study in a folder. A last line that was not written to its end is removed."""
    import optuna
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalStorage

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    file = str(folder / LOG)
    lock = JournalFileOpenLock(file)  # works on NFS; 30 s after its owner was killed, another process takes it
    lock.acquire()
    try:
        _mend(folder / LOG)
    finally:
        lock.release()
    return JournalStorage(JournalFileBackend(file, lock_obj=lock))


def _mend(file: Path) -> None:
    """Cut off what follows the last line end, which Optuna could not read after a further line."""
    if not file.is_file():
        return
    with file.open("rb+") as stream:
        content = stream.read()
        if content and not content.endswith(b"\n"):
            stream.truncate(content.rfind(b"\n") + 1)


def pruner(name: PrunerName, startup: int, warmup: int) -> Any:
    """Return a pruner by its name; `startup` is a number of trials, `warmup` of epochs, which are counted from 1."""
    from optuna import pruners

    if name == "median":
        return pruners.MedianPruner(n_startup_trials=startup, n_warmup_steps=warmup + 1)
    if name == "hyperband":
        return pruners.HyperbandPruner(min_resource=warmup + 1)
    return pruners.NopPruner()


class Reporter:
    """Reports the values of one trial to its study, and asks the pruner for a decision."""

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self.folder, self.about = folder, about
        self.opened: tuple[Any, Any, int] | None = None

    @property
    def metric(self) -> str:
        """The name of the metric that is reported."""
        return str(self.about["metric"])

    def __call__(self, epoch: int, value: float) -> bool:
        """Return whether the trial is pruned. An epoch is reported once, whatever a run that goes on repeats.

        A study that cannot be written to, such as on a full disk, ends no training.
        """
        try:
            return self._report(epoch, value)
        except Exception as error:
            log.warning("Epoch %d was not reported to the study (%s: %s)", epoch, type(error).__name__, error)
            return False

    def _report(self, epoch: int, value: float) -> bool:
        study, storage, number = self.opened = self.opened or self._open()
        trial = storage.get_trial(number)
        if trial.state.is_finished():
            return False
        if epoch not in trial.intermediate_values:
            storage.set_trial_intermediate_value(number, epoch, value)
        return bool(study.pruner.prune(study, storage.get_trial(number)))

    def _open(self) -> tuple[Any, Any, int]:
        import optuna

        opened, about = storage(self.folder.parent), self.about
        rule = pruner(about["pruner"], int(about["startup"]), int(about["warmup"]))
        study = optuna.load_study(study_name=NAME, storage=opened, pruner=rule)
        number = opened.get_trial_id_from_study_id_trial_number(opened.get_study_id_from_name(NAME), int(about["number"]))
        return study, opened, number


def reporter(folder: Path) -> Reporter | None:
    """Return the reporter of the run in a folder; None if this process was not started for a trial there that may be pruned."""
    if os.environ.get(VARIABLE) != str(folder.absolute()):
        return None
    about = json.loads((folder / TRIAL).read_text(encoding="utf-8"))
    return Reporter(folder.absolute(), about) if about["pruner"] != "none" else None
