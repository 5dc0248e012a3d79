"""Logits of a large split are on disk, and give the same numbers as in memory."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from torch import Tensor

from kdx.teachers import calibration
from kdx.teachers.calibration import TemperatureScaling
from kdx.training import logit_store
from kdx.training.logit_store import LogitStore


def examples(count: int, num_classes: int, scale: float) -> tuple[Tensor, Tensor]:
    """float32 logits [N,K] and labels that are drawn from the softmax of logits / scale."""
    g = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(count, num_classes, generator=g)
    return scale * logits, torch.multinomial(logits.softmax(-1), 1, generator=g)[:, 0]


def stored(logits: Tensor) -> LogitStore:
    store = LogitStore()
    for batch in logits.split(64):
        store.append(batch)
    return store


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0, 30.0])
def test_the_temperature_from_disk_is_that_from_memory_and_that_of_another_optimizer(
    scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits, label = examples(1000, 20, scale)
    found = TemperatureScaling().calibrate(logits, label)
    monkeypatch.setattr(logit_store, "IN_MEMORY", 10_000)
    monkeypatch.setattr(calibration, "PIECE", 600)
    store = stored(logits)
    assert store._file is not None and torch.equal(torch.cat(list(store)), logits)
    assert torch.equal(store[-1], logits[960:]) and torch.equal(store[3], logits[192:256])
    streamed = TemperatureScaling().calibrate(store, label.split(64))
    assert streamed.temperature == pytest.approx(found.temperature, rel=1e-9)

    def nll(log_temperature: float) -> float:
        return float(F.cross_entropy(logits.double() / torch.tensor(log_temperature).double().exp(), label))

    best = minimize_scalar(nll, bounds=(-4.6, 4.6), method="bounded", options={"xatol": 1e-9}).x
    assert found.temperature == pytest.approx(float(torch.tensor(best).exp()), rel=1e-5)


def test_few_steps_suffice_whatever_the_scale() -> None:
    for scale in (1e-3, 0.02, 1.0, 50.0, 1e3):
        logits, label = examples(500, 10, scale)
        assert TemperatureScaling(12).fit(logits, label) == TemperatureScaling().fit(logits, label)


def test_a_full_disk_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def close(self) -> None: ...

        def seek(self, *place: int) -> int:
            return 0

        def write(self, content: bytes) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(logit_store, "IN_MEMORY", 0)
    monkeypatch.setattr(logit_store.tempfile, "TemporaryFile", Full)
    with pytest.raises(OSError, match="set TMPDIR to a folder with space"):
        LogitStore().append(torch.zeros(2, 3))
