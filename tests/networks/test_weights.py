"""Weights survive every format, and a bad file is refused with a reason before it can do harm."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from torch import Tensor, nn

from kdx.networks import weights
from kdx.networks.network import Network

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    network = Network("cifar_resnet8", 10, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.5))
    network(torch.rand(8, 3, 8, 8))  # moves BatchNorm's statistics off their start
    return network.eval()


@pytest.fixture
def state(network: Network) -> State:
    return dict(network.model.state_dict())


def write(state: State, path: Path) -> None:
    """The state dict in the format of the path."""
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path)


def same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def lightning(state: State) -> dict[str, Any]:
    """What Lightning saves of a run, with things in it that are not the student's."""
    inside = {f"distiller.student.model.{name}": tensor for name, tensor in state.items()}
    others = {"distiller.temperature.raw": torch.ones(()), "objective.terms.kl.loss.scale": torch.ones(2)}
    return {"state_dict": inside | others, "epoch": 3, "hyper_parameters": {"lr": 0.1}, "callbacks": {}}


def prefixed(prefix: str) -> Callable[[State], Any]:
    return lambda state: {f"{prefix}{name}": tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    ("name", "wrap"),
    [
        ("plain.pth", lambda state: state),
        ("nested.pth", lambda state: {"state_dict": state, "arch": "cifar_resnet8"}),
        (
            "timm.pth.tar",
            lambda state: {"state_dict": prefixed("nonsense.")(state), "state_dict_ema": state, "epoch": 1},
        ),
        ("run.ckpt", lightning),
        ("parallel.pth", prefixed("module.")),
        ("compiled.pth", prefixed("_orig_mod.")),
        ("both.pth", prefixed("module._orig_mod.")),
        ("network.pth", prefixed("model.")),
    ],
)
def test_every_kind_of_pytorch_file_gives_the_plain_weights(
    tmp_path: Path, state: State, name: str, wrap: Callable[[State], Any]
) -> None:
    torch.save(wrap(state), tmp_path / name)
    assert same(weights.read(tmp_path / name), state)


def test_what_is_saved_is_what_is_loaded(tmp_path: Path, network: Network, state: State) -> None:
    path = tmp_path / "student.safetensors"
    weights.save(network.model, network.card, path)
    assert same(weights.read(path), state)
    fresh = Network("cifar_resnet8", 10)
    weights.load(fresh.model, path)
    assert same(fresh.model.state_dict(), state)


def test_plain_timm_rebuilds_the_network_from_what_was_saved(tmp_path: Path, network: Network) -> None:
    path, images, card = tmp_path / "student.safetensors", torch.rand(2, 3, 8, 8), network.card
    weights.save(network.model, card, path)
    model = timm.create_model(card["architecture"], checkpoint_path=path, **card["model_args"]).eval()
    mean, std = (torch.tensor(card["pretrained_cfg"][name]).view(1, -1, 1, 1) for name in ("mean", "std"))
    assert torch.equal(model((images - mean) / std), network(images))


def test_shapes_are_those_of_the_weights_in_either_format(tmp_path: Path, network: Network, state: State) -> None:
    weights.save(network.model, {}, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "a.pth")
    expected = {name: list(tensor.shape) for name, tensor in state.items()}
    assert weights.shapes(tmp_path / "a.safetensors") == weights.shapes(tmp_path / "a.pth") == expected


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("use", [weights.read, weights.shapes])
def test_a_missing_file_is_named(tmp_path: Path, use: Callable[[Path], Any], suffix: str) -> None:
    with pytest.raises(ValueError, match=f"No weight file .*nowhere{suffix}"):
        use(tmp_path / f"nowhere{suffix}")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.999])
@pytest.mark.parametrize("use", [weights.read, weights.shapes])
def test_a_truncated_file_is_damaged(
    tmp_path: Path, state: State, suffix: str, share: float, use: Callable[[Path], Any]
) -> None:
    path = tmp_path / f"cut{suffix}"
    write(state, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=f"cut{suffix} is damaged"):
        use(path)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize(
    "text",
    ["hello world, this is text\n" * 20, "<!DOCTYPE html>\n<html>", "version https://git-lfs.github.com/spec/v1\n"],
)
def test_a_text_file_is_not_taken_for_weights(tmp_path: Path, text: str, suffix: str) -> None:
    path = tmp_path / f"text{suffix}"
    path.write_text(text)
    with pytest.raises(ValueError, match="is damaged or not a weight file"):
        weights.read(path)


class Trap:
    """Unpickling this creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("place", ["bare pickle", "zip", "checkpoint"])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_code_in_a_file_is_refused_and_does_not_run(tmp_path: Path, state: State, place: str) -> None:
    path, marker = tmp_path / "trap.pth", tmp_path / "marker"
    if place == "bare pickle":
        path.write_bytes(pickle.dumps(Trap(marker)))
    else:
        torch.save(Trap(marker) if place == "zip" else {"state_dict": state, "hyper_parameters": Trap(marker)}, path)
    with pytest.raises(ValueError, match="run code from the file"):
        weights.read(path)
    assert not marker.exists()
    with contextlib.suppress(pickle.UnpicklingError, RuntimeError):
        torch.load(path, weights_only=False)
    assert marker.exists(), "the trap itself does not work"


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [1, 2], {"state_dict": {}}, torch.zeros(3)], ids=str)
def test_a_file_without_a_state_dict_is_told_apart_from_a_damaged_one(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"does not contain a state dict"):
        weights.read(tmp_path / "other.pth")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("head", ["fc", "classifier", "head", "head.fc", "distiller.student.model.fc"])
def test_a_wrong_number_of_classes_is_told_with_both_numbers(tmp_path: Path, head: str, suffix: str) -> None:
    path = tmp_path / f"teacher{suffix}"
    tensors = {
        "stem.weight": torch.zeros(4, 3, 3, 3),
        f"{head}.weight": torch.zeros(100, 64),
        f"{head}.bias": torch.zeros(100),
    }
    write(tensors, path)
    weights.check_classes(path, 100)
    with pytest.raises(ValueError, match="has 100 classes, expected 10 as in the data set:"):
        weights.check_classes(path, 10)


def test_a_head_that_cannot_be_found_is_no_objection(tmp_path: Path) -> None:
    torch.save({"trunk.weight": torch.zeros(100, 64)}, tmp_path / "odd.pth")
    weights.check_classes(tmp_path / "odd.pth", 10)


def without(name: str) -> Callable[[State], None]:
    def change(state: State) -> None:
        del state[name]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s.update({"fc.weight": torch.zeros(100, 64)}),
            r"fc\.weight is \[100, 64\] in the file and \[10, 64\] in",
        ),
        (without("conv1.weight"), r"1 weights are not in the file, such as conv1\.weight"),
        (without("bn1.running_mean"), r"1 weights are not in the file, such as bn1\.running_mean"),
        (lambda s: s.update({"extra.weight": torch.zeros(1)}), r"1 weights in the file are unknown.*extra\.weight"),
    ],
    ids=["shape", "missing weight", "missing statistics", "unknown"],
)
def test_weights_that_do_not_fit_are_named_and_none_is_loaded(
    tmp_path: Path, state: State, change: Callable[[State], None], message: str
) -> None:
    change(state)
    torch.save(state, tmp_path / "other.pth")
    model = Network("cifar_resnet8", 10).model
    before = weights.digest(model)
    with pytest.raises(ValueError, match=message):
        weights.load(model, tmp_path / "other.pth")
    assert weights.digest(model) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.update({"fc.weight": torch.zeros(10, 32)}), r"fc\.weight is \[10, 32\] in the file and \[10, 64\] in"),
        (without("fc.bias"), r"1 weights are not in the file, such as fc\.bias"),
        (
            lambda s: s.update({"head.weight": s.pop("fc.weight"), "head.bias": s.pop("fc.bias")}),
            "unknown to the network, such as h",
        ),
        (without("bn1.running_mean"), r"1 weights are not in the file, such as bn1\.running_mean"),
    ],
    ids=["other features", "half a last layer", "another name", "missing statistics"],
)
def test_a_start_that_does_not_fit_leaves_the_network_alone(
    tmp_path: Path, state: State, change: Callable[[State], None], message: str
) -> None:
    change(state)
    torch.save(state, tmp_path / "other.pth")
    model = Network("cifar_resnet8", 10).model
    before = weights.digest(model)
    with pytest.raises(ValueError, match=message):
        weights.initialize(model, tmp_path / "other.pth")
    assert weights.digest(model) == before


@pytest.mark.parametrize(
    ("architecture", "last"),
    [
        ("resnetv2_50x1_bit", ["head.fc.weight", "head.fc.bias"]),  # a 1x1 convolution
        ("deit_tiny_distilled_patch16_224", ["head.weight", "head.bias", "head_dist.weight", "head_dist.bias"]),
        ("mobilenetv3_small_gn", ["classifier.weight", "classifier.bias"]),
    ],
)
def test_the_last_layer_is_the_one_that_timm_says(tmp_path: Path, architecture: str, last: list[str]) -> None:
    args = {"channels": (128,) * 4, "stem_chs": 32} if "bit" in architecture else {}
    one, other = (timm.create_model(architecture, num_classes=classes, **args) for classes in (7, 5))
    torch.save(one.state_dict(), tmp_path / "one.pth")
    fresh = {name: other.state_dict()[name].clone() for name in last}
    assert weights.initialize(other, tmp_path / "one.pth") == last
    for name, tensor in other.state_dict().items():
        assert torch.equal(tensor, fresh[name] if name in fresh else one.state_dict()[name])
    with pytest.raises(ValueError, match=r"\[7, .*in the file and \[5, .*in the network"):
        weights.load(other, tmp_path / "one.pth")


@pytest.mark.parametrize("name", ["fc.bias", "bn1.running_var", "bn1.num_batches_tracked"])
def test_the_digest_changes_with_the_last_bit_of_any_weight(network: Network, name: str) -> None:
    before = weights.digest(network.model)
    tensor = network.model.state_dict()[name].view(-1)
    kept = tensor[0].clone()
    tensor[0] = torch.nextafter(kept, kept + 1) if kept.is_floating_point() else kept + 1
    assert len(before) == 64 and weights.digest(network.model) != before
    tensor[0] = kept
    assert weights.digest(network.model) == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_digest_does_not_depend_on_the_order_of_weights(dtype: torch.dtype) -> None:
    parts = {name: nn.Linear(2, 2, dtype=dtype) for name in ("one", "two")}
    backwards = dict(reversed(list(parts.items())))
    assert weights.digest(nn.ModuleDict(parts)) == weights.digest(nn.ModuleDict(backwards))
    for other in ({"one": parts["two"], "two": parts["one"]}, {"one": parts["one"], "zwei": parts["two"]}):
        assert weights.digest(nn.ModuleDict(parts)) != weights.digest(nn.ModuleDict(other))
