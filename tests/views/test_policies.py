"""View policies: `same` is one region, `ind` is two, `fix` never moves the teacher."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdx.types import Draw, View
from kdx.views.crops import Center, Crop, Inception, Pad, Resize
from kdx.views.policies import SeparateViews, SharedView, ViewPolicy

N = 10_000
random_crops = st.sampled_from([Inception(), Inception(law="area"), Pad(0.25)])
fixed_crops = st.sampled_from([Resize(), Center(0.875), Center(1.0)])
policies = st.one_of(
    st.builds(SharedView, random_crops),
    st.builds(SeparateViews, random_crops, random_crops),
    st.builds(SeparateViews, fixed_crops, random_crops),
)


def views(policy: ViewPolicy, index: np.ndarray, *, seed: int = 0, epoch: int = 0, flip: bool = True) -> tuple[View, View]:
    sizes = np.stack([30 + index % 7, 40 + index % 5], 1)
    return policy.views(Draw(seed, epoch, 0, index), sizes, flip)


def table(view: View) -> np.ndarray:
    return np.concatenate([view.box, view.flip[:, None]], 1)


@settings(max_examples=30, deadline=None)
@given(random_crops, st.integers(), st.integers(0, 300))
def test_same_is_one_view_for_both_networks_and_new_every_epoch(crop: Crop, seed: int, epoch: int) -> None:
    teacher, student = views(SharedView(crop), np.arange(64), seed=seed, epoch=epoch)
    later, _ = views(SharedView(crop), np.arange(64), seed=seed, epoch=epoch + 1)
    assert teacher is student
    assert (table(teacher) != table(later)).any(1).mean() > 0.5


@pytest.mark.parametrize("crop", [Inception(), Inception(law="area"), Pad(0.25)])
def test_ind_gives_the_networks_uncorrelated_views_of_one_law(crop: Crop) -> None:
    teacher, student = (table(v) for v in views(SeparateViews(crop, crop), np.arange(N)))
    moving = teacher.std(0) > 0
    both = np.corrcoef(teacher[:, moving].T, student[:, moving].T)
    assert np.abs(both[: moving.sum(), moving.sum() :]).max() < 4 / N**0.5
    np.testing.assert_allclose(teacher.mean(0), student.mean(0), atol=0.02)


@settings(max_examples=30, deadline=None)
@given(fixed_crops, random_crops, st.integers(), st.integers(0, 300))
def test_fix_shows_the_teacher_one_unmirrored_view_over_epochs_and_seeds(
    still: Crop, moving: Crop, seed: int, epoch: int
) -> None:
    policy = SeparateViews(still, moving)
    first, _ = views(policy, np.arange(64))
    teacher, student = views(policy, np.arange(64), seed=seed, epoch=epoch + 1)
    np.testing.assert_array_equal(table(teacher), table(first))
    assert not teacher.flip.any()
    assert student.flip.any()


@settings(max_examples=30, deadline=None)
@given(policies, st.integers(), st.integers(0, 300), st.permutations(range(12)))
def test_a_view_does_not_depend_on_the_batch_it_is_drawn_in(
    policy: ViewPolicy, seed: int, epoch: int, order: list[int]
) -> None:
    whole = views(policy, np.arange(12), seed=seed, epoch=epoch)
    part = views(policy, np.array(order[:5]), seed=seed, epoch=epoch)
    for all_rows, some_rows in zip(whole, part, strict=True):
        np.testing.assert_array_equal(table(all_rows)[order[:5]], table(some_rows))


@pytest.mark.parametrize("crop", [Inception(), Inception(law="area"), Pad(0.25)])
def test_half_of_the_views_are_mirrored_wherever_their_boxes_lie(crop: Crop) -> None:
    view, _ = views(SharedView(crop), np.arange(N))
    assert view.flip.mean() == pytest.approx(0.5, abs=0.02)
    moving = view.box[:, view.box.std(0) > 0]
    assert np.abs(np.corrcoef(moving.T, view.flip)[-1, :-1]).max() < 4 / N**0.5


@settings(max_examples=30, deadline=None)
@given(policies)
def test_without_flip_nothing_is_mirrored_and_boxes_are_the_same(policy: ViewPolicy) -> None:
    for mirrored, plain in zip(views(policy, np.arange(64)), views(policy, np.arange(64), flip=False), strict=True):
        assert not plain.flip.any()
        np.testing.assert_array_equal(mirrored.box, plain.box)


@settings(max_examples=30, deadline=None)
@given(policies | st.builds(SharedView, fixed_crops))
def test_a_policy_says_whether_its_teachers_view_is_fixed_and_whether_views_are_shared(policy: ViewPolicy) -> None:
    first, second = (views(policy, np.arange(64), epoch=epoch) for epoch in (0, 1))
    assert policy.teacher_fixed == bool((table(first[0]) == table(second[0])).all())
    assert policy.shared == (first[0] is first[1])
