"""BiT as FunMatch uses it, and its official weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from kdx.networks import bit, weights
from kdx.networks.network import Network

SMALL: dict[str, Any] = {"channels": (128, 128, 128, 128), "stem_chs": 32}  # as few as 32 groups allow


def official(model: Any) -> dict[str, np.ndarray]:
    """The archive that Google would have written of a timm BiT."""
    found: dict[str, Tensor] = {
        "root_block/standardized_conv2d/kernel": model.stem.conv.weight,
        "group_norm/gamma": model.norm.weight,
        "group_norm/beta": model.norm.bias,
        "head/conv2d/kernel": model.head.fc.weight,
        "head/conv2d/bias": model.head.fc.bias,
    }
    for i, stage in enumerate(model.stages, 1):
        for j, block in enumerate(stage.blocks, 1):
            unit = f"block{i}/unit{j:02d}"
            for part, convolution, norm in zip(
                "abc", (block.conv1, block.conv2, block.conv3), (block.norm1, block.norm2, block.norm3), strict=True
            ):
                found[f"{unit}/{part}/standardized_conv2d/kernel"] = convolution.weight
                found[f"{unit}/{part}/group_norm/gamma"] = norm.weight
                found[f"{unit}/{part}/group_norm/beta"] = norm.bias
            if block.downsample is not None:
                found[f"{unit}/a/proj/standardized_conv2d/kernel"] = block.downsample.conv.weight
    arrays = {f"resnet/{name}": tensor.detach().numpy() for name, tensor in found.items()}
    return {name: array.transpose(2, 3, 1, 0) if array.ndim == 4 else array for name, array in arrays.items()}


@pytest.fixture(scope="module")
def trained() -> Network:
    torch.manual_seed(0)
    network = Network("resnetv2_50x1_bit", 12, args=SMALL).eval()
    for parameter in network.parameters():
        parameter.data.normal_()
    return network


@pytest.fixture(scope="module")
def arrays(trained: Network) -> dict[str, np.ndarray]:
    return official(trained.model)


@pytest.fixture
def archive(tmp_path: Path, arrays: dict[str, np.ndarray]) -> Path:
    np.savez(tmp_path / "R50.npz", **arrays)
    return tmp_path / "R50.npz"


def test_the_archive_holds_the_network_it_was_made_of(trained: Network, archive: Path) -> None:
    read, own = bit.read(archive), trained.model.state_dict()
    assert read.keys() == own.keys() and all(torch.equal(read[name], own[name]) for name in own)


def big_vision(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The archive that big_vision's code would have written of the same network: models/bit_paper.py, its conversion."""
    names = {
        "group_norm/gamma": "norm-pre-head/scale",
        "group_norm/beta": "norm-pre-head/bias",
        "head/conv2d/bias": "head/bias",
    }
    names |= {"root_block/standardized_conv2d/kernel": "root_block/conv_root/kernel", "head/conv2d/kernel": "head/kernel"}
    found = {}
    for old, array in arrays.items():
        name = old.removeprefix("resnet/")
        name = names.get(name, name.replace("a/proj/standardized_conv2d", "conv_proj"))
        for number, part in enumerate("abc", 1):
            name = name.replace(f"/{part}/standardized_conv2d/", f"/conv{number}/")
            name = name.replace(f"/{part}/group_norm/gamma", f"/gn{number}/scale")
            name = name.replace(f"/{part}/group_norm/beta", f"/gn{number}/bias")
        is_norm = array.ndim == 1 and name != "head/bias"
        found[name] = array[None, None, None] if is_norm else array[0, 0] if name == "head/kernel" else array
    return found


@pytest.mark.parametrize("prefix", ["params/", "opt/target/", ""])
def test_big_visions_names_are_the_same_network(
    tmp_path: Path, trained: Network, arrays: dict[str, np.ndarray], prefix: str
) -> None:
    converted = {f"{prefix}{name}": array for name, array in big_vision(arrays).items()}
    assert len(converted) == len(arrays)
    others = {"opt/0/mu/head/bias": np.zeros(12, np.float32), "extra": np.zeros(1)} if prefix else {}
    np.savez(tmp_path / "bv.npz", **converted, **others)
    network = Network("resnetv2_50x1_bit", 12, args=SMALL)
    weights.load(network.model, tmp_path / "bv.npz")
    assert weights.digest(network.model) == weights.digest(trained.model)


def test_bfloat16_of_big_vision_is_read(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    halved = {name: torch.from_numpy(array.copy()).bfloat16() for name, array in big_vision(arrays).items()}
    void = {name: tensor.view(torch.int16).numpy().view("V2") for name, tensor in halved.items()}
    np.savez(tmp_path / "bv.npz", **void)
    read = bit.read(tmp_path / "bv.npz")
    assert torch.equal(read["head.fc.bias"], halved["head/bias"].float())
    assert torch.equal(read["stem.conv.weight"], halved["root_block/conv_root/kernel"].permute(3, 2, 0, 1).float())


def test_numbered_convolutions_are_the_same(tmp_path: Path, trained: Network, arrays: dict[str, np.ndarray]) -> None:
    numbered = {
        name.replace("standardized_conv2d/", f"standardized_conv2d_{i}/"): array
        for i, (name, array) in enumerate(arrays.items())
    }
    np.savez(tmp_path / "numbered.npz", **numbered)
    read, own = bit.read(tmp_path / "numbered.npz"), trained.model.state_dict()
    assert read.keys() == own.keys() and all(torch.equal(read[name], own[name]) for name in own)


def test_it_is_read_as_timm_reads_it(archive: Path) -> None:
    mine, theirs = Network("resnetv2_50x1_bit", 12, args=SMALL), Network("resnetv2_50x1_bit", 12, args=SMALL)
    weights.load(mine.model, archive)
    theirs.model.load_pretrained(str(archive))
    assert weights.digest(mine.model) == weights.digest(theirs.model)


def test_a_teachers_classes_are_known_from_the_archive(archive: Path) -> None:
    assert weights.head_classes(archive) == 12
    with pytest.raises(ValueError, match="has 12 classes, expected 10 as in the data set"):
        weights.check_classes(archive, 10)


def test_a_student_starts_from_it_with_a_last_layer_of_its_own(trained: Network, archive: Path) -> None:
    student = Network("resnetv2_50x1_bit", 5, init=str(archive), args=SMALL).eval()
    images = torch.rand(2, 3, 32, 32)
    assert student(images).shape == (2, 5)
    assert torch.equal(student.model.forward_features(images), trained.model.forward_features(images))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"resnet/block9/unit01/a/standardized_conv2d/kernel": np.zeros((1, 1, 1, 1))},
            "unknown to the network, such as stages.8",
        ),
        ({"resnet/block4/unit03/c/odd": np.zeros(1)}, "unknown to the network, such as stages.3.blocks.2.norm3.odd"),
        ({"resnet/odd": np.zeros(1)}, "unknown to the network, such as odd"),
        ({"other/odd": np.zeros(1)}, "not a weight file \\(not an official BiT archive\\)"),
        ({"resnet/group_norm/gamma": np.array([{"an": "object"}])}, "not a weight file \\(Object arrays cannot be loaded"),
    ],
    ids=["deeper", "odd unit", "odd", "foreign", "pickled"],
)
def test_an_archive_that_does_not_fit_is_refused(
    tmp_path: Path, trained: Network, arrays: dict[str, np.ndarray], change: dict[str, np.ndarray], message: str
) -> None:
    np.savez(tmp_path / "other.npz", **{**arrays, **change}, allow_pickle=True)
    before = weights.digest(trained.model)
    with pytest.raises(ValueError, match=message):
        weights.load(trained.model, tmp_path / "other.npz")
    assert weights.digest(trained.model) == before


def test_an_archive_of_nothing_or_cut_off_is_refused(tmp_path: Path, archive: Path) -> None:
    np.savez(tmp_path / "empty.npz")
    (tmp_path / "cut.npz").write_bytes(archive.read_bytes()[:1000])
    for name in ("empty", "cut"):
        with pytest.raises(ValueError, match=f"{name}.npz is damaged or not a weight file"):
            weights.read(tmp_path / f"{name}.npz")


# The networks, as timm builds them.


@pytest.mark.parametrize(("name", "count"), [("resnetv2_50x1_bit", 25_549_352), ("resnetv2_152x2_bit", 236_335_208)])
def test_bit_has_the_published_number_of_parameters_and_no_batch_norm(name: str, count: int) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    assert sum(p.numel() for p in model.parameters()) == count
    assert not any("BatchNorm" in type(module).__name__ for module in model.modules())
    norms = [module for module in model.modules() if isinstance(module, nn.GroupNorm)]
    assert {norm.num_groups for norm in norms} == {32} and all(norm.num_channels % 32 == 0 for norm in norms)
    standardized = [module for module in model.modules() if type(module).__name__ == "StdConv2d"]
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert set(convolutions) - set(standardized) == {model.get_classifier()}


def test_training_and_testing_see_the_same_function() -> None:
    torch.manual_seed(0)
    network, images = Network("resnetv2_50x1_bit", 10, args=SMALL), torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(network.train()(images), network.eval()(images))


def test_the_scale_of_a_kernel_makes_no_difference() -> None:
    torch.manual_seed(0)
    network, images = Network("resnetv2_50x1_bit", 10, args=SMALL), torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        before = network.model.forward_features(images)
        for module in network.modules():
            if type(module).__name__ == "StdConv2d":
                module.weight.mul_(3).add_(0.1)
        torch.testing.assert_close(network.model.forward_features(images), before, rtol=1e-3, atol=1e-3)


def test_timms_last_layer_starts_small_where_the_papers_starts_at_zero() -> None:
    torch.manual_seed(0)
    network = Network("resnetv2_50x1_bit", 100, args=SMALL)
    last = network.model.get_classifier()
    assert last.weight.std().item() == pytest.approx(0.01, rel=0.05) and not last.bias.any()
    assert network(torch.rand(2, 3, 32, 32)).abs().max() > 0
