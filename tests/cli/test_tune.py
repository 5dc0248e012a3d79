"""kdx-tune: what is searched, who trains which trial, and what is left when processes are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from kdx.cli.launchers import GpuLauncher
from kdx.cli.tuning import worker
from kdx.cli.tuning.search import Search
from kdx.cli.tuning.settings import Settings
from kdx.cli.tuning.space import Space, space
from kdx.config.errors import ConfigError
from kdx.run import job
from kdx.run.study import NAME, Reporter, storage
from kdx.run.sweep_folder import CANCELED, Plan, read_plan, statuses, write_plan

Command = Callable[..., tuple[int, str, str]]
FAST = ("experiment=supervised_digits", "logger=none", "trainer=cpu")


def searched(*words: str) -> Space:
    return space(OverridesParser.create().parse_overrides(list(words)))


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("a=interval(1,20)", FloatDistribution(1, 20)),
        ("a=tag(log,interval(1e-4,1e-2))", FloatDistribution(1e-4, 1e-2, log=True)),
        ("a=int(interval(4,16))", IntDistribution(4, 16)),
        ("a=tag(log,int(interval(1,64)))", IntDistribution(1, 64, log=True)),
        ("a=range(10,60)", IntDistribution(10, 59)),  # without its end, as in a sweep
        ("a=range(8,65,8)", IntDistribution(8, 64, step=8)),
        ("a=range(0,1,0.25)", FloatDistribution(0, 0.75, step=0.25)),
        ("a=1,2.5,null", CategoricalDistribution(["1", "2.5", "null"])),
        ("a=choice([kl,ce],[kd])", CategoricalDistribution(["[kl,ce]", "[kd]"])),
        ("network@student=b,c,b", CategoricalDistribution(["b", "c"])),
        ("+a=1,2", CategoricalDistribution(["1", "2"])),
    ],
)
def test_values_in_hydras_grammar_are_distributions(word: str, expected: object) -> None:
    assert searched(word).distributions() == {word.partition("=")[0]: expected}


def test_a_point_is_words_of_kdx_train_and_a_later_word_of_a_key_counts() -> None:
    found = searched("seed=1", "a=interval(1,2)", "b=x,y", "a=range(1,5)", "c=3", "b=z", "network@student=p,q", "c=4")
    assert set(found.words({"a": 0.123456789, "network@student": "q"})) == {
        "seed=1", "b=z", "c=4", "a=0.12346", "network@student=q"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Nothing to search"),
        (["seed=3"], "Nothing to search"),
        (["optimizer.lr=tag(log,interval(0,1))"], "needs values above 0"),
        (["optimizer.lr=interval(1,0.1)"], "LOW < HIGH"),
        (["optimizer.rl=interval(0.1,1)"], "Did you mean"),
        (["temperature.value=interval(-1,4)"], "greater than 0"),
        (["seed=1,2", "n_trials=0"], "n_trials=0"),
        (["seed=1,2", "n_trail=3"], "n_trail"),
        (["seed=1,2", "pruner=medium"], "'median', 'hyperband' or 'none'"),
        (["seed=1,2", "objectives={test/student/accuracy:max}"], "use val/student/accuracy"),
        (["seed=1,2", "objectives={val/student/acuracy:max}"], "Did you mean 'val/student/accuracy'?"),
        (["seed=1,2", "objectives={val/student/ece:max}"], "use val/student/ece:min"),
        (["seed=1,2", "baselines=[scratch]"], "trains no baselines"),
        (["seed=1,2", "launcher=joblib"], "start the same command several times"),
    ],
)
def test_what_cannot_be_searched_is_refused(command: Command, tmp_path: Path, words: list[str], message: str) -> None:
    code, _, err = command("tune", *words)
    assert code == 2 and message in err, err
    assert not list(tmp_path.rglob("run.json")) and not list(tmp_path.rglob("study.log"))


def test_without_optuna_the_extra_is_named(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, err = command("tune", "temperature.value=interval(1,20)")
    assert code == 2 and "pip install kdx[tune]" in err


@pytest.mark.parametrize(("option", "number"), [("digits_optuna", 3), ("digits_pareto", 3)])
def test_options_of_hparams_search_give_values_and_settings(command: Command, option: str, number: int) -> None:
    code, out, err = command("tune", f"hparams_search={option}", "temperature.value=interval(2,8)", "--cfg", "job")
    assert code == 0, err
    comments = [line for line in out.splitlines() if line.startswith("# ")]
    assert len(comments) == number and comments[0] == "# temperature.value: 2.0 to 8.0" and "\nname: cqkd_digits" in out
    code, _, err = command("tune", f"hparams_search={option}", "n_trials=0", "--cfg", "job")
    assert code == 2 and "n_trials=0" in err  # a word of the command replaces that of the option
    gpus = ("launcher=gpus", "hydra.launcher.gpus=[0,1]", "--cfg", "job")
    assert command("tune", f"hparams_search={option}", *gpus)[0] == 0
    code, _, err = command("train", "-m", f"hparams_search={option}")
    assert code == 2 and "kdx-tune" in err


def begun(folder: Path, **changes: object) -> Search:
    """A search with a temperature in the folder."""
    values = {"n_trials": 6, "sampler": "tpe", "pruner": "median", "pruner_startup": 1, "pruner_warmup": 0, **changes}
    found, fixed = searched("temperature.value=interval(1,20)", "x=a,b", "name=run"), {"val/student/accuracy": "max"}
    return Search(folder, found, fixed, Settings(**values), Plan(("kdx-tune",), str(folder), {}, 3), "run", seed=0)


def finish(folder: Path, value: float) -> None:
    (folder / "metrics.json").write_text(json.dumps({"metrics": {"val/student/accuracy": value, "test/student/accuracy": 1}}))


def test_trials_are_claimed_taken_up_and_counted_over_all_processes(tmp_path: Path) -> None:
    one, two = begun(tmp_path), begun(tmp_path)
    first, second = one.next(), two.next()
    assert (first.number, second.number) == (0, 1) and first.words != second.words
    assert list(read_plan(tmp_path).jobs) == ["0-run", "1-run"] and read_plan(tmp_path).jobs["1-run"] == second.words
    first.claim.leave()  # as if its process had been killed
    job.fail(first.folder, ValueError("killed"))
    again = two.next()
    assert (again.number, again.folder, again.words) == (0, first.folder, first.words)
    with job.held(first.folder), job.attempt(first.folder):
        finish(first.folder, 0.5)
    again.claim.leave()  # killed again, after the run had ended
    third = one.next()
    assert third.number == 2 and one.trials[0].values == [0.5]
    finish(second.folder, 0.75)
    assert two.tell(second) == "complete" and two.trials[1].values == [0.75]
    (third.folder / "pruned.json").write_text('{"epoch": 1, "value": 0.1}')
    assert one.tell(third) == "pruned" and one.tell(third) == "pruned"
    assert [status.state for status in statuses(tmp_path)] == ["finished", "finished", "pruned"]
    assert {one.next().number, two.next().number, one.next().number} == {3, 4, 5} and two.next() is None
    more = begun(tmp_path, n_trials=7)
    assert more.next().number == 6


def test_two_processes_draw_what_one_draws(tmp_path: Path) -> None:
    drawn = []
    for name, number in (("one", 1), ("two", 2)):
        searches = [begun(tmp_path / name, sampler="random") for _ in range(number)]
        trials = [searches[i % number].next() for i in range(4)]
        drawn.append([trial.words for trial in trials])
    assert drawn[0] == drawn[1] and len(set(drawn[0])) == 4


def test_another_study_or_a_sweep_in_the_folder_is_refused(tmp_path: Path) -> None:
    begun(tmp_path / "study")
    other = searched("temperature.value=interval(1,30)", "x=a,b", "name=run")
    arguments = Settings(n_trials=1, sampler="tpe", pruner="none", pruner_startup=1, pruner_warmup=0)
    plan = Plan(("kdx-tune",), str(tmp_path), {}, 3)
    with pytest.raises(ConfigError, match="holds another study; use sweep=new"):
        Search(tmp_path / "study", other, {"val/student/accuracy": "max"}, arguments, plan, "run", 0)
    same = searched("temperature.value=interval(1,20)", "x=a,b", "name=run")
    with pytest.raises(ConfigError, match="holds another study"):
        Search(tmp_path / "study", same, {"val/student/nll": "min"}, arguments, plan, "run", 0)
    write_plan(tmp_path / "sweep", Plan(("kdx-train",), "", {"0-run": ()}, 3))
    with pytest.raises(ConfigError, match="holds a sweep"):
        begun(tmp_path / "sweep")


def test_a_canceled_search_starts_no_trials(tmp_path: Path) -> None:
    one = begun(tmp_path)
    (tmp_path / CANCELED).touch()
    assert one.next() is None
    assert begun(tmp_path).next() is not None  # the command was given again


def test_a_log_with_half_a_line_is_read(tmp_path: Path) -> None:
    begun(tmp_path).next()
    with (tmp_path / "study.log").open("ab") as log:
        log.write(b'{"op_code": 5, "work')
    again = begun(tmp_path)
    assert again.next().number == 1 and len(again.trials) == 2


def test_an_epoch_is_reported_once_and_the_pruner_decides(tmp_path: Path) -> None:
    one = begun(tmp_path, pruner_warmup=1)
    for value in (0.8, 0.9):
        curve = {1: value, 2: value}
        one.study.add_trial(create_trial(state=TrialState.COMPLETE, value=value, intermediate_values=curve))
    trial = one.next()
    about = json.loads((trial.folder / "trial.json").read_text())
    assert not Reporter(trial.folder, about)(1, 0.2)
    report = Reporter(trial.folder, about)
    assert not report(1, 0.1) and report(2, 0.1)  # epoch 1 is told again, as after a kill
    assert one.trials[trial.number].intermediate_values == {1: 0.2, 2: 0.1}
    (tmp_path / "study.log").write_text("no journal\n")
    assert not Reporter(trial.folder, about)(3, 0.1)  # a study that cannot be read ends no training


class FakeChild:
    """A process of a trial that ends at once, as the first of `ends` says: a value, an error, or a signal."""

    ends: list[object]

    def __init__(self, words: object, folder: Path, environment: dict[str, str], inherits: object) -> None:
        assert environment["KDX_TRIAL"] == str(folder) and len(inherits) == 1 + ("CUDA_VISIBLE_DEVICES" in environment)
        self.folder, self.seconds, end = folder, 1.0, FakeChild.ends.pop(0)
        self.process = SimpleNamespace(returncode=0, poll=lambda: 0, wait=lambda: 0)
        if isinstance(end, float):
            with job.held(folder), job.attempt(folder):
                finish(folder, end)
        elif isinstance(end, Exception):
            job.fail(folder, end)
            self.process.returncode = 1
        else:
            self.process.returncode = -end
            if end == signal.SIGKILL:
                job.fail(folder, ValueError("killed"))

    def ended(self) -> bool:
        return True


@pytest.mark.parametrize("gpus", [None, GpuLauncher(gpus=[0, 1])], ids=["one at a time", "two"])
def test_killed_trials_are_tried_again_and_failed_ones_stop_no_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, gpus: GpuLauncher | None
) -> None:
    monkeypatch.setattr(worker, "Child", FakeChild)
    monkeypatch.setattr(sys, "argv", ["kdx-tune"])
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)  # where the slots of GPUs are
    kill = signal.SIGKILL
    FakeChild.ends = (
        [kill, 0.5, kill, kill, kill, ValueError("no memory"), 0.75, float("nan"), 0.25] if gpus is None else [0.5] * 6
    )
    one = begun(tmp_path / "study")
    worker.Worker(one, gpus).work()
    err = capsys.readouterr().err
    values = [trial.value for trial in one.trials]
    if gpus is not None:
        assert values == [0.5] * 6 and "on GPU 0" in err and "on GPU 1" in err
        return
    assert values == [0.5, None, None, 0.75, None, 0.25], err
    reasons = [trial.user_attrs.get("reason") for trial in one.trials]
    assert reasons[1:5] == ["killed", "no memory", None, "val/student/accuracy: no finite number in metrics.json"]
    assert "trial 3 finished: val/student/accuracy 0.75; best: trial 3, 0.75; 4 of 6 trials ended" in err
    assert "trial 2 failed: no memory" in err and err.count("was killed (SIGKILL), and is tried again") == 3


def test_what_stops_one_trial_stops_the_search_which_goes_on_with_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(worker, "Child", FakeChild)
    monkeypatch.setattr(sys, "argv", ["kdx-tune"])
    FakeChild.ends = [0.5, signal.SIGTERM, *[0.75] * 5]
    one = begun(tmp_path)
    with pytest.raises(SystemExit, match="143"):
        worker.Worker(one).work()
    assert [trial.state for trial in one.trials] == [TrialState.COMPLETE, TrialState.RUNNING]
    worker.Worker(begun(tmp_path)).work()
    assert [trial.value for trial in one.trials] == [0.5, *[0.75] * 5]


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("KDX_", "HYDRA_"))}


@pytest.mark.long
def test_a_trial_on_two_ranks_is_pruned_on_both_and_is_no_failure(tmp_path: Path) -> None:
    one = begun(tmp_path)
    for _ in range(2):
        one.study.add_trial(
            create_trial(state=TrialState.COMPLETE, value=1.0, intermediate_values=dict.fromkeys(range(1, 9), 1.0))
        )
    trial = one.next()
    words = [*FAST, "trainer.max_epochs=8", "trainer.devices=2", f"outputs={tmp_path}/out", f"hydra.run.dir={trial.folder}"]
    line, own = [sys.executable, "-m", "kdx.cli.train", *words], {**environment(), "KDX_TRIAL": str(trial.folder)}
    done = subprocess.run(line, env=own, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads((trial.folder / "pruned.json").read_text())["epoch"] == 1
    assert not (trial.folder / "metrics.json").exists() and not job.failures(trial.folder)
    assert one.tell(trial) == "pruned" and statuses(tmp_path)[0].state == "pruned"


@pytest.mark.minutes
def test_two_processes_on_one_study_go_on_after_kill_9(tmp_path: Path) -> None:
    words = [
        *FAST, "trainer.max_epochs=12", "optimizer.lr=tag(log,interval(1e-5,1e-1))", "optimizer.weight_decay=0.01,0.1",
        "n_trials=12", "pruner_startup=2", "callbacks.last.seconds=0.5", f"outputs={tmp_path}", "sweep=mine",
    ]  # fmt: skip
    study = tmp_path / "sweeps" / "mine"

    def start(name: str) -> subprocess.Popen[bytes]:
        with (tmp_path / name).open("wb") as console:
            line = [sys.executable, "-m", "kdx.cli.tune", *words]
            return subprocess.Popen(line, env=environment(), stdout=console, stderr=console, cwd=tmp_path)

    def own_trial(name: str) -> Path | None:
        """The folder of the trial that a process trains now, once it has a checkpoint."""
        started = [line for line in (tmp_path / name).read_text().splitlines() if line.startswith("kdx: trial")]
        folder = study / f"{started[-1].split()[2]}-supervised_digits" if started and "console" in started[-1] else None
        return folder if folder is not None and (folder / "checkpoints" / "last.ckpt").is_file() else None

    def wait(name: str, process: subprocess.Popen[bytes]) -> Path:
        until = time.monotonic() + 200
        while (folder := own_trial(name)) is None or job.state(folder) == "finished":
            assert process.poll() is None and time.monotonic() < until, (tmp_path / name).read_text()
            time.sleep(0.05)
        return folder

    first, second = start("first"), start("second")
    killed = wait("first", first)
    first.send_signal(signal.SIGKILL)  # with the process of its trial
    os.kill(job.attempts(killed)[-1].pid, signal.SIGKILL)
    orphaned = wait("second", second)
    second.send_signal(signal.SIGKILL)  # and its trial trains on
    assert first.wait() == second.wait() == -signal.SIGKILL
    assert not (killed / "metrics.json").exists() and not (killed / "pruned.json").exists()
    third, fourth = start("third"), start("fourth")
    for name, process in (("third", third), ("fourth", fourth)):
        assert process.wait(timeout=900) == 0, (tmp_path / name).read_text()
    told = (tmp_path / "third").read_text() + (tmp_path / "fourth").read_text()
    number = killed.name.partition("-")[0]
    assert f"trial {number} goes on: " in told and "Going on from" in (killed / "console.log").read_text()
    assert len(job.attempts(killed)) == 2 and len(job.attempts(orphaned)) == 1
    trials = optuna.load_study(study_name=NAME, storage=storage(study)).trials
    states = Counter(trial.state for trial in trials)
    assert len(trials) == 12 and states[TrialState.COMPLETE] >= 2 and states[TrialState.PRUNED] >= 1, states
    assert states[TrialState.COMPLETE] + states[TrialState.PRUNED] == 12, states
    assert Counter(status.state for status in statuses(study)) == {
        "finished": states[TrialState.COMPLETE], "pruned": states[TrialState.PRUNED]
    }  # fmt: skip
    entries = [json.loads(line) for line in (study / "study.log").read_text().splitlines()]
    steps = Counter((entry["trial_id"], entry["step"]) for entry in entries if "intermediate_value" in entry)
    assert set(steps.values()) == {1}
    assert "History of the search" in (study / "report.html").read_text() and "Best: trial " in told
    content = json.loads((study / "study.json").read_text())
    assert len(content["trials"]) == 12 and content["command"].startswith("kdx-train experiment=supervised_digits ")
