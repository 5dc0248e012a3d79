"""Vector scaling, histogram binning and isotonic regression against other implementations, and what they leave alone."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from sklearn import isotonic
from torch import Tensor

from kdx.metrics.calibration import equal_mass_bins, expected_calibration_error
from kdx.networks.network import Network
from kdx.teachers import calibration
from kdx.teachers.calibration import Calibrator, GivenTemperature, TemperatureScaling
from kdx.teachers.calibration_maps import IDENTITY, CalibrationMap, TemperatureMap, TopClassMap, VectorMap, of_card
from kdx.teachers.ensemble import Ensemble
from kdx.teachers.teacher import OnlineTeacher
from kdx.teachers.top_class import HistogramBinning, IsotonicRegression, TopClassCalibrator
from kdx.teachers.vector_scaling import VectorScaling

TOP = [HistogramBinning(), HistogramBinning(per_class=False), IsotonicRegression(), IsotonicRegression(per_class=False)]
ALL = [TemperatureScaling(), VectorScaling(), GivenTemperature(2.0), *TOP]


def examples(size: int, num_classes: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits [N,K], float32, and labels drawn from their softmax."""
    g = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(size, num_classes, generator=g)
    return logits, torch.multinomial(logits.softmax(-1), 1, generator=g)[:, 0]


def adaptive_ece(logits: Tensor, label: Tensor) -> float:
    confidence, predicted = logits.double().softmax(-1).max(-1)
    return expected_calibration_error(equal_mass_bins(confidence, predicted == label, 15)).item()


def nll(logits: Tensor, label: Tensor) -> float:
    return F.cross_entropy(logits.double(), label).item()


def test_vector_scaling_finds_what_another_optimizer_finds() -> None:
    logits, label = examples(600)
    spoiled = (logits * torch.tensor([0.5, 1.0, 2.0, 1.5, 3.0]) + torch.tensor([1.0, 0.0, -1.0, 2.0, 0.0])).double()
    found = VectorScaling().fit(spoiled, label)

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        scale, bias = (part.clone().requires_grad_() for part in torch.from_numpy(values).split(5))
        total = F.cross_entropy(spoiled * scale + bias, label)
        total.backward()
        return total.item(), torch.cat([scale.grad, bias.grad]).numpy()

    best = minimize(loss, np.r_[np.ones(5), np.zeros(5)], jac=True, method="BFGS", options={"gtol": 1e-10, "maxiter": 2000}).x
    assert found.scale == pytest.approx(best[:5], rel=1e-4)
    assert found.bias == pytest.approx(best[5:] - best[5:].mean(), abs=1e-4)
    assert nll(found(spoiled), label) == pytest.approx(loss(best)[0], rel=1e-9)


@pytest.mark.parametrize("factor", [0.2, 3.0])
def test_vector_scaling_recovers_a_temperature_and_what_was_done_to_each_class(factor: float) -> None:
    logits, label = examples(20_000)
    found = VectorScaling().calibrate(factor * logits, label)
    assert isinstance(found.map, VectorMap) and found.doubt is None
    assert found.map.scale == pytest.approx([1 / factor] * 5, rel=0.06) and found.map.bias == pytest.approx([0] * 5, abs=0.06)
    shift = torch.tensor([1.0, -1.0, 0.5, 0.0, -0.5])
    assert VectorScaling().fit(logits + shift, label).bias == pytest.approx((-shift).tolist(), abs=0.06)


@pytest.mark.parametrize("calibrator", TOP)
def test_where_the_confidence_is_right_already_it_stays_about_the_same(calibrator: TopClassCalibrator) -> None:
    logits, label = examples(50_000)
    confidence, mapped = (z.softmax(-1).amax(-1) for z in (logits, calibrator.calibrate(logits, label).map(logits)))
    assert (confidence - mapped).abs().mean() < 0.03


@pytest.mark.parametrize("calibrator", [*TOP, VectorScaling(), TemperatureScaling()])
def test_overconfident_logits_are_mended_on_other_examples(calibrator: Calibrator) -> None:
    (logits, label), (others, other_label) = examples(10_000), examples(10_000, seed=1)
    found = calibrator.calibrate(3 * logits, label)
    assert found.doubt is None and adaptive_ece(3 * others, other_label) > 0.08
    assert adaptive_ece(found.map(3 * others), other_label) < 0.03
    assert nll(found.map(3 * others), other_label) < nll(3 * others, other_label) - 0.1


@pytest.mark.parametrize("calibrator", TOP)
@pytest.mark.parametrize("scale", [0.1, 1.0, 1e4])
def test_the_prediction_and_the_proportions_of_the_others_stay(calibrator: TopClassCalibrator, scale: float) -> None:
    logits, label = examples(2000)
    label = torch.where(torch.arange(2000) % 3 == 0, (label + 1) % 5, label)  # far too confident
    mapping = calibrator.calibrate(scale * logits, label).map
    others = torch.cat(
        [scale * examples(2000, seed=3)[0], torch.zeros(1, 5), torch.tensor([[1e4, -1e4, 0, 0, 0], [1, 0, 1, 0, 1]])]
    )
    mapped = mapping(others)
    top = others.argmax(-1, keepdim=True)
    assert mapped.isfinite().all() and torch.equal(mapped.argmax(-1, keepdim=True), top)
    assert torch.equal(mapped.scatter(-1, top, 0.0), others.scatter(-1, top, 0.0))


def test_isotonic_regression_is_that_of_scikit_learn() -> None:
    logits, label = examples(3000)
    logits = (4 * (3 * logits).round() / 4).round(decimals=1)  # with equal confidences
    mapping = IsotonicRegression(per_class=False).calibrate(logits, label).map
    top, predicted = logits.max(-1)
    odds = (top - logits.scatter(-1, predicted[:, None], -torch.inf).logsumexp(-1)).double().numpy()
    right = (predicted == label).double().numpy()
    reference = isotonic.IsotonicRegression(out_of_bounds="clip")
    reference.fit(np.r_[odds, odds.min(), odds.max()], np.r_[right, 1.0, 0.0])
    found = mapping.log_odds(torch.from_numpy(odds).float(), predicted).sigmoid()
    assert found.numpy() == pytest.approx(reference.predict(odds), abs=1e-5)


def test_each_likely_class_with_enough_images_has_the_bins_of_its_own_images() -> None:
    logits, label = examples(3000)
    logits[:, 4] -= 6  # so that class 4 is hardly ever predicted
    mapping = HistogramBinning(images_per_bin=100).calibrate(logits, label).map
    assert isinstance(mapping, TopClassMap) and mapping.own.keys() == {0, 1, 2, 3}
    predicted = logits.argmax(-1)
    for number in range(5):
        mine = predicted == number if number < 4 else torch.ones(3000, dtype=torch.bool)
        confidence, own = logits[mine].softmax(-1).amax(-1), mapping(logits[mine])
        order = confidence.argsort()
        right = (predicted == label)[mine][order].double()
        count = min(15, len(right) // 100)
        middle = [right[i * len(right) // count : (i + 1) * len(right) // count] for i in range(count)]
        expected = [((part.sum() + 1) / (len(part) + 2)).item() for part in middle]
        told = [mapping.log_odds(torch.tensor([20.0 if last else -20.0]), torch.tensor([number])).sigmoid() for last in (0, 1)]
        assert [value.item() for value in told] == pytest.approx([expected[0], expected[-1]], abs=1e-5), number
        if number == 0:
            at = own[order].softmax(-1).amax(-1)
            assert at[-1].item() == pytest.approx(expected[-1], abs=1e-5)


@pytest.mark.parametrize("calibrator", ALL)
def test_the_map_is_that_of_any_batches_in_any_order_and_comes_back_from_its_card(
    calibrator: Calibrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits, label = examples(1500)
    mapping = calibrator.calibrate(3 * logits, label).map
    monkeypatch.setattr(calibration, "PIECE", 70)
    order = torch.randperm(1500, generator=torch.Generator().manual_seed(0))
    again = calibrator.calibrate((3 * logits[order]).split(64), label[order].split(64)).map
    torch.testing.assert_close(again(logits), mapping(logits), rtol=1e-4, atol=1e-4)
    stored = of_card(json.loads(json.dumps({"calibration": mapping.card})))
    assert stored == mapping and torch.equal(stored(logits), mapping(logits)) and stored.text
    assert mapping(logits.half()).dtype == torch.float16


def test_cards_of_older_runs_have_a_temperature_and_others_are_refused() -> None:
    assert of_card({"calibration_temperature": 2.5}) == TemperatureMap(2.5)
    for card in ({"method": "magic"}, {"method": "vector", "scale": [1]}, {"method": "top_class", "knots": [[0], [0]]}, {}):
        with pytest.raises(ValueError, match=r"teacher\.json"):
            of_card({"calibration": card})


@pytest.mark.parametrize(
    ("calibrator", "size", "wrong", "doubt"),
    [
        (VectorScaling(), 40, True, "val images of class"),
        (VectorScaling(), 400, False, "0 of 400 val images are wrong"),
        (VectorScaling(), 100, True, "no more than by chance"),
        (HistogramBinning(), 99, True, "99 val images are too few, expected 100"),
        (IsotonicRegression(), 99, True, "99 val images are too few"),
        (HistogramBinning(), 400, False, "0 of 400 val images are wrong, expected 10"),
    ],
)
def test_what_val_does_not_determine_stays_as_it_is(calibrator: Calibrator, size: int, wrong: bool, doubt: str) -> None:
    logits, label = examples(size)
    label = label if wrong else logits.argmax(-1)
    found = calibrator.calibrate(logits, label)
    assert found.map == IDENTITY and doubt in (found.doubt or "")
    assert calibrator.calibrate(logits, label, certain=True).doubt is None


@pytest.mark.parametrize("calibrator", ALL[1:2] + TOP)
def test_some_examples_are_needed(calibrator: Calibrator) -> None:
    for certain in (False, True):
        with pytest.raises(ValueError, match="calibration=none"):
            calibrator.calibrate(torch.zeros(0, 5), torch.zeros(0, dtype=torch.long), certain)
        one = calibrator.calibrate(torch.eye(5)[:1], torch.zeros(1, dtype=torch.long), certain=True).map
        assert one(torch.eye(5)).isfinite().all()


def test_the_members_of_an_ensemble_have_their_own_maps() -> None:
    def member(mapping: CalibrationMap) -> OnlineTeacher:
        teacher = OnlineTeacher(Network("cifar_resnet8", 5, 3))
        teacher.calibration = mapping
        return teacher

    maps = [VectorScaling().fit(*examples(500)), IsotonicRegression().calibrate(*examples(500)).map]
    ensemble = Ensemble({name: member(mapping) for name, mapping in zip("ab", maps, strict=True)})
    raw = torch.stack([examples(20)[0]] * 2)
    assert torch.equal(ensemble.calibrated(raw), torch.stack([mapping(raw[0]) for mapping in maps]))


@pytest.mark.long
def test_two_ranks_find_the_map_of_one(tmp_path: Path) -> None:
    other = subprocess.Popen([sys.executable, __file__, str(tmp_path)], stderr=subprocess.PIPE, text=True)
    try:
        first = share(tmp_path, 0)
        _, error = other.communicate(timeout=300)
        assert other.returncode == 0, error
    finally:
        other.kill()
    assert json.loads((tmp_path / "other.json").read_text()) == first
    logits, label = examples(1501)
    for calibrator, card in zip(ALL, first, strict=True):
        alone = calibrator.calibrate(3 * logits, label).map
        torch.testing.assert_close(of_card({"calibration": card})(logits), alone(logits), rtol=1e-4, atol=1e-4)


def share(folder: Path, rank: int) -> list[dict[str, object]]:
    """The maps that one of two ranks finds, which have rows 0-799 and 800-1500."""
    meet, patience = f"file://{folder}/meet", timedelta(seconds=300)
    torch.distributed.init_process_group("gloo", init_method=meet, rank=rank, world_size=2, timeout=patience)
    logits, label = examples(1501)
    mine = slice(0, 800) if rank == 0 else slice(800, None)
    try:
        return [calibrator.calibrate(3 * logits[mine], label[mine]).map.card for calibrator in ALL]
    finally:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    cards = share(Path(sys.argv[1]), 1)
    (Path(sys.argv[1]) / "other.json").write_text(json.dumps(cards))
