"""What the commands print before they run anything: help, groups and options, and the jobs of a sweep."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kdx.cli import advise, benchmark, evaluate, evidence, export, prepare, train, tune, views
from kdx.cli.help import Guide, help_text
from kdx.cli.yaml_keys import Setting, default_groups, keys
from kdx.config.check import conf_dir
from kdx.config.options import comment, groups, options

Command = Callable[..., tuple[int, str, str]]
GUIDES = [module.GUIDE for module in (train, tune, advise, views, evaluate, prepare, evidence, benchmark, export)]


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.name)
def test_help_has_usage_examples_keys_and_fits_a_terminal(guide: Guide, command: Command) -> None:
    code, out, _ = command(guide.name, "--help")
    assert code == 0 and out.startswith(f"usage: kdx-{guide.name} ")
    assert max(map(len, out.splitlines())) <= 100
    assert all(example in out for example, _ in guide.examples) and 3 <= len(guide.examples) <= 5
    assert str(conf_dir()) in out.replace("\n", "")


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.name)
def test_examples_are_commands_that_compose(guide: Guide, command: Command, tmp_path: Path) -> None:
    for example, _ in guide.examples:
        name, *words = example.removeprefix("kdx-").split()
        if not any("DIR" in word for word in words) and name != "evidence":  # no run or data here; tests/evidence
            code, _, err = command(name, *words, "--cfg", "job")
            assert code == 0, err


def test_help_shows_each_key_with_its_default_and_comment() -> None:
    text = " ".join(help_text(train.GUIDE).split())
    for file, prefix in (("train", ""), ("data/base", "data.")):
        lines = (conf_dir() / f"{file}.yaml").read_text().splitlines()
        commented = [re.fullmatch(r"(\w+): ([^ $?#]+) # (.+)", line) for line in lines]
        found = [match for match in commented if match]
        assert len(found) >= 6
        assert all(f"{prefix}{name}={default} {note}" in text for name, default, note in (match.groups() for match in found))
    assert "seed=0" in text and "resolution.teacher=8 " in text
    assert "outputs=outputs" in text  # not ${oc.env:...}
    assert "losses=[kl] " in text and f"{len(options('losses'))} options: one or several" in text
    assert "hydra" not in {setting.name.partition(".")[0] for setting in keys(conf_dir() / "train.yaml")}


def test_a_command_lists_only_what_it_takes() -> None:
    assert "optimizer" not in help_text(prepare.GUIDE) and "severities" in help_text(evaluate.GUIDE)
    assert "severities" not in help_text(train.GUIDE)
    assert "groups" not in help_text(export.GUIDE)
    assert "\n  resolution: side of the square images in px\n  resolution.teacher=8 " in help_text(views.GUIDE)
    assert "overrides" not in help_text(evidence.GUIDE)  # it has no keys


def test_keys_are_read_with_nested_names_headings_and_shared_comments(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    head = "# Head.\ndefaults:\n  - _self_\n  - data: digits # images\n  - override hydra/x: none\n\n"
    text = f"{head}a: 1 # one\n# Two:\nb: # px\n  c: 2\n  d: 3 # deep\ne:\n  - x\nhydra:\n  run: {{dir: .}}\n"
    file.write_text(text)
    assert default_groups(file) == [Setting("data", "digits", "images")]
    assert keys(file) == [
        Setting("a", "1", "one"), Setting("", "", "Two:"),
        Setting("b.", "", "b: px"), Setting("b.c", "2", ""), Setting("b.d", "3", "deep"),
    ]  # fmt: skip


def test_info_lists_groups_and_options_with_the_users_own_marked(command: Command, tmp_path: Path) -> None:
    (tmp_path / "mine" / "losses").mkdir(parents=True)
    (tmp_path / "mine" / "losses" / "own.yaml").write_text("# @package losses\n# My own loss. It is new.\nown: {}\n")
    code, out, _ = command("train", "--info")
    assert code == 0 and "losses (" in out and "crop (" in out and "evidence (" not in out and str(conf_dir()) in out
    for place in (["--config-dir", "mine"], [f"hydra.searchpath=[file://{tmp_path}/mine]"]):
        code, out, _ = command("train", "--info", "losses", *place)
        assert code == 0 and "losses=[OPTION,OPTION]" in out
        assert [line.split(maxsplit=2) for line in out.splitlines() if "own *" in line] == [["own", "*", "My own loss"]]
        assert f"* from {tmp_path}/mine" in out
    code, out, _ = command("evaluate", "--info=shift")
    assert code == 0 and "  blur" in out
    assert "no config groups" in command("export", "--info")[1]
    code, _, err = command("train", "--info", "loses")
    assert code == 2 and "Did you mean 'losses'?" in err
    code, out, _ = command("train", "--info", "searchpath")  # Hydra's
    assert code == 0 and "main" in out


@pytest.mark.parametrize(
    ("name", "group", "usage", "key"),
    [
        ("train", "recipe", "recipe@teacher.recipe=OPTION", "teacher.recipe.seed=0 of the teacher's training"),
        ("train", "teacher", "teacher=OPTION", "teacher.resolution=null side of its images in px; null: resolution.teacher"),
        ("train", "metrics", "metrics=[OPTION,OPTION]", ""),
        ("train", "crop", "crop@views.crop=OPTION or crop@data.eval_crop=OPTION", "views.crop.whole_px=null"),
        ("train", "network", "network@student=OPTION or network@teacher.network=OPTION", "student.pretrained=false"),
        ("evaluate", "network", "network=OPTION", ""),
    ],
)
def test_info_of_a_group_has_its_syntax_and_keys(command: Command, name: str, group: str, usage: str, key: str) -> None:
    code, out, _ = command(name, "--info", group)
    assert code == 0 and out.splitlines()[0].endswith(f"selected with {usage}") and key in " ".join(out.split())


def test_help_has_the_keys_of_the_teacher() -> None:
    assert "teacher.checkpoint=null" in help_text(train.GUIDE) and "teacher.checkpoint" not in help_text(evaluate.GUIDE)


def test_every_option_has_a_comment() -> None:
    silent = [f"{group}/{option.name}" for group in groups() for option in options(group) if not option.comment]
    assert not silent
    assert comment(conf_dir() / "losses" / "ce.yaml") == "Cross-entropy with the labels"


def test_options_may_stand_between_overrides(command: Command, tmp_path: Path) -> None:
    (tmp_path / "mine" / "temperature").mkdir(parents=True)
    (tmp_path / "mine" / "temperature" / "warm.yaml").write_text("_target_: kdx.temperatures.schedules.Constant\nvalue: 7.5\n")
    words = ["experiment=none", "--config-dir", "mine", "temperature=warm", "--cfg", "job", "seed=3"]
    code, out, err = command("train", *words)
    assert code == 0, err
    assert "value: 7.5" in out and "seed: 3" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["losses.kl.wieght=1"], "Did you mean 'weight'?"),
        (["temperature.value=0"], "greater than 0"),
        (["--cfg"], "Missing value for option --cfg; expected job, hydra or all"),
        (["--config-dir", "nowhere"], "--config-dir=nowhere: folder not found"),
    ],
)
def test_cfg_job_checks_as_a_run_does(command: Command, words: list[str], message: str) -> None:
    code, out, err = command("train", "--cfg", "job", *words)
    assert code == 2 and message in err and not out


def test_a_sweep_is_previewed_with_its_baselines_and_checked(command: Command, tmp_path: Path) -> None:
    words = ["-m", "seed=range(2)", "temperature.value=1,4", "baselines=[scratch]", "--cfg", "job"]
    code, out, err = command("train", *words)
    assert code == 0, err
    listed = [line.split(maxsplit=2)[1:] for line in out.splitlines() if line.startswith("#   ")]
    assert [number for number, _ in listed] == [f"{i}:" for i in range(6)]
    assert listed[1][1] == "seed=0 temperature.value=4" and listed[5][1] == "seed=1 baseline=scratch"
    assert "# 4 jobs" in out and "# 2 jobs of baselines: scratch" in out and "\nname: cqkd_digits" in out
    assert not (tmp_path / "outputs").exists()
    code, _, err = command("train", "-m", "temperature.value=4,0", "--cfg", "job")
    assert code == 2 and "job 1 (temperature.value=0)" in err and "greater than 0" in err
    code, _, err = command("train", "-m", "optimizer.lr=interval(0.1,1)", "--cfg", "job")
    assert code == 2 and "not a grid" in err


@pytest.mark.parametrize("words", [["train", "--help"], ["train", "--cfg", "job"], ["compare", "--help"]])
def test_a_closed_pipe_is_no_error(words: list[str], tmp_path: Path) -> None:
    name, *rest = words
    reader, writer = os.pipe()
    os.close(reader)
    line = [sys.executable, "-m", f"kdx.cli.{name}", *rest]
    done = subprocess.run(line, stdout=writer, stderr=subprocess.PIPE, text=True, cwd=tmp_path, timeout=60)
    os.close(writer)
    assert done.returncode == 0 and done.stderr == ""


def test_python_m_kdx_lists_every_installed_command() -> None:
    done = subprocess.run([sys.executable, "-m", "kdx"], capture_output=True, text=True, timeout=60, check=True)
    scripts = (Path(__file__).parents[2] / "pyproject.toml").read_text().split("[project.scripts]")[1].split("[")[0]
    names = [line.split(" = ")[0] for line in scripts.strip().splitlines()]
    assert len(names) == 15 and all(f"  {name} " in done.stdout for name in names)
    assert max(map(len, done.stdout.splitlines())) <= 100
