"""The end of a search: the best trial as a command, `study.json`, and the comparison and page that a sweep has."""

from __future__ import annotations

import json
import math
import shlex
import sys
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from kdx.cli.sweep import compare
from kdx.cli.tuning.search import Search
from kdx.cli.tuning.worker import say
from kdx.run.files import replacing
from kdx.run.masking import masked
from kdx.run.sweep_folder import JobStatus, shown, statuses

FILE = "study.json"
LISTED = 5  # trials that are named at the end, of those on the Pareto front and of those that failed
LEAST = 4  # finished trials from which on importances are computed


def conclude(search: Search) -> bool:
    """Print the best trials, and write `study.json`, the comparison and the page. Return whether no trial has failed."""
    study, trials = search.study, search.trials
    best = sorted(study.best_trials, key=lambda trial: trial.number)
    write(search, best)
    if best:
        compare(search.folder, None)
    by_state = Counter(_state(trial) for trial in trials)
    found = {status.folder.name: status for status in statuses(search.folder)}
    say(f"{search.folder}: {', '.join(f'{number} {state}' for state, number in by_state.items()) or 'no trials'}")
    for trial in [trial for trial in trials if _state(trial) == "failed"][:LISTED]:
        say(f"trial {trial.number} ({_point(search, trial)}) failed: {trial.user_attrs.get('reason', '')}")
    for trial in best[:LISTED]:
        values = ", ".join(f"{name} {value:.4g}" for name, value in zip(search.objectives, trial.values, strict=True))
        print(f"{'Best' if len(search.objectives) == 1 else 'On the Pareto front'}: trial {trial.number}, {values}")
        print(f"  {command(search, trial)}")
    if len(best) > LISTED:
        print(f"{len(best) - LISTED} more trials on the Pareto front: {search.folder / FILE}")
    if best and not any(word.startswith("seed=") for word in search.space.words(best[0].params)):
        print("The best of many trials is better than it will be with other seeds; measure it with -m 'seed=range(5)'")
    unfinished = len([trial for trial in trials if not trial.state.is_finished()])
    if len(trials) < search.settings.n_trials or unfinished:
        say(f"{_running(found.values())}the same command goes on; kdx-sweep status {search.folder} shows how far it is")
    return by_state["failed"] == 0


def command(search: Search, trial: Any) -> str:
    """Return the command that trains a trial's run alone."""
    return shlex.join(["kdx-train", *search.space.words(trial.params)])


def write(search: Search, best: Sequence[Any]) -> None:
    """Write `study.json`: objectives, trials in their order, the best of them and importances, as plain data."""
    content = {
        "objectives": dict(search.objectives),
        "sampler": search.settings.sampler,
        "trials": [_record(trial) for trial in search.trials],
        "best": [trial.number for trial in best],
        "importances": importances(search),
        "command": command(search, best[0]) if best else None,
    }
    with replacing(search.folder / FILE) as draft:
        draft.write_text(json.dumps(masked(content), indent=1) + "\n", encoding="utf-8")


def importances(search: Search) -> dict[str, dict[str, float]]:
    """Return the share of each key in the variance of each objective, by fANOVA; empty for few trials."""
    import optuna
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    done = [trial for trial in search.trials if trial.state == optuna.trial.TrialState.COMPLETE]
    found: dict[str, dict[str, float]] = {}
    for place, name in enumerate(search.objectives):
        values = {trial.values[place] for trial in done}
        if len(done) < LEAST or len(values) < 2 or len(search.space.swept) < 2:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            shares = get_param_importances(
                search.study,
                evaluator=FanovaImportanceEvaluator(seed=0),
                target=lambda trial, place=place: float(trial.values[place]),  # type: ignore[misc]  # mypy and the default
            )
        found[name] = {key: float(share) for key, share in shares.items() if math.isfinite(share)}
    return found


def _record(trial: Any) -> Mapping[str, Any]:
    took = trial.duration.total_seconds() if trial.duration is not None else None
    return {
        "number": trial.number,
        "state": _state(trial),
        "params": trial.params,
        "values": None if trial.state.name == "PRUNED" else trial.values,
        "last": [trial.last_step, trial.intermediate_values[trial.last_step]] if trial.last_step is not None else None,
        "seconds": took,
        "reason": trial.user_attrs.get("reason"),
    }


def _state(trial: Any) -> str:
    return {"COMPLETE": "finished", "FAIL": "failed"}.get(trial.state.name, str(trial.state.name).lower())


def _point(search: Search, trial: Any) -> str:
    return " ".join(shown(search.space.words(trial.params)[len(search.space.fixed) :]))


def _running(found: Any) -> str:
    states = Counter(status.state for status in found if isinstance(status, JobStatus))
    return f"{states['running']} of its trials are running in other processes; " if states["running"] else ""


def interrupted() -> None:
    """Say that the end of an interrupted search is that of the trials so far."""
    print("kdx: interrupted; the results so far:", file=sys.stderr, flush=True)
