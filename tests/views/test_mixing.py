"""Mixing: FunMatch's law, and big_vision's mixup."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from kdx.types import Draw
from kdx.views.mixing import Mixup

NOBODY = np.zeros(0, np.int64)


def shares(mixup: Mixup, count: int) -> np.ndarray:
    return np.array([mixup.share(Draw(0, b // 100, b % 100, NOBODY)) for b in range(count)])


@pytest.mark.parametrize("concentration", [0.3, 1.0, 4.0])
def test_lam_follows_the_beta_law_folded_at_a_half(concentration: float) -> None:
    law = stats.beta(concentration, concentration)
    lam = shares(Mixup(concentration), 4000)
    assert stats.kstest(lam, lambda x: np.where(x < 0.5, 0, law.cdf(x) - law.cdf(1 - x))).pvalue > 1e-3


def test_funmatchs_lam_is_between_a_half_and_one_with_mean_three_quarters() -> None:
    lam = shares(Mixup(), 4000)
    assert 0.5 <= lam.min() < 0.51 and 0.99 < lam.max() <= 1
    assert lam.mean() == pytest.approx(0.75, abs=0.01)


def test_lam_depends_on_the_global_batch_alone_so_ranks_agree() -> None:
    mixup, draw = Mixup(), Draw(3, 2, 1, np.arange(8))
    assert mixup.share(draw) == mixup.share(Draw(3, 2, 1, np.arange(100, 104)))
    others = [Draw(4, 2, 1, draw.index), Draw(3, 3, 1, draw.index), Draw(3, 2, 2, draw.index)]
    assert len({mixup.share(d) for d in (draw, *others)}) == 4


@pytest.mark.parametrize("lam", [0.5, 0.625, 1.0])
def test_images_and_targets_mix_as_in_big_vision_when_the_halo_holds_the_last_example(lam: float) -> None:
    images, target = torch.rand(6, 3, 4, 4), torch.eye(6)
    halo_first = lambda x: torch.cat([x[-1:], x])  # noqa: E731
    reference = lambda x: lam * x + (1 - lam) * torch.roll(x, 1, 0)  # noqa: E731
    given = halo_first(images), halo_first(target)
    torch.testing.assert_close(Mixup().mix(given[0], lam), reference(images))
    torch.testing.assert_close(Mixup().mix_target(given[1], lam), reference(target))
    assert torch.equal(given[0], halo_first(images)) and torch.equal(given[1], halo_first(target))  # left as they were


@pytest.mark.parametrize("concentration", [0, -1, float("nan"), float("inf")])
def test_a_concentration_that_is_no_positive_number_is_refused(concentration: float) -> None:
    with pytest.raises(ValueError, match="concentration"):
        Mixup(concentration=concentration)
