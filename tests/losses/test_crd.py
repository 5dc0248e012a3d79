"""CRD equals NumPy written out, draws from the bank and updates it, and its in-batch kin is cross-entropy both ways."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kdx.losses.bank import Draws
from kdx.losses.crd import CRD, CRDBatch, info_nce, nce
from kdx.types import LossContext, Outputs

PAIR = {"student": "f", "teacher": "f"}
LABELS = torch.arange(40) % 4


def context(labels: Tensor | None = LABELS, width: int = 5) -> LossContext:
    """Of 40 training examples; the student's features have the given width, the teacher's 8."""
    return LossContext(4, 40, labels, {"f": torch.Size([width])}, {"f": torch.Size([8])})


def outputs(index: list[int], dtype: torch.dtype = torch.float32, labeled: bool = True) -> Outputs:
    """Random features of these examples."""
    place = torch.tensor(index)
    student, teacher = (torch.randn(len(index), width, dtype=torch.float64).to(dtype) for width in (5, 8))
    features = {"student_features": {"f": student.requires_grad_()}, "teacher_features": {"f": teacher}}
    return Outputs(student, label=LABELS[place] if labeled else None, index=place, **features)


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_nce_is_the_log_likelihood_of_telling_pairs_from_noise(scale: float) -> None:
    scores = torch.randn(6, 9, dtype=torch.float64) * scale
    noise = 8 / 40
    ratio = np.exp(scores.numpy())
    real = ratio / (ratio + noise)
    expected = -np.log(real[:, 0]) - np.log(noise / (ratio[:, 1:] + noise)).sum(1)
    np.testing.assert_allclose(nce(scores, math.log(noise)).numpy(), expected, rtol=1e-10)


def test_nce_is_finite_at_extremes_and_its_gradients_numerical() -> None:
    scores = torch.tensor([[1e4, -1e4], [-1e4, 1e4]], requires_grad=True)
    result = nce(scores, 0.0)
    assert result.tolist() == [0, 2e4]
    assert torch.autograd.grad(result.sum(), scores)[0].tolist() == [[0, 0], [-1, 1]]
    small = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: nce(s, -0.7), [small])


def test_the_loss_follows_the_paper_step_by_step() -> None:
    loss = CRD(PAIR, width=6, negatives=7, temperature=0.1, momentum=0.25)
    loss.connect(context())
    memory = [rows.double().numpy().copy() for rows in loss.bank.rows]
    constants: list[float] = []
    noise = 7 / 40
    for step in range(3):
        batch = outputs([step, 11, 30])
        torch.manual_seed(step)
        result = loss(batch)
        torch.manual_seed(step)
        drawn = Draws(LABELS)(torch.tensor([step, 11, 30]), 7, relax=False).numpy()
        embedded = []
        for layer, features in ((loss.embed_student, batch.student_features), (loss.embed_teacher, batch.teacher_features)):
            e = features["f"].detach().double().numpy() @ layer.weight.detach().double().numpy().T
            e = e + layer.bias.detach().double().numpy()
            embedded.append(e / np.linalg.norm(e, axis=1, keepdims=True))
        expected = np.zeros(3)
        for side in range(2):
            ratio = np.exp(np.einsum("bd,bpd->bp", embedded[side], memory[1 - side][drawn]) / 0.1)
            if step == 0:
                constants.append(ratio.mean() * 40)
            ratio = ratio / constants[side]
            expected -= np.log(ratio[:, 0] / (ratio[:, 0] + noise)) + np.log(noise / (ratio[:, 1:] + noise)).sum(1)
        for side in range(2):
            moved = 0.25 * memory[side][batch.index] + 0.75 * embedded[side]
            memory[side][batch.index] = moved / np.linalg.norm(moved, axis=1, keepdims=True)
        assert result.shape == (3,)
        np.testing.assert_allclose(result.detach().numpy(), expected, rtol=1e-4)
        result.sum().backward()
    for rows, expected_rows in zip(loss.bank.get_extra_state().values(), memory, strict=False):
        np.testing.assert_allclose(rows.numpy(), expected_rows, atol=1e-6)


def test_it_learns_to_tell_examples_apart() -> None:
    loss = CRD(PAIR, width=8, negatives=30)
    loss.connect(context(width=8))
    feature = torch.randn(40, 8)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.01)
    values = []
    for step in range(150):
        index = torch.randperm(40)[:20]
        batch = Outputs(feature, index=index, student_features={"f": feature[index]}, teacher_features={"f": -feature[index]})
        value = loss(batch).mean()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert np.mean(values[-20:]) < 0.7 * np.mean(values[:20])


def test_its_gradient_is_the_numerical_one(monkeypatch: pytest.MonkeyPatch) -> None:
    loss = CRD(PAIR, width=3, negatives=4)
    loss.connect(context())
    loss.double()
    batch = outputs([1, 2, 3], torch.float64)
    loss(batch)  # sets Z
    monkeypatch.setattr(loss.bank, "update", lambda *_: None)  # else the loss is another one each time

    def value(*_: Tensor) -> Tensor:
        torch.manual_seed(0)
        return loss(batch)

    assert torch.autograd.gradcheck(value, [batch.student_features["f"], *loss.parameters()])


def test_without_labels_all_others_are_negatives_and_relax_is_exact() -> None:
    loss = CRD(PAIR, negatives=2000, mode="relax")
    loss.connect(context(labels=None))
    drawn = loss.draws(torch.tensor([5, 9]), 2000, relax=True)
    assert drawn[:, 0].tolist() == [5, 9]
    assert [set(range(40)) - set(row.tolist()) for row in drawn[:, 1:]] == [{5}, {9}]
    assert loss(outputs([5, 9], labeled=False)).isfinite().all()


def test_the_bank_travels_in_the_checkpoint_of_the_loss() -> None:
    loss, other = CRD(PAIR, width=6, negatives=7), CRD(PAIR, width=6, negatives=7)
    for each in (loss, other):
        each.connect(context())
    loss(outputs([1, 2, 3]))
    assert not list(loss.buffers())
    file = io.BytesIO()
    torch.save(loss.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    batch = outputs([4, 5])
    values = []
    for each in (loss, other):
        torch.manual_seed(0)
        values.append(each(batch))
    assert torch.equal(*values)


def test_it_is_refused_without_an_index_with_several_pairs_and_with_one_class() -> None:
    loss = CRD(PAIR, width=6, negatives=7)
    loss.connect(context())
    batch = outputs([1])
    batch.index = None
    with pytest.raises(ValueError, match=r"dataset index of each example.*crd_batch"):
        loss(batch)
    with pytest.raises(ValueError, match="one pair of features"):
        CRD({"student": ["a", "b"], "teacher": ["a", "b"]})
    with pytest.raises(ValueError, match="two classes"):
        CRD(PAIR).connect(context(torch.zeros(40, dtype=torch.long)))
    with pytest.raises(ValueError, match="mode"):
        CRD(PAIR, mode="loose")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", [CRD, CRDBatch])
def test_half_precision_features_are_read_in_single_under_autocast(kind: type[CRD | CRDBatch], dtype: torch.dtype) -> None:
    loss = kind(PAIR, width=6)
    loss.connect(context())
    batch = outputs([0, 1, 2, 3], dtype)
    values = []
    for autocast in (False, True):
        torch.manual_seed(0)
        if isinstance(loss, CRD):
            loss.bank.set_extra_state({"student": torch.ones(40, 6), "teacher": torch.ones(40, 6), "log_z": None})
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            values.append(loss(batch))
    assert values[0].dtype == torch.float32 and torch.equal(*values)
    values[1].sum().backward()
    assert batch.student_features["f"].grad is not None and batch.student_features["f"].grad.isfinite().all()


def test_in_the_batch_it_is_cross_entropy_over_those_not_excluded_both_ways() -> None:
    scores = torch.randn(5, 5, dtype=torch.float64) * 10
    label = torch.tensor([0, 1, 0, 2, 1])
    excluded = (label[:, None] == label) & ~torch.eye(5, dtype=torch.bool)
    expected = []
    for i in range(5):
        kept = [j for j in range(5) if j == i or label[j] != label[i]]
        rows, columns = scores[i, kept], scores[kept, i]
        own = torch.tensor(kept.index(i))
        expected.append(F.cross_entropy(rows, own) + F.cross_entropy(columns, own))
    torch.testing.assert_close(info_nce(scores, excluded), torch.stack(expected))
    inputs = [scores.requires_grad_()]
    assert torch.autograd.gradcheck(lambda s: info_nce(s, excluded), inputs)


def test_a_batch_of_one_class_has_nothing_to_contrast_and_gives_zero() -> None:
    loss = CRDBatch(PAIR)
    loss.connect(context())
    batch = outputs([0, 4, 8])
    result = loss(batch)
    assert result.tolist() == [0, 0, 0]
    assert torch.autograd.grad(result.sum(), batch.student_features["f"])[0].eq(0).all()
    batch.label = None
    assert (loss(batch) > 0).all()


def test_in_the_batch_matching_embeddings_beat_others() -> None:
    loss = CRDBatch(PAIR, width=6, temperature=0.1)
    loss.connect(context(width=8))
    with torch.no_grad():
        loss.embed_teacher.load_state_dict(loss.embed_student.state_dict())
    feature = torch.randn(4, 8)
    right = Outputs(feature, student_features={"f": feature}, teacher_features={"f": feature})
    wrong = Outputs(feature, student_features={"f": feature}, teacher_features={"f": feature.roll(1, 0)})
    assert loss(right).mean() < 0.5 < loss(wrong).mean()


def test_both_need_unmixed_images_and_a_teacher_but_no_temperature() -> None:
    for kind in (CRD, CRDBatch):
        assert kind.needs_one_label and kind.needs_teacher and not kind.needs_temperature and not kind.needs_label
