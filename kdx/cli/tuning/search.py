"""The study of a search: begun or continued in its folder, its trials shared by processes, each claimed by one of them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from kdx.cli.tuning.settings import Mode, Settings
from kdx.cli.tuning.space import Space
from kdx.config.errors import ConfigError
from kdx.config.run_names import what_it_computes
from kdx.run import job
from kdx.run.files import replacing
from kdx.run.masking import mask
from kdx.run.slots import Slot, take
from kdx.run.study import NAME, TRIAL, pruner, storage
from kdx.run.sweep_folder import CANCELED, Plan, read_plan, status_of, write_plan

CLAIMS, LOCK = ".claims", ".study.lock"  # in the folder of the study


@dataclass(frozen=True)
class Trial:
    """A trial that this process has claimed; its claim ends with this process and the process that trains it."""

    number: int
    folder: Path
    words: tuple[str, ...]
    claim: Slot


class Search:
    """A study in its folder.

    Args:
        folder: The folder, which holds the study or is to hold it.
        space: What is searched.
        objectives: The metrics that are optimized, with their directions.
        settings: The settings of the search.
        plan: The plan of the sweep, without jobs.
        name: The part of the trials' folders after their number.
        seed: The seed of the sampler.

    Raises:
        ConfigError: If the folder holds another study, or a sweep.
    """

    def __init__(
        self, folder: Path, space: Space, objectives: Mapping[str, Mode], settings: Settings, plan: Plan, name: str, seed: int
    ) -> None:
        self.folder, self.space, self.objectives, self.settings = folder.absolute(), space, objectives, settings
        self.plan, self.name, self.seed = plan, name, seed
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._locked():
            self.study = self._begun()

    def _locked(self) -> FileLock:
        return FileLock(self.folder / LOCK)

    def _begun(self) -> Any:
        """Return the study, created if there is none, after writing its plan."""
        import optuna

        opened = storage(self.folder)
        study = optuna.create_study(
            study_name=NAME, storage=opened, load_if_exists=True,
            directions=["maximize" if mode == "max" else "minimize" for mode in self.objectives.values()],
            pruner=pruner("none", 0, 0),  # the trials decide on it themselves, in their own processes
        )  # fmt: skip
        own = {
            "objectives": dict(self.objectives),
            "words": [mask(word) for word in what_it_computes(self.space.fixed)],
            "space": {key: dict(values) for key, values in self.space.swept.items()},
        }
        there = study.user_attrs
        for key, value in own.items():
            if key in there and json.loads(json.dumps(value)) != there[key]:
                raise ConfigError(
                    f"{self.folder} holds another study; use sweep=new, or sweep=OTHER_NAME\n"
                    f"  {key}: {_shown(there[key])} -> {_shown(value)}"
                )
            if key not in there:
                study.set_user_attr(key, value)
        try:
            jobs = read_plan(self.folder).jobs
        except ValueError:
            jobs = {}
        if jobs and not there:
            raise ConfigError(f"{self.folder} holds a sweep of kdx-train; use sweep=new, or sweep=OTHER_NAME")
        write_plan(self.folder, Plan(self.plan.command, self.plan.folder, jobs, self.plan.max_attempts))
        return study

    @property
    def trials(self) -> Sequence[Any]:
        """All trials of the study so far, of all processes."""
        return self.study.get_trials(deepcopy=False)

    @property
    def canceled(self) -> bool:
        """Whether kdx-sweep has canceled the search."""
        return (self.folder / CANCELED).exists()

    def next(self) -> Trial | None:
        """Return a trial to train: first one that was cut off, then a new one. None if there is none now."""
        import optuna

        with self._locked():
            for frozen in self.trials:
                if frozen.state == optuna.trial.TrialState.RUNNING and (trial := self._taken_up(frozen)) is not None:
                    return trial
            if self.canceled or len(self.trials) >= self.settings.n_trials:
                return None
            self.study.sampler = self._sampler(len(self.trials))
            asked = self.study.ask(self.space.distributions())
            trial = self._claimed(asked.number, asked.params)
            assert trial is not None  # its number is new
            return trial

    def _sampler(self, number: int) -> Any:
        """Return the sampler of a trial. Its seed depends on the trial, not on the process, so that no two draw the same."""
        from optuna import samplers

        seed = (self.seed * 1_000_003 + number) % 2**32
        if self.settings.sampler == "tpe":
            return samplers.TPESampler(seed=seed)
        if self.settings.sampler == "gp":
            return samplers.GPSampler(seed=seed)
        return samplers.NSGAIISampler(seed=seed) if self.settings.sampler == "nsgaii" else samplers.RandomSampler(seed=seed)

    def _taken_up(self, frozen: Any) -> Trial | None:
        """Return a trial that no process works on; None if one does, or if its run had ended already, which is then told."""
        trial = self._claimed(frozen.number, frozen.params)
        if trial is None:
            return None
        state = status_of(trial.folder).state
        exhausted = len(job.failures(trial.folder)) >= self.plan.max_attempts
        if state in ("finished", "pruned") or (state == "failed" and exhausted):
            self.tell(trial)
        elif state != "running":  # kdx-train, which was started there by hand, holds the folder
            return trial
        trial.claim.leave()
        return None

    def _claimed(self, number: int, params: Mapping[str, Any]) -> Trial | None:
        """Return the trial after writing what it is, and its place in the plan; None if another process has claimed it."""
        slots = take([str(number)], folder=self.folder / CLAIMS)
        if not slots:
            return None
        folder, words = self.folder / f"{number}-{self.name}", self.space.words(params)
        folder.mkdir(exist_ok=True)
        about = {"number": number, "params": dict(params), "metric": next(iter(self.objectives)), **self._pruner()}
        with replacing(folder / TRIAL) as draft:
            draft.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        plan = read_plan(self.folder)
        if folder.name not in plan.jobs:
            canceled = self.canceled
            write_plan(self.folder, Plan(plan.command, plan.folder, {**plan.jobs, folder.name: words}, plan.max_attempts))
            if canceled:  # of which a new plan knows nothing
                (self.folder / CANCELED).touch()
        return Trial(number, folder, words, slots[0])

    def _pruner(self) -> dict[str, Any]:
        """Return which pruner the process of a trial asks; none for several objectives, or a cost, which has no curve."""
        curve = len(self.objectives) == 1 and next(iter(self.objectives)).startswith("val/")
        own = self.settings
        return {"pruner": own.pruner if curve else "none", "startup": own.pruner_startup, "warmup": own.pruner_warmup}

    def tell(self, trial: Trial, reason: str | None = None) -> str:
        """Tell the study how the run of a trial ended, unless it did already. Return "complete", "pruned" or "fail".

        Args:
            trial: A claimed trial.
            reason: Why it failed, if its folder does not know.
        """
        from optuna.trial import TrialState

        status = status_of(trial.folder)
        if status.state == "pruned":
            return self._told(trial, TrialState.PRUNED)
        if status.state != "finished":
            return self._told(trial, TrialState.FAIL, reason=status.error or reason or "it ended without a result")
        metrics = json.loads((trial.folder / "metrics.json").read_text(encoding="utf-8"))["metrics"]
        values = [metrics.get(name) for name in self.objectives]
        bad = [name for name, value in zip(self.objectives, values, strict=True) if value is None or not math.isfinite(value)]
        if bad:
            return self._told(trial, TrialState.FAIL, reason=f"{', '.join(bad)}: no finite number in metrics.json")
        return self._told(trial, TrialState.COMPLETE, values)

    def _told(self, trial: Trial, state: Any, values: Sequence[float] | None = None, reason: str | None = None) -> str:
        opened = storage(self.folder)
        number = opened.get_trial_id_from_study_id_trial_number(opened.get_study_id_from_name(NAME), trial.number)
        if not opened.get_trial(number).state.is_finished():
            if reason is not None:
                opened.set_trial_user_attr(number, "reason", mask(reason))
            self.study.tell(trial.number, values, state=state, skip_if_finished=True)
        return str(state.name).lower()


def _shown(value: Any) -> str:
    return " ".join(value) if isinstance(value, list) else json.dumps(value)
