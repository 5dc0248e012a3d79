"""Nothing from outside runs: neither from a config, whoever wrote it, nor from a run folder, nor from a card."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from kdx.config import plugins
from kdx.config.cards import read_card
from kdx.config.check import load
from kdx.config.errors import ConfigError
from kdx.config.run_as_teacher import student_of_run
from kdx.config.schema import RunConfig, to_plain
from kdx.experiment import build
from kdx.networks.network import LOADING, Network

Command = Callable[..., tuple[int, str, str]]
FORBIDDEN = (
    "torch.utils.collect_env.run", "torch.hub.load", "torch.load", "numpy.load", "joblib.load", "shutil.rmtree", "os.system",
    "subprocess.run", "builtins.eval", "timm.models.load_checkpoint", "timm.models.load_state_dict", "timm.models.create_model",
    "torchvision.models.resnet18", "torch.nn.modules.module.torch.load", "torch.nn.Module.load_state_dict",
    "kdx.run.provenance.subprocess.run", "kdx.evidence.workers.BaseProcess", "kdx.experiment.build.instantiate",
    "kdx.experiment.build.make", "kdx.config.run_as_teacher.student_of_run", "kdx.data.shard_writer.write_shards",
)  # fmt: skip
NODES = (
    "{{_target_: {0}}}",
    "{{_target_: {0}, _partial_: true}}",
    "{{_target_: kdx.losses.kl.KL, x: [{{y: {{_target_: {0}, _args_: [id]}}}}]}}",
    "{{_target_: torch.nn.Sequential, _args_: [{{_target_: {0}}}], _convert_: object, _recursive_: true}}",
)
MARK = "executed"  # a file that exists where something ran
RUNS = f"open('{MARK}', 'w')\n"


@pytest.fixture
def run(config: Callable[..., RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Write the folder of a stranger's run with a changed config.yaml and student.json."""
    for variable in (plugins.FOLDERS, plugins.TRUST):
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)

    def write(changes: str = "{}", card: dict[str, Any] | None = None) -> Path:
        folder = tmp_path / "stranger"
        folder.mkdir(exist_ok=True)
        content = OmegaConf.merge(OmegaConf.create(to_plain(config("experiment=none"))), OmegaConf.create(changes))
        (folder / "config.yaml").write_text(OmegaConf.to_yaml(content))
        args, colors = {"num_classes": 10, "in_chans": 1}, {"num_classes": 10, "mean": [0.5], "std": [0.5]}
        own = {"architecture": "cifar_resnet8", "resolution": 8, "model_args": args, "pretrained_cfg": colors}
        (folder / "student.json").write_text(json.dumps({**own, **(card or {})}))
        for name in ("student.safetensors", "metrics.json"):
            (folder / name).write_text('{"metrics": {}}')
        return folder

    return write


@pytest.mark.parametrize("target", FORBIDDEN)
@pytest.mark.parametrize("own", [True, False])
def test_no_config_names_what_may_run_code(target: str, own: bool) -> None:
    for node in NODES:
        with pytest.raises(ConfigError, match=rf"_target_={target}: "):
            plugins.check_targets({"x": yaml.safe_load(node.format(target))}, own=own)


def test_every_reader_of_a_config_checks_it(run: Callable[..., Path], command: Command) -> None:
    node = "{_target_: torch.load, _args_: [x]}"
    with pytest.raises(ConfigError, match=r"callbacks.x._target_=torch.load: "):
        load(run(f"callbacks: {{x: {node}}}") / "config.yaml")
    with pytest.raises(ConfigError, match=r"callbacks.x._target_=torch.load: "):
        build.make(yaml.safe_load(node), "callbacks.x")
    for name in ("losses", "shift"):
        (Path("mine") / name).mkdir(parents=True)
        (Path("mine") / name / "bad.yaml").write_text(f"bad: {node}")
    for words in (
        ("train", "experiment=none", f"+callbacks.bad={node}"),
        ("train", "--config-dir=mine", "losses=[kl,bad]"),
        ("evaluate", "--config-dir=mine", f"run={run()}", "shift=[bad]"),
        (
            "evidence",
            "only=null",
            f"+families.x={{paper: p, about: a, systems: {{a: []}}, claims: {{c: {{sentence: s, tests: [{node}]}}}}}}",
        ),
    ):
        code, _, err = command(*words)
        assert code == 2 and "_target_=torch.load: " in err, err


@pytest.mark.parametrize("words", [("train", "--config-name=rerun", "--config-dir={}"), ("evaluate", "run={}", "shift=noise")])
def test_a_run_folder_brings_and_names_no_code(words: tuple[str, ...], run: Callable[..., Path], command: Command) -> None:
    for place in ("stranger", "."):
        folder = run("callbacks: {x: {_target_: my_trojan.X}}")
        (folder.parent / place / "my_trojan.py").write_text(RUNS)
        code, _, err = command(*(word.format(folder) for word in words))
        assert code == 2 and "callbacks.x._target_=my_trojan.X: " in err and not Path(MARK).exists()
    assert "if you trust that config, add trust=[my_trojan]" in err  # the module is the user's, in the current folder
    code, _, err = command(*(word.format(folder) for word in words), "trust=[my_trojan]")
    assert "Module 'my_trojan' has no 'X'" in err and not Path(MARK).exists()


def test_no_module_is_imported_from_the_folder_of_a_run(run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run())
    Path("my_trojan.py").write_text(RUNS)
    plugins.add_folders([])
    assert os.getcwd() not in plugins.folders() and not plugins.allowed("my_trojan.X")


@pytest.mark.parametrize("value", ['"${oc.env:SECRET}"', '"\\x24{oc.decode:${oc.env:SECRET}}"'])
def test_the_environment_does_not_leak_into_a_run(
    value: str, run: Callable[..., Path], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "swordfish")
    folder = run()
    lines = [line for line in (folder / "config.yaml").read_text().splitlines() if not line.startswith("name:")]
    (folder / "config.yaml").write_text("\n".join([*lines, f"name: {value}"]))
    rerun = ("train", f"--config-dir={folder}", "--config-name=rerun", "--cfg", "job")
    for words in (rerun, ("evaluate", f"run={folder}")):
        code, out, err = command(*words)
        assert code == 2 and "config.yaml contains ${...} at name" in err and "swordfish" not in out + err


STEERING = ("hydra: {callbacks: {}}", "? hydra\n: {}", "'hydra': {}", "defaults: [x]", "# @package hydra")


@pytest.mark.parametrize("text", STEERING)
def test_a_run_folder_does_not_steer_hydra(text: str, run: Callable[..., Path], command: Command) -> None:
    folder = run()
    file = folder / "config.yaml"
    file.write_text(f"{text}\n{file.read_text()}")
    for name in ("rerun", "config"):
        code, _, err = command("train", f"--config-dir={folder}", f"--config-name={name}", "--cfg", "job")
        assert code == 2 and "which runs never write" in err
    run()
    (folder / "schema.yaml").write_text("# @package _global_\nhydra: {callbacks: {x: {_target_: os.system}}}\n")
    code, _, err = command("train", f"--config-dir={folder}", "--config-name=rerun", "--cfg", "job")
    assert code == 2 and "contains schema.yaml, which runs never write" in err


def test_an_escaped_interpolation_is_not_resolved_when_an_object_is_built() -> None:
    hidden = "${oc.create:{_target_: pathlib.Path, _args_: [executed]}}"  # as written with a backslash before it
    with pytest.raises(ConfigError, match=r"losses.kl.x still contains \$\{\.\.\.\}, .* remove the backslash"):
        build.make({"_target_": "kdx.losses.kl.KL", "x": hidden}, "losses.kl")


CARDS: tuple[dict[str, Any], ...] = (
    {"pretrained_cfg": {"mean": {"_target_": "torch.nn.Identity"}, "std": [0.5]}},
    {"pretrained_cfg": {"mean": [0.5], "std": ["${oc.env:HOME}"]}},
    {"model_args": {"num_classes": 10, "in_chans": 1, "act_layer": {"_target_": "os.system", "command": "id"}}},
    {"model_args": {"num_classes": 10, "in_chans": 1, "deep": [{"_target_": "torch.nn.ReLU", "_partial_": True}]}},
    {"resolution": {"_target_": "builtins.int"}},
    {"label_names": [{"_target_": "torch.nn.ReLU"}]},
)


@pytest.mark.parametrize("card", CARDS)
def test_a_card_is_plain_data(card: dict[str, Any], run: Callable[..., Path], command: Command) -> None:
    folder = run(card=card)
    for use in (read_card, lambda file: student_of_run(str(file.parent))):
        with pytest.raises(ValueError, match=r"nothing is built|no resolution"):
            use(folder / "student.json")
    teacher = ("experiment=none", "teacher=run", f"teacher.run={folder}", "--cfg", "job")
    for words in (("export", f"run={folder}", "format=safetensors"), ("train", *teacher)):
        code, _, err = command(*words)
        assert code == 2 and ("nothing is built" in err or "no resolution" in err), err


@pytest.mark.parametrize("name", LOADING)
def test_a_network_has_no_argument_that_reads_a_file_unchecked(name: str) -> None:
    with pytest.raises(ValueError, match=f"args.{name} would load weights unchecked: use init=FILE"):
        Network("cifar_resnet8", 10, args={name: "evil.pth"})


@pytest.mark.parametrize("target", ["os.system", "builtins.eval", "subprocess.run"])
def test_hydra_builds_no_callback_or_handler_that_runs_code(target: str, command: Command, tmp_path: Path) -> None:
    node = f"{{_target_: {target}, _args_: ['touch {MARK}']}}"
    (tmp_path / "mine" / "debug").mkdir(parents=True)
    (tmp_path / "mine" / "debug" / "bad.yaml").write_text(f"# @package _global_\nhydra: {{callbacks: {{x: {node}}}}}\n")
    for words in (("--config-dir=mine", "debug=bad"), (f"+hydra.callbacks.x={node}",)):
        code, _, err = command("train", *words)  # refused by Hydra's own block list
        assert code != 0 and not Path(MARK).exists(), err
