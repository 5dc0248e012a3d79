"""Mixing: FunMatch's law, big_vision's mixup, CutMix's boxes, and one blend for both networks at any resolution."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from kdx.types import Draw
from kdx.views.mixing import Blend, Cutmix, Mixing, Mixup, Pasted

EVERY = [Mixup(), Mixup(per="example"), Cutmix(), Cutmix(per="example")]


def batch(epoch: int = 0, number: int = 0, size: int = 8, seed: int = 0) -> Draw:
    """A draw of `size` examples and one in front of them."""
    return Draw(seed, epoch, number, np.arange(100, 101 + size))


def shares(mixing: Mixing, count: int) -> np.ndarray:
    if mixing.per == "example":
        return mixing.draw(batch(size=count)).lam
    return np.array([mixing.draw(batch(b // 100, b % 100, 1)).lam[0] for b in range(count)])


def paste(blend: Blend) -> Pasted:
    assert isinstance(blend, Pasted)
    return blend


@pytest.mark.parametrize("per", ["batch", "example"])
@pytest.mark.parametrize("concentration", [0.3, 1.0, 4.0])
def test_mixups_lam_follows_the_beta_law_folded_at_a_half(concentration: float, per: str) -> None:
    law = stats.beta(concentration, concentration)
    lam = shares(Mixup(concentration, per), 4000)
    assert stats.kstest(lam, lambda x: np.where(x < 0.5, 0, law.cdf(x) - law.cdf(1 - x))).pvalue > 1e-3


def test_funmatchs_lam_is_between_a_half_and_one_with_mean_three_quarters() -> None:
    lam = shares(Mixup(), 4000)
    assert 0.5 <= lam.min() < 0.51 and 0.99 < lam.max() <= 1
    assert lam.mean() == pytest.approx(0.75, abs=0.01)


@pytest.mark.parametrize("mixing", [Mixup(), Cutmix()])
def test_per_batch_all_examples_of_the_global_batch_share_one_lam_so_ranks_agree(mixing: Mixing) -> None:
    lam = mixing.draw(batch(2, 1, seed=3)).lam
    assert len(lam) == 8 and len(set(lam)) == 1
    assert (mixing.draw(Draw(3, 2, 1, np.arange(7))).lam == lam[0]).all()
    others = [batch(2, 1, seed=4), batch(3, 1, seed=3), batch(2, 2, seed=3)]
    assert len({float(mixing.draw(d).lam[0]) for d in others} | {float(lam[0])}) == 4


@pytest.mark.parametrize("mixing", [Mixup(per="example"), Cutmix(per="example")])
def test_per_example_lam_depends_on_the_example_and_epoch_alone(mixing: Mixing) -> None:
    draw = batch(2, 1)
    lam = mixing.draw(draw).lam
    assert len(set(lam)) == 8
    later = mixing.draw(Draw(0, 2, 5, draw.index[3:])).lam  # another batch: the partner's own number plays no part
    np.testing.assert_array_equal(later, lam[3:])
    assert not (mixing.draw(batch(3, 1)).lam == lam).any()


@pytest.mark.parametrize("number", range(4))
def test_images_and_targets_mix_as_in_big_vision_when_the_halo_holds_the_last_example(number: int) -> None:
    images, target = torch.rand(6, 3, 4, 4), torch.eye(6)
    halo_first = lambda x: torch.cat([x[-1:], x])  # noqa: E731 - short
    blend = Mixup().draw(batch(number=number, size=6))
    lam = float(blend.lam[0])
    reference = lambda x: lam * x + (1 - lam) * torch.roll(x, 1, 0)  # noqa: E731 - short
    given = halo_first(images), halo_first(target)
    torch.testing.assert_close(blend.images(given[0]), reference(images))
    torch.testing.assert_close(blend.target(given[1]), reference(target))
    assert torch.equal(given[0], halo_first(images)) and torch.equal(given[1], halo_first(target))  # left as they were


@pytest.mark.parametrize("mixing", EVERY)
def test_the_share_of_an_example_in_its_image_and_in_its_target_is_its_lam_at_two_resolutions(mixing: Mixing) -> None:
    blend = mixing.draw(batch(size=16))
    marks = torch.zeros(17, 1)
    for own in range(16):
        mark = marks.clone()
        mark[own + 1] = 1
        for resolution in (224, 57):
            images = mark[:, :, None, None].expand(17, 1, resolution, resolution)
            share = blend.images(images).double().mean((1, 2, 3))
            assert share[own].item() == pytest.approx(blend.lam[own], abs=1e-6)
        assert blend.target(mark)[own].item() == pytest.approx(blend.lam[own], abs=1e-6)
    for resolution in (224, 57):
        assert torch.equal(blend.images(torch.ones(17, 3, resolution, resolution)), torch.ones(16, 3, resolution, resolution))
    target = torch.rand(17, 5)
    torch.testing.assert_close(blend.target(target / target.sum(1, keepdim=True)).sum(1), torch.ones(16))


@pytest.mark.parametrize("mixing", EVERY)
def test_blends_at_two_resolutions_show_one_picture(mixing: Mixing) -> None:
    images = torch.rand(9, 3, 14, 14).repeat_interleave(16, 2).repeat_interleave(16, 3)  # 224 px
    small = torch.nn.functional.avg_pool2d(images, 8)  # 28 px: each holds whole blocks
    blend = mixing.draw(batch())
    means = torch.nn.functional.avg_pool2d(blend.images(images), 8)
    torch.testing.assert_close(means, blend.images(small), rtol=0, atol=1e-5)


def test_cutmix_pastes_the_partners_own_pixels_and_leaves_the_rest() -> None:
    images = torch.rand(9, 3, 64, 64)
    blend = paste(Cutmix(per="example").draw(batch()))
    mixed = blend.images(images)
    for number, (top, left, height, width) in enumerate(blend.box * 64):
        inside = torch.zeros(64, 64, dtype=torch.bool)
        inside[int(np.ceil(top)) : int(top + height), int(np.ceil(left)) : int(left + width)] = True
        outside = torch.ones(64, 64, dtype=torch.bool)
        outside[int(top) : int(np.ceil(top + height)), int(left) : int(np.ceil(left + width))] = False
        torch.testing.assert_close(mixed[number][:, inside], images[number][:, inside])
        assert torch.equal(mixed[number][:, outside], images[number + 1][:, outside])


@settings(max_examples=50, deadline=None)
@given(st.floats(0.05, 20), st.integers(), st.integers(0, 300))
def test_cutmix_boxes_lie_in_the_view_and_leave_lam(concentration: float, seed: int, epoch: int) -> None:
    blend = paste(Cutmix(concentration, "example").draw(batch(epoch, seed=seed, size=100)))
    assert (blend.box >= 0).all() and (blend.box[:, :2] + blend.box[:, 2:] <= 1 + 1e-12).all()
    np.testing.assert_allclose(blend.lam, 1 - blend.box[:, 2] * blend.box[:, 3], atol=1e-12)
    uncut = (blend.box[:, :2] > 0).all(1) & (blend.box[:, :2] + blend.box[:, 2:] < 1).all(1)
    np.testing.assert_allclose(blend.box[uncut, 2], blend.box[uncut, 3], atol=1e-12)


@pytest.mark.parametrize("concentration", [0.3, 1.0, 4.0])
def test_cutmixs_lam_has_the_law_of_the_papers_sampler(concentration: float) -> None:
    rng = np.random.default_rng(0)  # Yun et al. 2019, algorithm 1, in fractions
    half = np.sqrt(1 - rng.beta(concentration, concentration, 20_000))[:, None] / 2
    center = rng.uniform(size=(20_000, 2))
    theirs = 1 - (np.clip(center + half, 0, 1) - np.clip(center - half, 0, 1)).prod(1)
    assert stats.ks_2samp(shares(Cutmix(concentration, "example"), 4000), theirs).pvalue > 1e-3


@pytest.mark.parametrize("mixing", EVERY)
def test_half_precision_and_an_empty_batch_are_no_trouble(mixing: Mixing) -> None:
    blend = mixing.draw(batch(size=0))
    assert blend.images(torch.rand(1, 3, 8, 8)).shape == (0, 3, 8, 8) and blend.target(torch.rand(1, 5)).shape == (0, 5)
    assert mixing.draw(batch()).target(torch.rand(9, 5, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("kind", [Mixup, Cutmix])
@pytest.mark.parametrize("concentration", [0, -1, float("nan"), float("inf")])
def test_a_concentration_that_is_no_positive_number_is_refused(kind: type[Mixup] | type[Cutmix], concentration: float) -> None:
    with pytest.raises(ValueError, match="concentration"):
        kind(concentration=concentration)


@pytest.mark.parametrize("kind", [Mixup, Cutmix])
def test_a_share_per_nothing_known_is_refused(kind: type[Mixup] | type[Cutmix]) -> None:
    with pytest.raises(ValueError, match="per"):
        kind(per="epoch")
