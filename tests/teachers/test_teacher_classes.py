"""The outputs of a teacher that are the data's classes: by map, by name, by order, or refused with the remedy."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kdx.config.errors import ConfigError
from kdx.config.schema import MemberConfig, RunConfig
from kdx.experiment import build
from kdx.experiment.networks import make_network
from kdx.experiment.teacher_classes import Outputs, outputs, propose_map
from kdx.networks import weights
from kdx.networks.fitting import last_layers
from kdx.networks.metadata import within
from kdx.networks.network import Network

Train = Callable[..., Path]


def member(
    folder: Path, num_classes: int, names: list[str] | None = None, class_map: dict[str, int] | None = None
) -> MemberConfig:
    network = Network("cifar_resnet8", num_classes, 1)
    card = {**network.card, **({} if names is None else {"label_names": names})}
    weights.save(network.model, card, folder / "teacher.safetensors")
    if class_map is not None:
        (folder / "map.json").write_text(json.dumps(class_map))
    node = {"_target_": "kdx.networks.network.Network", "_partial_": True, "architecture": "cifar_resnet8"}
    mapped = str(folder / "map.json") if class_map is not None else None
    return MemberConfig(network=node, checkpoint=str(folder / "teacher.safetensors"), class_map=mapped)


@pytest.mark.parametrize(
    ("own", "names", "class_map", "expected"),
    [
        (["cat", "dog"], ["cat", "dog"], None, Outputs(2)),
        (["dog", "cat"], ["cat", "dog"], None, Outputs(2, [1, 0])),  # another order
        (["ant", "cat", "bee", "dog"], ["dog", "cat"], None, Outputs(4, [3, 1])),  # a subset
        (None, ["cat", "dog"], None, Outputs(2)),
        (["1", "2", "10"], ["10", "2"], {"10": 0, "2": 2}, Outputs(3, [0, 2])),  # a map decides
    ],
)
def test_classes_are_matched(
    tmp_path: Path, own: list[str] | None, names: list[str], class_map: dict[str, int] | None, expected: Outputs
) -> None:
    teacher = member(tmp_path, len(own) if own else 2, own, class_map)
    assert outputs("teacher", teacher, names, len(names)) == expected


@pytest.mark.parametrize("names", [["cat", "dog"], None])
def test_a_better_order_is_proposed_as_a_class_map_of_all_outputs(tmp_path: Path, names: list[str] | None) -> None:
    teacher, about = member(tmp_path, 4), {"path": "teacher", "names": names, "folder": tmp_path}
    remedy = propose_map([1, 0], own=Outputs(4, [3, 2]), **about)
    assert remedy == f"set teacher.class_map={tmp_path}/teacher.class_map.json"
    assert outputs("teacher", replace(teacher, class_map=remedy.partition("=")[2]), names, 2) == Outputs(4, [2, 3])
    assert propose_map(None, own=Outputs(2), **about).startswith("give teacher.class_map=FILE.json, {")


def test_names_inside_of_a_checkpoint_count_too(tmp_path: Path) -> None:
    state = {f"module.{name}": tensor for name, tensor in Network("cifar_resnet8", 2, 1).model.state_dict().items()}
    torch.save({"state_dict": state, "args": argparse.Namespace(lr=0.1), "classes": ["dog", "cat"]}, tmp_path / "teacher.pth")
    node = {"_target_": "kdx.networks.network.Network", "_partial_": True, "architecture": "cifar_resnet8"}
    teacher = MemberConfig(network=node, checkpoint=str(tmp_path / "teacher.pth"))
    assert outputs("teacher", teacher, ["cat", "dog"], 2) == Outputs(2, [1, 0])


@pytest.mark.parametrize(
    ("own", "count", "names", "message"),
    [
        (["0", "1"], 2, ["00", "01"], "2 of 2 do not exist there, such as '00'"),
        (["0", "1"], 2, ["00", "01"], "preflight=warn"),
        (
            None,
            7,
            ["cat", "dog"],
            "its weights have 7 classes and the data set has 2. Choose outputs with teacher.class_map",
        ),
        (None, 7, ["cat", "dog"], "teacher=finetune teacher.network.init=FILE"),
        (["a", "b", "c"], 3, ["a", "d"], "1 of 2 do not exist there, such as 'd'"),
    ],
)
def test_other_classes_are_refused_with_the_remedy(
    tmp_path: Path, own: list[str] | None, count: int, names: list[str], message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        outputs("teacher", member(tmp_path, count, own), names, len(names))
    assert message in str(error.value)


def test_other_names_are_a_doubt_if_they_are_not_judged_strictly(tmp_path: Path) -> None:
    found = outputs("teacher", member(tmp_path, 2, ["0", "1"]), ["00", "01"], 2, strict=False)
    assert (found.count, found.chosen) == (2, None) and found.doubt is not None and "matched by their order" in found.doubt


def test_a_network_that_starts_from_a_file_gets_the_names_of_the_data(tmp_path: Path) -> None:
    teacher, data = member(tmp_path, 2, ["cat", "dog"]), build.make({"_target_": "kdx.data.digits.Digits"}, "data.source")
    data.names = ["dog", "cat"]
    started = make_network({**teacher.architecture, "init": teacher.checkpoint}, "teacher.network", data, 2)
    torch.testing.assert_close(started.model.fc.weight, weights.read(Path(teacher.checkpoint))["fc.weight"].flip(0))


def test_the_paths_of_a_teacher_are_stored_as_absolute_ones(
    config: Callable[..., RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    member(tmp_path, 12, None, {"0": 0})
    monkeypatch.chdir(tmp_path)
    found = config("teacher.checkpoint=teacher.safetensors", "teacher.class_map=map.json", "student.init=teacher.safetensors")
    paths = found.teacher.checkpoint, found.teacher.class_map, found.student["init"]
    assert paths == tuple(str(tmp_path / name) for name in ("teacher.safetensors", "map.json", "teacher.safetensors"))


def test_an_imagenet_network_is_matched_by_synsets() -> None:
    node = {"_target_": "kdx.networks.network.Network", "architecture": "resnet18.a1_in1k", "pretrained": True}
    assert outputs("teacher", MemberConfig(network=node), ["n01443537", "n01440764"], 2) == Outputs(1000, [1, 0])


@pytest.mark.parametrize(
    "architecture", ["cifar_resnet8", "resnetv2_50x1_bit", "deit_tiny_distilled_patch16_224", "convnext_atto"]
)
def test_the_kept_outputs_are_those_of_the_whole_network(architecture: str) -> None:
    torch.manual_seed(0)
    args = {"img_size": 32} if "deit" in architecture else {}
    network = Network(architecture, 6, 3, args=args).eval()
    torch.nn.init.normal_(last_layers(network.model)[0].weight)
    images, kept = torch.rand(2, 3, 32, 32), [4, 0, 5]
    before = network(images)
    network.keep_classes(kept)
    torch.testing.assert_close(network(images), before[:, kept])
    assert network.num_classes == 3 and network.card["model_args"]["num_classes"] == 3


@pytest.mark.parametrize(
    "content",
    [
        {"classes": ["cat", "dog"]},
        {"hyper_parameters": {"class_names": ("cat", "dog")}},
        {"meta": {"class_to_idx": {"dog": 1, "cat": 0}}},
        {"id2label": {"1": "dog", "0": "cat"}},
        {"idx_to_class": {0: "cat", 1: "dog"}},
    ],
)
def test_class_names_are_found_in_checkpoints(content: object) -> None:
    assert within(content) == ["cat", "dog"]


@pytest.mark.parametrize("content", [{"classes": 10}, {"labels": [1, 2]}, {"class_to_idx": {"a": 3}}, {}, None, [1]])
def test_what_is_no_list_of_names_is_not_taken_for_one(content: object) -> None:
    assert within(content) is None


def test_a_run_uses_the_chosen_outputs_and_its_evaluation_too(
    train: Train, command: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    names = {str(digit): 11 - digit for digit in range(10)}
    teacher = member(tmp_path, 12, None, names)
    own = [f"teacher.checkpoint={teacher.checkpoint}", f"teacher.class_map={teacher.class_map}", "preflight=off"]
    folder = train("run", "teacher.network.architecture=cifar_resnet8", *own)
    card = json.loads((folder / "teacher.json").read_text())["members"]["teacher"]
    assert (card["num_outputs"], card["outputs"]) == (12, [11 - digit for digit in range(10)])
    code, _, err = command("evaluate", f"run={folder}", "split=test")
    assert code == 0, err
    found = [json.loads((folder / name).read_text())["metrics"] for name in ("metrics.json", "evaluation-test.json")]
    assert found[0]["test/teacher/nll"] == pytest.approx(found[1]["test/teacher/nll"], rel=1e-6)
