"""Groups: seeds together, everything else apart; named by what a user typed; each with its own baseline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fake import ADAMW, CONFIG, fake_run

from kdx.compare.groups import Group, baseline_of, differences, group_runs
from kdx.compare.runs import find_runs

SGD = {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.1, "momentum": 0.9}


def grouped(folder: Path, *configs: dict[str, Any], typed: tuple[list[str], ...] = ()) -> list[Group]:
    """One run per config (by dotted path), in their order; `typed` are its overrides."""
    for i, config in enumerate(configs):
        fake_run(folder / str(i), config, provenance={"overrides": typed[i] if typed else []})
    return group_runs(find_runs([folder]))


def labels(groups: list[Group]) -> list[str]:
    return [group.label for group in groups]


def test_seeds_are_one_group_whatever_else_does_not_matter(tmp_path: Path) -> None:
    other = {"seed": 0, "tags": ["x"], "outputs": "elsewhere", "logger": {"wandb": {}}, "callbacks.progress": None, "name": "b"}
    (group,) = grouped(tmp_path, {"seed": 2}, {"seed": 10}, {**other, "data.num_workers": 4, "baselines": ["scratch"]})
    assert [run.seed for run in group.runs] == [0, 2, 10]
    assert group.baseline is None and group.config["seed"] == 0 and list(group.finished) == [0, 2, 10]


def test_what_matters_makes_groups(tmp_path: Path) -> None:
    recipe = {**CONFIG["teacher"]["recipe"], "seed": 1}
    made = grouped(tmp_path, {}, {"teacher.recipe": recipe}, {"callbacks.best.mode": "min"}, {"data.split_seed": 1})
    assert len(made) == 4


def test_a_key_of_a_newer_version_that_says_nothing_makes_no_difference(tmp_path: Path) -> None:
    (group,) = grouped(tmp_path, {"seed": 0}, {"seed": 1, "brand_new": None})
    assert len(group.runs) == 2


def test_labels_are_what_was_typed(tmp_path: Path) -> None:
    assert labels(grouped(tmp_path / "one", {}, {"seed": 1})) == ["cqkd_digits"]
    sweep = [{"temperature.value": 1.0}, {"temperature.value": 4.0, "optimizer.lr": 0.01}]
    assert labels(grouped(tmp_path / "values", *sweep)) == [
        "temperature.value=1 optimizer.lr=0.001",
        "temperature.value=4 optimizer.lr=0.01",
    ]
    assert labels(grouped(tmp_path / "class", {}, {"optimizer": SGD})) == ["optimizer=AdamW", "optimizer=SGD"]
    three = grouped(tmp_path / "three", {}, {"optimizer": SGD}, {"optimizer": {**SGD, "lr": 0.2}})
    assert labels(three) == ["optimizer=AdamW", "optimizer=SGD optimizer.lr=0.1", "optimizer=SGD optimizer.lr=0.2"]
    typed = (["seed=0", "optimizer=adamw"], ["optimizer=sgd", "logger=none"])
    assert labels(grouped(tmp_path / "typed", {}, {"optimizer": SGD}, typed=typed)) == ["optimizer=adamw", "optimizer=sgd"]
    sizes = ({"student.architecture": "cifar_resnet8"}, {"student.architecture": "cifar_resnet20"})
    packages = (["network@student=cifar_resnet8"], ["network@student=cifar_resnet20"])
    assert labels(grouped(tmp_path / "network", *sizes)) == [
        "student.architecture=cifar_resnet8",
        "student.architecture=cifar_resnet20",
    ]
    assert labels(grouped(tmp_path / "package", *sizes, typed=packages)) == ["student=cifar_resnet8", "student=cifar_resnet20"]
    kl = {"kl": CONFIG["losses"]["kl"]}
    assert labels(grouped(tmp_path / "losses", {}, {"losses": kl}, {"temperature": None})) == [
        "temperature=Constant losses=[kl,ce]",
        "temperature=Constant losses=[kl]",
        "temperature=none losses=[kl,ce]",
    ]
    assert labels(grouped(tmp_path / "null", {}, {"data.train_size": None})) == ["data.train_size=300", "data.train_size=null"]


def test_names_say_it_where_they_differ(tmp_path: Path) -> None:
    a, b = {"name": "a", "temperature.value": 1.0}, {"name": "b", "optimizer": SGD, "temperature.value": 1.0}
    assert labels(grouped(tmp_path / "names", a, b)) == ["a", "b"]
    more = {**a, "temperature.value": 2.0}
    assert labels(grouped(tmp_path / "more", a, b, more)) == ["a temperature.value=1", "b", "a temperature.value=2"]
    many = [{"optimizer": {**ADAMW, "lr": i, "eps": i, "weight_decay": i}, "data.val_share": i, "seed": i} for i in (0.1, 0.2)]
    assert labels(grouped(tmp_path / "many", *({**config, "seed": 0, "decay": str(config["seed"])} for config in many))) == [
        "data.val_share=0.1 optimizer.lr=0.1 optimizer.eps=0.1 (+2)",
        "data.val_share=0.2 optimizer.lr=0.2 optimizer.eps=0.2 (+2)",
    ]


def test_an_unfinished_run_adds_nothing_to_the_labels_of_the_others(tmp_path: Path) -> None:
    for seed in (0, 1):
        fake_run(tmp_path / f"a{seed}", {"temperature.value": 1, "seed": seed})
        fake_run(tmp_path / f"b{seed}", {"temperature.value": 4, "seed": seed})
    before = [group.label for group in group_runs(find_runs([tmp_path]))]
    fake_run(tmp_path / "c", {"temperature.value": 4, "trainer.max_epochs": 2, "optimizer.lr": 1}, state="stopped")
    assert before == ["temperature.value=1", "temperature.value=4"]
    labels = [group.label for group in group_runs(find_runs([tmp_path]))]
    assert labels == [*before, "temperature.value=4 optimizer.lr=1 trainer.max_epochs=2"]


def test_an_attempt_whose_seed_was_finished_by_another_is_not_unfinished(tmp_path: Path) -> None:
    fake_run(tmp_path / "a", {}, state="stopped")
    fake_run(tmp_path / "b", {"seed": 1}, state="stopped")
    fake_run(tmp_path / "c", {})
    (group,) = group_runs(find_runs([tmp_path]))
    assert [run.path.name for run in group.unfinished] == ["b"]


def test_no_two_labels_are_the_same(tmp_path: Path) -> None:
    typed = (["temperature=constant_1"], ["temperature=constant_1"], ["temperature=cosine"])
    cosine = {"temperature": {"_target_": "kdx.temperatures.schedules.Cosine"}}
    found = labels(grouped(tmp_path, {}, {"trainer.devices": "1"}, cosine, typed=typed))
    assert len(set(found)) == 3


def test_one_baseline_is_that_of_every_treatment_of_a_sweep(tmp_path: Path) -> None:
    sweep = [{"temperature.value": value} for value in (1.0, 4.0)]
    *treatments, baseline = groups = grouped(tmp_path, {"baseline": "scratch"}, *sweep)
    assert labels(groups) == ["temperature.value=1", "temperature.value=4", "baseline=scratch"]
    assert [baseline_of(group, groups) for group in treatments] == [baseline, baseline]
    assert baseline_of(baseline, groups) is None
    assert baseline_of(treatments[0], groups, "self") is None


def test_a_sweep_over_students_has_a_baseline_each(tmp_path: Path) -> None:
    students = [{"student.architecture": name, "baseline": baseline} for name in ("a", "b") for baseline in (None, "scratch")]
    groups = grouped(tmp_path, *students)
    assert labels(groups) == [
        "student.architecture=a",
        "student.architecture=b",
        "baseline=scratch student.architecture=a",
        "baseline=scratch student.architecture=b",
    ]
    assert [baseline_of(group, groups) for group in groups[:2]] == groups[2:]


def test_a_baseline_may_differ_in_what_it_decides_and_in_nothing_else(tmp_path: Path) -> None:
    fixed = {"baseline": "fixed_t", "temperature": CONFIG["temperature"]}
    curriculum = {"temperature": {"_target_": "kdx.temperatures.curriculum.Curriculum"}}
    other = {**fixed, "trainer.max_epochs": 10, "data.batch_size": 8, "seed": 1}
    learned, still, short = groups = grouped(tmp_path, curriculum, fixed, other)
    assert baseline_of(learned, groups, "fixed_t") is still
    assert differences(learned, still) == []
    assert differences(learned, short) == ["data.batch_size", "trainer.max_epochs"]


def test_of_a_seed_that_ran_twice_the_latest_counts(tmp_path: Path) -> None:
    fake_run(tmp_path / "first", metrics={"seconds": 1.0})
    fake_run(tmp_path / "second", metrics={"seconds": 2.0})
    fake_run(tmp_path / "third", {"seed": 1}, state="running")
    (group,) = group_runs(find_runs([tmp_path]))
    assert len(group.runs) == 3 and {seed: run.metrics["seconds"] for seed, run in group.finished.items()} == {0: 2.0}


def test_a_config_that_is_odd_is_still_grouped_and_labeled(tmp_path: Path) -> None:
    odd = {"callbacks": {"a": 1, "a.b": 2}, "data": [], "optimizer": None, "tags": None}
    assert len(set(labels(grouped(tmp_path, {}, odd, {"losses": [1], "student": "x"})))) == 3
