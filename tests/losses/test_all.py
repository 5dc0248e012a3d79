"""Every loss of conf/losses, built from its YAML, learns from small fake networks in every precision."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor, nn

from kdx.config.check import conf_dir
from kdx.losses.objective import Objective
from kdx.types import LossContext, Outputs, Progress

LOSSES = sorted(path.stem for path in (conf_dir() / "losses").glob("*.yaml") if "_target_" in path.read_text())
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
BATCH, CLASSES, EXAMPLES = 6, 5, 40

# Shapes of features without the batch, (student's, teacher's), whose sizes disagree as those of two networks do.
CNN = {
    "pooled": ((12,), (20,)),
    "stage-1": ((12, 2, 2), (20, 3, 3)),
    "stage-2": ((8, 4, 4), (16, 4, 4)),
    "stage-3": ((4, 8, 8), (8, 4, 4)),
    "head": ((CLASSES,), (CLASSES,)),
    "head_dist": ((CLASSES,), (CLASSES,)),
}
VIT = {
    "pooled": ((12,), (20,)),
    "stage-1": ((12, 2, 2), (17, 20)),
    "stage-2": ((17, 12), (17, 20)),
    "stage-3": ((17, 12), (50, 20)),
    "head": ((CLASSES,), (CLASSES,)),
    "head_dist": ((CLASSES,), (CLASSES,)),
}
Shapes = dict[str, tuple[tuple[int, ...], tuple[int, ...]]]


@functools.cache
def terms(option: str) -> DictConfig:
    """The config of an option of conf/losses."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("train", ["experiment=none", f"losses=[{option}]"]).losses


def objective(option: str, shapes: Shapes) -> Objective:
    """The objective of an option, connected."""
    built = Objective(instantiate(terms(option), _convert_="all"))
    student, teacher = ({path: torch.Size(pair[side]) for path, pair in shapes.items()} for side in range(2))
    last = nn.Linear(20, CLASSES).requires_grad_(False)
    built.connect(LossContext(CLASSES, EXAMPLES, torch.arange(EXAMPLES) % CLASSES, student, teacher, last))
    return built


def outputs(shapes: Shapes, dtype: torch.dtype = torch.float32, scale: float = 1.0) -> Outputs:
    """What two networks say of a batch; the student's are leaves with gradients."""

    def draw(*shape: int) -> Tensor:
        return (torch.randn(BATCH, *shape) * scale).clamp(-6e4, 6e4).to(dtype)

    index = torch.randperm(EXAMPLES)[:BATCH]
    label = index % CLASSES
    return Outputs(
        student_logits=draw(CLASSES).requires_grad_(),
        teacher_logits=draw(CLASSES),
        label=label,
        temperature=torch.tensor(4.0, requires_grad=True),
        index=index,
        progress=Progress(0.5, 3),
        student_features={path: draw(*pair[0]).requires_grad_() for path, pair in shapes.items()},
        teacher_features={path: draw(*pair[1]) for path, pair in shapes.items()},
    )


def chosen(features: Mapping[str, Tensor], paths: Iterable[str]) -> dict[str, Tensor]:
    """The features at these paths; "stages" are all of the last stages."""
    return {
        path: value for path, value in features.items() if path in paths or ("stages" in paths and path.startswith("stage-"))
    }


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("shapes", [CNN, VIT], ids=["cnn", "vit"])
@pytest.mark.parametrize("option", LOSSES)
def test_it_is_finite_and_teaches_whatever_it_looks_at(option: str, shapes: Shapes, scale: float, dtype: torch.dtype) -> None:
    built = objective(option, shapes)
    said = outputs(shapes, dtype, scale)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype != torch.float32):
        scored = built(said)
    assert scored.loss.shape == () and scored.loss.dtype == torch.float32 and scored.loss.isfinite()
    scored.loss.backward()
    looked_at = list(chosen(said.student_features, built.student_features).values())
    if any(not term.loss.student_features for term in built.terms.values()):
        looked_at.append(said.student_logits)
    for leaf in looked_at:
        assert leaf.grad is not None and leaf.grad.isfinite().all() and leaf.grad.ne(0).any()
    for parameter in built.parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all()
    if built.needs_temperature:
        assert said.temperature.grad is not None and said.temperature.grad.isfinite()


@pytest.mark.parametrize("option", LOSSES)
def test_a_loss_has_one_value_per_example_or_one_in_all_and_asks_only_for_what_it_needs(option: str) -> None:
    for term in objective(option, CNN).terms.values():
        loss, said = term.loss, outputs(CNN)
        if not loss.needs_teacher:
            said.teacher_logits, said.teacher_features = None, {}
        if not loss.needs_temperature:
            said.temperature = None
        if not loss.needs_label:
            said.label = said.mixed_target = None
        said.student_features = chosen(said.student_features, loss.student_features)
        said.teacher_features = chosen(said.teacher_features, loss.teacher_features)
        assert loss(said).shape in ((), (BATCH,))


@pytest.mark.parametrize("option", LOSSES)
def test_what_it_learns_and_remembers_comes_back_from_a_checkpoint(option: str) -> None:
    first, second, said = objective(option, CNN), objective(option, CNN), outputs(CNN)
    first(said)
    second.load_state_dict(first.state_dict())
    for term, other in zip(first.terms.values(), second.terms.values(), strict=True):
        if hasattr(term.loss, "classify"):  # the teacher's layer is the teacher's to keep
            other.loss.classify = term.loss.classify
    values = []
    for built in (first, second):
        torch.manual_seed(1)
        values.append(built(said).loss)
    assert torch.equal(*values)


def test_connecting_draws_the_same_weights_from_the_same_seed() -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(objective("ctkd/vid", CNN).state_dict())
    assert states[0].keys() == states[1].keys() and all(torch.equal(states[0][k], states[1][k]) for k in states[0])
