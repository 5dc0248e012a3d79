"""The trials that a process of kdx-tune trains: each in a process of its own, one at a time or one per free GPU."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from kdx.cli import app
from kdx.cli.child import CONSOLE, FORWARDED, Child, forwarding
from kdx.cli.launchers import GpuLauncher
from kdx.cli.sweep_job import options
from kdx.cli.tuning.search import Search, Trial
from kdx.run import job
from kdx.run.durations import duration
from kdx.run.slots import Slot, take
from kdx.run.study import VARIABLE
from kdx.run.sweep_folder import shown, status_of

SECONDS = 0.2  # between two looks at the processes
STOPPED = {*(-number for number in FORWARDED), *(128 + number for number in FORWARDED)}  # exit status after a signal


@dataclass
class Running:
    """A trial and its process, on GPUs that it inherits."""

    trial: Trial
    child: Child
    slots: Sequence[Slot] = ()


@dataclass
class Worker:
    """Trains trials of a search until there are none left, or until a signal.

    Args:
        search: The search.
        gpus: The launcher of GPUs, with which a trial starts wherever one is free; None: one trial at a time.
    """

    search: Search
    gpus: GpuLauncher | None = None
    running: list[Running] = field(default_factory=list)
    children: list[Child] = field(default_factory=list)
    took: list[float] = field(default_factory=list)

    def work(self) -> None:
        """Train trials. KeyboardInterrupt or SystemExit after a signal, when the trials have written their checkpoints."""
        names = self.gpus.names() if self.gpus is not None else []
        look = True  # whether a trial may be started now
        try:
            with forwarding(self.children):
                while look or self.running:
                    look = look and self._start(names)
                    for one in [one for one in self.running if one.child.ended()]:
                        self._end(one)
                        look = True
                    time.sleep(SECONDS)
        finally:
            for one in self.running:  # a signal came while they ended
                if status_of(one.trial.folder).state in ("finished", "pruned"):
                    self.search.tell(one.trial)

    def _start(self, names: Sequence[str]) -> bool:
        """Start as many trials as there is room for. Return whether more may be started before one of them ends."""
        while self.gpus is not None or not self.running:
            slots = [] if self.gpus is None else take(names, self.gpus.gpus_per_job, self.gpus.jobs_per_gpu)
            if self.gpus is not None and not slots:
                return True
            trial = self.search.next()
            if trial is None:
                for slot in slots:
                    slot.leave()
                return False
            self._train(trial, slots)
        return False

    def _train(self, trial: Trial, slots: Sequence[Slot]) -> None:
        environment = {VARIABLE: str(trial.folder)}
        if slots:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(slot.name for slot in slots)
        locks = [trial.claim.lock, *(slot.lock for slot in slots)]
        again = "goes on" if job.attempts(trial.folder) else "started"
        child = Child([*options(), *trial.words], trial.folder, environment, locks)
        self.children.append(child)
        self.running.append(Running(trial, child, slots))
        where = f" on GPU {environment['CUDA_VISIBLE_DEVICES']}" if slots else ""
        values = " ".join(shown(self._values(trial)))
        say(f"trial {trial.number} {again}{where}: {values}; its console: {trial.folder / CONSOLE}")

    def _values(self, trial: Trial) -> Sequence[str]:
        return trial.words[len(self.search.space.fixed) :]

    def _end(self, one: Running) -> None:
        """Tell the study how a trial ended; try it again if it was killed."""
        self.running.remove(one)
        self.children.remove(one.child)
        trial, status = one.trial, one.child.process.returncode
        state = status_of(trial.folder).state
        if state not in ("finished", "pruned") and status in STOPPED:
            for slot in (trial.claim, *one.slots):
                slot.leave()
            say(f"trial {trial.number} was stopped by a signal; the same command goes on with it")
            if not self.search.canceled:
                self._stop_others()
            return
        killed = status < 0 and state not in ("finished", "pruned")
        if killed and len(job.failures(trial.folder)) < self.search.plan.max_attempts:
            say(f"trial {trial.number} was killed ({signal.Signals(-status).name}), and is tried again")
            self._train(trial, one.slots)
            return
        told = self.search.tell(trial, f"its process ended with exit status {status}")
        for slot in (trial.claim, *one.slots):
            slot.leave()
        self.took.append(one.child.seconds)
        self._say(trial, told)

    def _stop_others(self) -> None:
        """End as after a signal to this process: what stopped one trial is meant for all."""
        for child in self.children:
            child.process.terminate()
        for child in self.children:
            child.process.wait()
        raise SystemExit(app.TERMINATED)

    def _say(self, trial: Trial, told: str) -> None:
        trials, status = self.search.trials, status_of(trial.folder)
        ended = [one for one in trials if one.state.is_finished()]
        own = trials[trial.number]
        if told == "complete":
            result = "finished: " + ", ".join(
                f"{name} {value:.4g}" for name, value in zip(self.search.objectives, own.values, strict=True)
            )
        elif told == "pruned":
            result = f"pruned after epoch {status.epoch}" + ("" if status.score is None else f": {status.score:.4g}")
        else:
            result = f"failed: {own.user_attrs.get('reason', '')}"
        say(f"trial {trial.number} {result}; {self._best()}{len(ended)} of {self.search.settings.n_trials} trials ended, "
            f"about {duration(self._left(trials, len(ended)))} left")  # fmt: skip

    def _best(self) -> str:
        best = self.search.study.best_trials
        if not best:
            return ""
        if len(self.search.objectives) > 1:
            return f"{len(best)} on the Pareto front; "
        return f"best: trial {best[0].number}, {best[0].values[0]:.4g}; "

    def _left(self, trials: Sequence[object], ended: int) -> float:
        """Return the seconds until the end, if each trial takes as long as those of this process, and as many run as now."""
        left = max(self.search.settings.n_trials - ended, 0)
        at_a_time = len(trials) - ended + 1  # with the next one of this process
        return sum(self.took) / len(self.took) * left / min(at_a_time, max(left, 1))


def say(text: str) -> None:
    """Print a line of progress."""
    print(f"kdx: {text}", file=sys.stderr, flush=True)
