"""Pixels, stem and optimizer of the FunMatch recipes are those of TensorFlow, Flax and Optax (tests/record_big_vision.py)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from omegaconf import DictConfig
from torch import Tensor

from kdx.experiment import build
from kdx.networks.network import Network
from kdx.training.optimizers.functions import big_vision_adam
from kdx.types import Draw, Examples, Pair, View
from kdx.views.crops import Center, Inception
from kdx.views.observer import Observer
from kdx.views.policies import SharedView
from kdx.views.render import Resizing, render, render_each

RECORDED = np.load(Path(__file__).parent / "big_vision.npz")
EIGHT_BITS = 0.5 / 255
IMAGES = [torch.from_numpy(RECORDED[f"image{i}"]).permute(2, 0, 1).contiguous() for i in range(4)]


def recorded(name: str) -> Tensor:
    return torch.from_numpy(RECORDED[name]).permute(2, 0, 1) / 255


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("draw", [render, render_each])
def test_crops_and_evaluation_images_are_tensorflows(number: int, draw: Callable[..., Tensor]) -> None:
    image = IMAGES[number]
    size = np.array(image.shape[-2:])
    crop = RECORDED["crops"][number] / [*size, *size]
    boxes = {"crop": crop[None], "eval": Center(0.8, whole_px=20).boxes(np.zeros((1, 0)), size[None])}
    for name, interpolation in (("crop", "bilinear_aliased"), ("eval", "area")):
        view = View(boxes[name], np.zeros(1, np.bool_))
        pixels = draw(image[None], view, 16, interpolation=interpolation)[0]
        pixels = pixels / 255 if pixels.dtype == torch.uint8 else pixels
        error = pixels - recorded(f"{name}{number}")
        assert error.abs().max() <= EIGHT_BITS + 1e-5 and error.mean().abs() < 4e-4


def test_kdx_antialiases_by_default_which_is_not_the_same() -> None:
    view = View(RECORDED["crops"][2][None] / [64, 48, 64, 48], np.zeros(1, np.bool_))
    assert (render(IMAGES[2][None], view, 16)[0] - recorded("crop2")).abs().mean() > 0.05


def test_the_stem_pools_as_flax() -> None:
    features = torch.from_numpy(RECORDED["features"]).permute(0, 3, 1, 2)
    pooled = {}
    for ending in ("flax", "bit"):
        stem: Any = Network(f"resnetv2_50x1_{ending}", 3).model.stem
        pooled[ending] = stem.pool(stem.pad(features)).permute(0, 2, 3, 1)
    assert torch.equal(pooled["flax"], torch.from_numpy(RECORDED["pooled"]))
    assert not torch.equal(pooled["bit"], pooled["flax"])
    assert torch.equal(pooled["bit"][:, 1:-1, 1:-1], pooled["flax"][:, 1:-1, 1:-1])  # the border only


@pytest.mark.parametrize(("first_moment", "same"), [("bfloat16", True), ("float32", False)])
def test_updates_with_a_first_moment_in_bfloat16_are_those_of_optax(first_moment: Any, same: bool) -> None:
    parameter = torch.nn.Parameter(torch.zeros(40))
    optimizer = big_vision_adam([parameter], lr=1.0, weight_decay=0.0, first_moment=first_moment)
    worst = 0.0
    for gradient, update in zip(RECORDED["gradients"], RECORDED["updates"], strict=True):
        before, parameter.grad = parameter.detach().clone(), torch.from_numpy(gradient)
        optimizer.step()
        worst = max(worst, float((before - parameter.detach() - torch.from_numpy(update)).abs().max()))
    assert (worst < 5e-5) is same


def test_it_goes_on_exactly_from_its_state() -> None:
    def after(steps: int, state: tuple[Tensor, Any] | None = None, first: int = 0) -> tuple[Tensor, Any]:
        parameter = torch.nn.Parameter(torch.ones(40) if state is None else state[0].clone())
        optimizer = big_vision_adam([parameter], lr=0.1, weight_decay=0.01, first_moment="bfloat16")
        if state is not None:
            optimizer.load_state_dict(state[1])
        for gradient in RECORDED["gradients"][first : first + steps]:
            parameter.grad = torch.from_numpy(gradient)
            optimizer.step()
        return parameter.detach(), optimizer.state_dict()

    whole, half = after(12), after(5)
    assert torch.equal(after(7, half, 5)[0], whole[0])


def test_the_recipes_choose_them(config: Callable[..., DictConfig]) -> None:
    cfg = config("experiment=funmatch_pets", "data.root=somewhere")
    assert cfg.interpolation.in_training == ("bilinear_aliased", "bilinear_aliased", False)
    assert cfg.interpolation.in_evaluation == ("area", "area", False)
    assert cfg.optimizer["first_moment"] == "bfloat16" and cfg.data.eval_crop["whole_px"] == 160
    assert cfg.student["architecture"] == "resnetv2_50x1_flax" and cfg.teacher.network["architecture"] == "resnetv2_152x2_flax"
    observers = build.observers(build.unchecked(config("experiment=funmatch_digits", "interpolation.eval=area")), 10)
    assert observers["train"].resizing.student == "bilinear" and observers["test"].resizing.student == "area"


@pytest.mark.parametrize("teacher", [True, False])
def test_cqkds_resize_is_that_of_the_teachers_tensor_without_antialiasing(teacher: bool) -> None:
    images = torch.stack([image[:, :37, :40] for image in IMAGES])
    sizes = np.array([[37, 40]] * 4)
    examples = Examples(Draw(0, 0, 0, np.arange(4)), images, sizes, None)
    resizing = Resizing("bilinear", "bilinear_aliased", student_from_teacher=True)
    whole, own = (
        Observer(SharedView(Inception()), Pair(24, 8), 3, resizing=how, teacher=has)(examples)
        for how, has in ((Resizing(), True), (resizing, teacher))
    )
    assert whole.teacher_images is not None
    expected = F.interpolate(whole.teacher_images, size=(8, 8), mode="bilinear", antialias=False)
    torch.testing.assert_close(own.student_images, expected, rtol=0, atol=2e-6)
