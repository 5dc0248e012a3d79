"""The ONNX file says what the network says, in any onnxruntime; what ONNX cannot say is named."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from timm.layers import StdConv2d
from timm.models.resnetv2 import ResNetV2
from torch import Tensor, nn

from kdx.export import onnx_file
from kdx.export.parity import ExportError, compare, noise
from kdx.export.request import OLDEST
from kdx.networks.network import Network


class Pads(nn.Module):
    """BiT's stem: a border of zeros around numbers that are all negative, then a maximum."""

    def __init__(self, padding: tuple[int, int, int, int] = (1, 1, 1, 1), value: float = 0.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        nn.init.constant_(self.conv.bias, -5.0)
        self.pad, self.pool = nn.ConstantPad2d(padding, value), nn.MaxPool2d(3, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.pool(self.pad(self.conv(images))).flatten(1)


def ops(path: Path) -> set[str]:
    return {node.op_type for node in onnx.load(str(path)).graph.node}


@pytest.mark.parametrize("padding, value", [((1, 1, 1, 1), 0.0), ((2, 0, 1, 3), 1.5), ((0, 0, 0, 0), 0.0)])
def test_a_border_is_a_constant_pad(padding: tuple[int, int, int, int], value: float) -> None:
    images = torch.randn(2, 3, 5, 6)
    pad = nn.ConstantPad2d(padding, value)
    assert torch.equal(onnx_file.Border(pad)(images), pad(images))


def test_the_pair_that_onnxruntime_fuses_wrongly_is_not_in_the_file(tmp_path: Path) -> None:
    network = Pads().eval()
    onnx_file.write(network, (1, 8, 8), tmp_path / "fixed.onnx")
    assert isinstance(network.pad, nn.ConstantPad2d)  # the copy was changed, not the network
    assert "Pad" not in ops(tmp_path / "fixed.onnx")
    for level, answer in onnx_file.sessions(tmp_path / "fixed.onnx"):
        assert compare(level, answer, network, noise((1, 8, 8), (1, 2, 7)))["max_difference"] < 1e-5


def test_a_small_bit_agrees_at_every_level(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Network("cifar_resnet8", 10, 3).eval()  # its normalization, around another model
    network.model = ResNetV2(
        layers=(1, 1, 1, 1), channels=(128, 128, 128, 128), num_classes=10, stem_chs=32, stem_type="fixed", conv_layer=StdConv2d
    ).eval()
    nn.init.normal_(network.model.head.fc.weight, std=0.1)
    onnx_file.write(network, (3, 64, 64), tmp_path / "bit.onnx")
    assert "Pad" not in ops(tmp_path / "bit.onnx")
    for level, answer in onnx_file.sessions(tmp_path / "bit.onnx"):
        found = compare(level, answer, network, noise((3, 64, 64), (1, 2, 7)))
        assert found["max_difference"] < 3e-5


def test_the_graph_normalizes_and_says_what_it_takes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Network("cifar_resnet20", 100, 3, mean=(0.1, 0.5, 0.9), std=(0.2, 0.3, 0.4)).eval()
    assert onnx_file.write(network, (3, 32, 32), tmp_path / "a.onnx", notes={"kdx.input": "said"}) >= OLDEST
    model = onnx.load(str(tmp_path / "a.onnx"))
    onnx.checker.check_model(model, full_check=True)
    assert {prop.key: prop.value for prop in model.metadata_props} == {"kdx.input": "said"}
    (image,), (logits,) = model.graph.input, model.graph.output
    assert [image.name, logits.name] == ["images", "logits"]
    assert [d.dim_param or d.dim_value for d in image.type.tensor_type.shape.dim] == ["batch", 3, 32, 32]
    answer = onnx_file.session(tmp_path / "a.onnx")
    images = torch.rand(5, 3, 32, 32)
    by_hand = network.model(
        (images - torch.tensor([0.1, 0.5, 0.9])[:, None, None]) / torch.tensor([0.2, 0.3, 0.4])[:, None, None]
    )
    torch.testing.assert_close(answer(images), by_hand.detach(), rtol=1e-4, atol=1e-5)


def test_an_opset_is_written_or_refused(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
    assert onnx_file.write(network, (1, 4, 4), tmp_path / "a.onnx", 18) == 18
    assert onnx.load(str(tmp_path / "a.onnx")).opset_import[0].version == 18
    with pytest.raises(ExportError, match=r"opset=99.*opset=null|opset=99.*format"):
        onnx_file.write(network, (1, 4, 4), tmp_path / "b.onnx", 99)
    assert not (tmp_path / "b.onnx").exists()


def test_an_operator_without_a_form_in_onnx_is_named(tmp_path: Path) -> None:
    class Bessel(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.special.bessel_j0(images.flatten(1))

    with pytest.raises(ExportError, match=r"bessel_j0.*format=\[timm,safetensors\]"):
        onnx_file.write(Bessel(), (1, 4, 4), tmp_path / "a.onnx")


def test_a_file_that_onnxruntime_cannot_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"no graph")
    with pytest.raises(ExportError, match=r"cannot load .*a.onnx"):
        onnx_file.session(tmp_path / "a.onnx")
