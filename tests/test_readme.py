"""What the pages tell people to type works: every command, every block of Python, every link."""

from __future__ import annotations

import importlib
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from docpages import ROOT, TUTORIALS, blocks, commands, headings, links, pages
from fake import fake_run
from PIL import Image

from kdx.config.check import conf_dir
from kdx.config.reference import COMMANDS as MAIN_FILES
from kdx.config.reference import keys, page

Command = Callable[..., tuple[int, str, str]]
PAGES = [path for path in pages() if path not in TUTORIALS]  # tests/test_tutorials.py runs the tutorials
LINES = sorted({" ".join(line.partition(" #")[0].split()) for path in PAGES for line in commands(path)})
# Commands that need data or weights that are not here, or take half an hour. Other tests have them with small files.
NOT_RUN = {
    "kdx-evaluate timm=resnet50 data=imagenet_r data.root=imagenet-r to=FOLDER": "tests/test_evaluation.py",
    "kdx-evaluate checkpoint=FILE network=resnet50 data=cifar10 data.root=data to=FOLDER class_map=FILE.json": "data/",
    "kdx-evidence": "tests/evidence",
}
OWN_IMAGES = next(line for line in LINES if "data=imagefolder data.root=images" in line)
NOT_RUN[OWN_IMAGES] = "test_the_line_for_own_images_works, with small networks"
NOT_RUN |= {line: "tests/export/test_executorch.py, if it is installed" for line in LINES if "executorch" in line}
NOT_RUN |= {line: "tests/evidence" for line in LINES if line.startswith("kdx-evidence ")}
NOT_RUN |= {line: "tests/export/test_push.py" for line in LINES if "push=" in line}
FINISHED = [line for line in LINES if ("RUN" in line or "run=DIR" in line) and line not in NOT_RUN]
NOT_RUN |= {line: "tests/cli/test_launchers.py" for line in LINES if "launcher=gpus" in line}
NOT_RUN |= {line: "tests/test_benchmark.py" for line in LINES if line.startswith("kdx-benchmark")}
NOT_RUN |= {line: "tests/cli/test_sweep.py" for line in LINES if line.startswith("kdx-sweep")}
NOT_RUN |= {line: "tests/cli/test_cache.py" for line in LINES if line.startswith("kdx-cache")}
REPORTS = [line for line in LINES if line.startswith(("kdx-compare", "kdx-report"))]
OTHERS = [line for line in LINES if line not in {*FINISHED, *REPORTS, *NOT_RUN}]


def test_commands_that_are_not_run_are_in_a_page() -> None:
    assert set(NOT_RUN) <= set(LINES)


def marked(lines: list[str]) -> list[object]:
    """Sweeps are long, and searches take minutes."""
    takes = {line: pytest.mark.long for line in lines if " -m " in line}
    takes |= {line: pytest.mark.long for line in lines if line.startswith("kdx-advise ")}
    takes |= {line: pytest.mark.minutes for line in lines if line.startswith("kdx-tune ")}
    return [pytest.param(line, marks=takes[line]) if line in takes else line for line in lines]


@pytest.mark.parametrize("line", marked(OTHERS))
def test_command_works(line: str, command: Command, teachers: Path, tmp_path: Path) -> None:
    name, *words = shlex.split(line.removeprefix("kdx-"))
    code, _, err = command(name, *shortened(name, words, teachers, tmp_path))
    assert code == 0, err


def test_the_line_for_own_images_works(command: Command, tmp_path: Path) -> None:
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    for name in ("cat", "dog", "owl"):
        (tmp_path / "images" / "train" / name).mkdir(parents=True)
        for i in range(30):
            pixels = random.integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / "train" / name / f"{i}.jpg")
    torch.save(timm.create_model("test_resnet", num_classes=3).state_dict(), tmp_path / "teacher.pt")
    small = [
        "teacher.network.architecture=test_resnet",
        "student.architecture=test_resnet",
        "trainer.max_epochs=1",
        "logger=none",
    ]
    pixels_and_batch = ["resolution.teacher=32", "resolution.student=16", "data.batch_size=16", "hydra.run.dir=run"]
    code, _, err = command(*shlex.split(OWN_IMAGES.removeprefix("kdx-")), *small, *pixels_and_batch)
    assert code == 0, err
    assert (tmp_path / "run" / "baselines" / "scratch" / "metrics.json").is_file()


def shortened(name: str, words: list[str], teachers: Path, to: Path) -> list[str]:
    """The same command on fewer images, for fewer epochs, with fewer runs."""
    words = [word.replace("FOLDER", str(to / "folder")) for word in words]
    if name == "prepare":
        return [*words, "data.source.train=32", "data.source.val=16", "data.source.test=16"]
    if not {"--cfg", "--help", "--info"} & set(words):
        words += ["trainer.max_epochs=1", "logger=none", f"outputs={teachers}"]
    if "-m" in words:
        fewer = {"supervised_digits": "ctkd_digits", "0,1,2,3,4": "0,1", "0,1,2": "0,1", "range(3)": "range(2)", "1,4,10": "4"}
        for long, brief in fewer.items():
            words = [word.replace(long, brief) for word in words]
        words.append(f"hydra.sweep.dir={to}/sweep")
    if name == "tune":
        words += ["n_trials=2", "sweep=new"]
    if name == "advise":
        words += ["seeds=1", "methods=[kd]"]
    if name in ("train", "tune", "advise") and not {"--cfg", "--help", "--info", "experiment=dml_digits"} & set(words):
        words.append("teacher.recipe.trainer.max_epochs=2")
    if "trainer=ddp" in words:
        words += ["--cfg", "job"]  # tests/test_ddp.py runs it
    return words


def overrides_in_text(page: Path) -> list[list[str]]:
    """The overrides of kdx-train that the text and the tables of a page have in backticks, at least two together."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    found = []
    for code in sorted(set(re.findall(r"`([^`]+)`", text.replace("\n", " ")))):
        words = shlex.split(code.removeprefix("kdx-train "))
        if len(words) > 1 and all(re.fullmatch(r"\+?[a-z][\w@./]*=\S+", word) for word in words):
            found.append(words)
    return found


@pytest.mark.parametrize("page", [*PAGES, *TUTORIALS], ids=lambda path: str(path.relative_to(ROOT)))
def test_overrides_in_the_text_compose(
    page: Path, config: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in overrides_in_text(page):
        if not any("/RUN" in word or "local-dir:" in word for word in words):  # these need files of a run or of timm
            filled = [re.sub(r"\bNAME$", "resnet18", word) for word in words]
            for file in (word.partition("=")[2] for word in filled if word.endswith(("=FILE", ".npz", ".json"))):
                Path(file).touch()
            config(*filled)


def test_what_is_done_with_a_finished_run_works(train: Callable[..., Path], command: Command, tmp_path: Path) -> None:
    folder = train("run")
    for path in PAGES:
        for block in blocks(path, "python"):
            if "student.json" in block.text:
                scope: dict[str, object] = {}
                exec(block.text.replace("RUN", str(folder)).replace("DIR", str(folder)), scope)
                assert sum(p.numel() for p in scope["model"].parameters()) == 77754
    (tmp_path / "photos").mkdir()
    for photo in ("photo.jpg", "photos/a.png"):
        Image.new("L", (9, 12), 90).save(tmp_path / photo)
    for i, line in enumerate(sorted(FINISHED, key=lambda line: "RUN/export" in line)):  # after the export
        name, *words = shlex.split(line.removeprefix("kdx-"))
        words = [word.replace("RUN", str(folder)).replace("DIR", str(folder)) for word in words]
        words = [word.replace("FOLDER", str(tmp_path / ("photos" if name == "predict" else f"to-{i}"))) for word in words]
        if name == "train":
            words += [f"hydra.run.dir={tmp_path / f'run-{i}'}", "trainer.max_epochs=3"]
        code, _, err = command(name, *words)
        assert code == 0, f"{line}: {err}"


@pytest.mark.parametrize("line", REPORTS)
def test_runs_are_compared(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(3):
        fake_run(tmp_path / "outputs" / f"a{seed}", {"seed": seed})
        fake_run(tmp_path / "outputs" / f"b{seed}", {"seed": seed, "baseline": "scratch"})
    monkeypatch.chdir(tmp_path)
    name, *words = shlex.split(line.removeprefix("kdx-"))
    with pytest.raises(SystemExit) as left:
        importlib.import_module(f"kdx.cli.{name}").main(words)
    assert not left.value.code


def test_the_loss_of_the_example_can_be_added_from_outside(train: Callable[..., Path], tmp_path: Path) -> None:
    shown = [block for path in PAGES for block in blocks(path)]
    code = next(block.text for block in shown if block.language == "python" and "LogitMSE" in block.text)
    yaml = next(block.text for block in shown if block.language == "yaml" and "logit_mse" in block.text)
    (tmp_path / "conf" / "losses").mkdir(parents=True)
    (tmp_path / "logit_mse.py").write_text(code)
    (tmp_path / "conf" / "losses" / "logit_mse.yaml").write_text(yaml.replace("kdx.losses.logit_mse", "logit_mse"))
    searched = f"hydra.searchpath=[file://{tmp_path}/conf]"
    folder = train("run", searched, "experiment=none", "losses=[logit_mse]")
    assert "train/loss_logit_mse" in (folder / "metrics.csv").read_text()


@pytest.mark.long
def test_use_from_python_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in PAGES:
        for block in blocks(path, "python"):
            if "kdx.train(" in block.text:
                scope: dict[str, object] = {}
                exec(block.text.replace("kdx.train(", 'kdx.train("teacher.recipe.trainer.max_epochs=2", '), scope)
                assert scope["run"]


@pytest.mark.parametrize("path", [*PAGES, *TUTORIALS], ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    for file, heading in links(path):
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), file
        assert not heading or heading in headings(target), f"{file}#{heading}"


def test_reference_of_the_configuration_is_up_to_date() -> None:
    path = conf_dir() / "README.md"
    assert page(path.read_text()) == path.read_text(), "run: uv run python scripts/conf_readme.py"


@pytest.mark.parametrize("name", [*MAIN_FILES, "data/base", "trainer/auto", "logger/wandb", "teacher/online"])
def test_key_has_a_comment(name: str) -> None:
    assert [key.path for key in keys(conf_dir() / f"{name}.yaml") if not key.comment] == []


@pytest.mark.parametrize("path", sorted(conf_dir().rglob("*.yaml")), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_option_has_a_description(path: Path) -> None:
    first = next(line for line in path.read_text().splitlines() if not line.startswith("# @package"))
    assert first.startswith("# ") and len(first) > 12


def test_architecture_page_names_every_room() -> None:
    tree = next(block.text for block in blocks(ROOT / "kdx" / "README.md", "text") if "distiller.py" in block.text)
    named = {line.split()[0].rstrip("/") for line in tree.splitlines() if not line.startswith(" ")}
    hidden = ("__init__.py", "__main__.py", "__pycache__", "README.md", "py.typed")
    assert named >= {path.name for path in (ROOT / "kdx").iterdir() if path.name not in hidden}
    assert all((ROOT / "kdx" / name).exists() for name in named)


def test_reading_list_of_a_step_is_short_and_there() -> None:
    text = (ROOT / "kdx" / "README.md").read_text().split("## Reading one training step")[1]
    files = re.findall(r"^\d+\. `([\w/]+\.py)`", text, re.MULTILINE)
    assert 1 < len(files) <= 10
    assert all((ROOT / "kdx" / name).is_file() for name in files)
