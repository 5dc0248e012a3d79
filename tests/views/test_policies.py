"""View policies: `same` is one region, `ind` is two, `fix` never moves the teacher."""

from __future__ import annotations

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from kdx.config.check import conf_dir
from kdx.ranges import ShapeError
from kdx.types import Draw, View
from kdx.views.crops import Center, Crop, Inception, Mild, Pad, Resize
from kdx.views.policies import SeparateViews, SharedView, ViewPolicy

N = 10_000
random_crops = st.sampled_from([Inception(), Inception(law="area"), Pad(0.25), Mild()])
fixed_crops = st.sampled_from([Resize(), Center(0.875), Center(1.0)])
policies = st.one_of(
    st.builds(SharedView, random_crops),
    st.builds(SeparateViews, random_crops, random_crops),
    st.builds(SeparateViews, fixed_crops, random_crops),
    st.builds(SeparateViews, random_crops, random_crops, st.integers(2, 5)),
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


@pytest.mark.parametrize("crop", [Inception(), Inception(law="area"), Pad(0.25), Mild()])
def test_ind_gives_the_networks_uncorrelated_views_of_one_law(crop: Crop) -> None:
    teacher, student = (table(v) for v in views(SeparateViews(crop, crop), np.arange(N)))
    moving = teacher.std(0) > 1e-12
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


@pytest.mark.parametrize("crop", [Inception(), Inception(law="area"), Pad(0.25), Mild()])
def test_half_of_the_views_are_mirrored_wherever_their_boxes_lie(crop: Crop) -> None:
    view, _ = views(SharedView(crop), np.arange(N))
    assert view.flip.mean() == pytest.approx(0.5, abs=0.02)
    moving = view.box[:, view.box.std(0) > 1e-12]
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
    again = views(policy, np.arange(64), epoch=policy.teacher_crops)
    assert policy.teacher_fixed == bool((table(first[0]) == table(again[0])).all())
    if policy.teacher_crops == 1:
        assert policy.teacher_fixed == bool((table(first[0]) == table(second[0])).all())
    assert policy.shared == (first[0] is first[1])


@settings(max_examples=30, deadline=None)
@given(policies | st.builds(SharedView, fixed_crops), st.integers(0, 40), st.booleans())
def test_a_fixed_teachers_views_are_the_stored_ones_in_turn(policy: ViewPolicy, epoch: int, flip: bool) -> None:
    if not policy.teacher_fixed:
        return
    index = np.arange(32)
    sizes = np.stack([30 + index % 7, 40 + index % 5], 1)
    stored = [policy.stored_teacher_view(k, Draw(0, 7, 3, index), sizes, flip) for k in range(policy.teacher_crops)]
    seen, _ = views(policy, index, epoch=epoch, flip=flip)
    np.testing.assert_array_equal(table(seen), table(stored[epoch % policy.teacher_crops]))
    assert len({table(view).tobytes() for view in stored}) == policy.teacher_crops


def test_several_stored_crops_of_a_crop_that_never_changes_are_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match="use teacher_crops=1, or a random teacher_crop"):
        SeparateViews(Center(), Inception(), 16)


def named(*overrides: str) -> tuple[ViewPolicy, DictConfig]:
    """The policy that `kdx-train OVERRIDES` builds, and the config."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("train", ["experiment=none", *overrides])
    return instantiate(cfg.views, _convert_="all"), cfg


SHARED = ("fix_rs", "same_rc", "same_ic", "funmatch")
FIXED = ("fix_rs", "fix_cc", "fix_ic_ens")
POLICIES = {name: named(f"views={name}")[0] for name in (*SHARED, "fix_cc", "fix_ic_ens", "ind_rc", "ind_ic")}
CROPS = {  # of the teacher, of the student: methods.md 2.3
    "fix_rs": ("rs", "rs"), "fix_cc": ("cc", "rc"), "fix_ic_ens": ("ic", "ic"), "ind_rc": ("rc", "rc"), "ind_ic": ("ic", "ic"),
    "same_rc": ("rc", "rc"), "same_ic": ("ic", "ic"), "funmatch": ("ic", "ic"),
}  # fmt: skip
sides = st.integers(20, 600)


def is_of(crop: str, box: np.ndarray, height: int, width: int) -> bool:
    """Whether boxes have the geometry of the paper's crop of that name."""
    (top, left), (tall, wide) = box[:, :2].T, box[:, 2:].T
    if crop == "rs":
        return bool((box == [0, 0, 1, 1]).all())
    if crop == "cc":
        square = np.allclose(tall * height, wide * width) and np.allclose(tall * height, 0.8 * min(height, width))
        return bool(square and np.allclose(2 * top + tall, 1) and np.allclose(2 * left + wide, 1))
    if crop == "rc":
        return bool((tall == 0.8).all() and (wide == 0.8).all() and len(set(top)) > 10 and len(set(left)) > 10)
    aspect, area = wide * width / (tall * height), tall * wide
    fits = (aspect > 0.75 - 1e-9) & (aspect < 4 / 3 + 1e-9) & (area > 0.05 - 1e-9) & (area < 1 + 1e-9)
    return bool((fits | (box == [0, 0, 1, 1]).all(1)).all())


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(POLICIES)), sides, sides, st.integers(), st.integers(0, 300), st.booleans())
def test_every_named_policy_has_the_papers_geometry(
    name: str, height: int, width: int, seed: int, epoch: int, flip: bool
) -> None:
    policy, sizes = POLICIES[name], np.tile([height, width], (64, 1))
    both = policy.views(Draw(seed, epoch, 0, np.arange(64)), sizes, flip)
    for view, crop in zip(both, CROPS[name], strict=True):
        assert (view.box[:, :2] >= 0).all() and (view.box[:, :2] + view.box[:, 2:] <= 1 + 1e-12).all()
        assert is_of(crop, view.box, height, width)
        assert view.flip.any() == (flip and crop in ("rc", "ic"))


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(POLICIES)), st.integers(), st.integers(0, 300))
def test_every_named_policy_shares_moves_and_keeps_its_views_as_its_name_says(name: str, seed: int, epoch: int) -> None:
    policy = POLICIES[name]
    now, next_ = (views(policy, np.arange(64), seed=seed, epoch=epoch + more) for more in (0, policy.teacher_crops))
    assert policy.shared == (now[0] is now[1]) == (name in SHARED)
    assert policy.teacher_fixed == bool((table(now[0]) == table(next_[0])).all()) == (name in FIXED)
    assert bool((table(now[1]) == table(next_[1])).all()) == (name == "fix_rs")
    if name not in SHARED:
        assert not (now[0].box[:, :2] == now[1].box[:, :2]).all(1).any()


@pytest.mark.parametrize("name", ["ind_rc", "ind_ic", "fix_ic_ens"])
def test_named_policies_with_two_random_views_draw_them_independently(name: str) -> None:
    teacher, student = (table(view) for view in views(POLICIES[name], np.arange(N)))
    moving = teacher.std(0) > 1e-12
    both = np.corrcoef(teacher[:, moving].T, student[:, moving].T)
    assert np.abs(both[: moving.sum(), moving.sum() :]).max() < 4 / N**0.5


def test_funmatch_is_same_ic_and_mixup_and_the_command_line_wins() -> None:
    same, _ = named("views=same_ic")
    policy, cfg = named("views=funmatch")
    assert vars(policy).keys() == vars(same).keys() and isinstance(policy, SharedView)
    assert cfg.mixing["_target_"].endswith("Mixup")
    assert named("views=funmatch", "mixing=cutmix")[1].mixing["_target_"].endswith("Cutmix")
    assert not named("views=funmatch", "mixing=none")[1].mixing
    _, mild = named("views=funmatch", "crop@views.crop=mild")
    assert OmegaConf.to_container(mild.views) == OmegaConf.to_container(named("views=same_rc")[1].views)
    assert not named("views=same_ic")[1].mixing


class Column(Crop):
    """A crop that a user wrote, which forgets an axis."""

    def boxes(self, uniform: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        return np.ones(4)


class Narrow(Column):
    """A sibling with two numbers per image."""

    def boxes(self, uniform: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        return np.ones((len(sizes), 2))


@pytest.mark.parametrize(("crop", "shape"), [(Column(), r"\[4\]"), (Narrow(), r"\[6, 2\]")], ids=["column", "narrow"])
def test_boxes_of_another_shape_are_refused_by_the_crops_name(crop: Crop, shape: str) -> None:
    for policy in (SharedView(crop), SeparateViews(Resize(), crop)):
        with pytest.raises(
            ShapeError, match=rf"crop {type(crop).__name__} returned boxes of shape {shape}; expected \[6, 4\]: "
        ):
            views(policy, np.arange(6))
