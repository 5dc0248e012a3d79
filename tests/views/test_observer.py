"""The observer: who sees which pixels, with and without mixing, on one rank or two."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from kdx.data.loaders import ResidentLoader
from kdx.data.sampler import Sampler
from kdx.data.source import ArrayImages
from kdx.ranges import ShapeError
from kdx.types import Batch, Draw, Pair, RenderedBatch, View
from kdx.views.augmentations import Augmentation
from kdx.views.crops import Center, Crop, Inception, Pad, Resize
from kdx.views.mixing import Mixup
from kdx.views.observer import Observer
from kdx.views.policies import SeparateViews, SharedView, ViewPolicy

RNG = np.random.default_rng(0)
IMAGES = ArrayImages(RNG.integers(0, 256, (22, 3, 24, 20), np.uint8), RNG.integers(0, 5, 22))
FIX = SeparateViews(Resize(), Inception())
IND = SeparateViews(Inception(), Inception())


def epoch(
    observer: Observer, epoch: int = 0, *, rank: int = 0, world: int = 1, images: ArrayImages = IMAGES
) -> list[RenderedBatch]:
    sampler = Sampler(len(images), 8, train=True, halo=observer.halo, rank=rank, world=world)
    return list(ResidentLoader(images, sampler, observer.look, lambda: (epoch, 0)))


def first(observer: Observer, number: int = 0, **where: int) -> Batch:
    return observer.finish(epoch(observer, number, **where)[0])


def teacher_images(batch: Batch) -> Tensor:
    assert batch.teacher_images is not None
    return batch.teacher_images


@pytest.mark.parametrize("mixing", [None, Mixup()], ids=["plain", "mixup"])
@pytest.mark.parametrize("crop", [Inception(), Pad()])
def test_same_at_one_resolution_hands_both_networks_one_tensor(crop: Crop, mixing: Mixup | None) -> None:
    batch = first(Observer(SharedView(crop), Pair(16, 16), 5, mixing=mixing, flip=True))
    assert batch.teacher_images is batch.student_images


@pytest.mark.parametrize("mixing", [None, Mixup()], ids=["plain", "mixup"])
@pytest.mark.parametrize("resolution", [Pair(16, 8), Pair(8, 16)])
def test_same_at_two_resolutions_shows_one_region_each_drawn_from_the_original(resolution: Pair, mixing: Mixup | None) -> None:
    policy = SharedView(Inception())
    both = first(Observer(policy, resolution, 5, mixing=mixing, flip=True))
    for images, own in ((teacher_images(both), resolution.teacher), (both.student_images, resolution.student)):
        alone = first(Observer(policy, Pair(own, own), 5, mixing=mixing, flip=True))
        assert torch.equal(images, alone.student_images)


def test_fix_shows_the_teacher_equal_pixels_in_every_epoch_and_the_student_new_ones() -> None:
    shown: list[dict[int, tuple[Tensor, Tensor]]] = []
    for number in (0, 1):
        observer = Observer(FIX, Pair(12, 12), 5, flip=True)
        batches = [(seen.draw.index, observer.finish(seen)) for seen in epoch(observer, number)]
        rows = [(i, t, s) for index, b in batches for i, t, s in zip(index, teacher_images(b), b.student_images, strict=True)]
        shown.append({int(i): (t, s) for i, t, s in rows})
    both = shown[0].keys() & shown[1].keys()
    assert len(both) >= 10
    assert all(torch.equal(shown[0][i][0], shown[1][i][0]) for i in both)
    assert not any(torch.equal(shown[0][i][1], shown[1][i][1]) for i in both)


def test_ind_shows_the_networks_different_pixels() -> None:
    batch = first(Observer(IND, Pair(16, 16), 5))
    assert ((teacher_images(batch) - batch.student_images).abs().amax((1, 2, 3)) > 0.02).all()


@pytest.mark.parametrize("mixing", [None, Mixup()], ids=["plain", "mixup"])
def test_nothing_is_rendered_for_a_teacher_that_is_not_there(mixing: Mixup | None) -> None:
    with_teacher = first(Observer(SharedView(Inception()), Pair(16, 8), 5, mixing=mixing))
    without = first(Observer(SharedView(Inception()), Pair(16, 8), 5, mixing=mixing, teacher=False))
    assert without.teacher_images is None
    assert torch.equal(without.student_images, with_teacher.student_images)


@pytest.mark.parametrize("policy", [IND, FIX], ids=["ind", "fix"])
def test_mixing_separate_views_is_refused_with_the_remedy(policy: SeparateViews) -> None:
    with pytest.raises(ValueError, match="use views=same, or mixing=none"):
        Observer(policy, Pair(16, 16), 5, mixing=Mixup())


def test_mixup_blends_each_example_with_its_predecessor_in_the_batch_and_its_target_alike() -> None:
    plain, mixed = (Observer(SharedView(Inception()), Pair(16, 16), 5, mixing=m, flip=True) for m in (None, Mixup()))
    for own, blend in zip(epoch(plain), epoch(mixed), strict=True):
        lam = float(Mixup().draw(blend.draw).lam[0])
        before, after = plain.finish(own), mixed.finish(blend)
        assert len(blend.student) == len(own.student) + 1 and len(after) == len(own.student)  # the halo came and went
        assert after.label is not None and before.label is not None and torch.equal(after.label, before.label)
        assert before.mixed_target is None
        own_target = F.one_hot(before.label, 5).float()
        for x, y in ((before.student_images, after.student_images), (own_target, after.mixed_target)):
            assert x is not None and y is not None
            torch.testing.assert_close(y, lam * x + (1 - lam) * x.roll(1, 0), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("policy", "mixing"),
    [
        (IND, None),
        (FIX, None),
        (SharedView(Pad()), None),
        (SharedView(Pad()), Mixup()),
        (SharedView(Inception()), Mixup()),
    ],
)
@pytest.mark.parametrize("world", [2, 4])
def test_the_ranks_batches_side_by_side_are_the_batch_of_one_rank(
    policy: SharedView | SeparateViews, mixing: Mixup | None, world: int
) -> None:
    observer = Observer(policy, Pair(16, 12), 5, mixing=mixing, flip=True)
    ranks = [[observer.finish(e) for e in epoch(observer, rank=rank, world=world)] for rank in range(world)]
    for one, *parts in zip([observer.finish(e) for e in epoch(observer)], *ranks, strict=True):
        # Matrix products of other widths may sum in another order, so pixels may differ in the last bit.
        tolerances = {"student_images": 5e-7, "teacher_images": 5e-7, "label": 0}
        for name, tolerance in (tolerances | ({} if mixing is None else {"mixed_target": 0})).items():
            together = torch.cat([getattr(part, name) for part in parts])
            torch.testing.assert_close(together, getattr(one, name), rtol=0, atol=tolerance)


@pytest.mark.parametrize("mixing", [None, Mixup()], ids=["plain", "mixup"])
def test_images_without_labels_are_seen_without_label_and_target(mixing: Mixup | None) -> None:
    observer = Observer(SharedView(Center(1.0)), Pair(16, 16), 5, mixing=mixing)
    bare = ArrayImages(IMAGES.images, None)
    unlabeled, labeled = (observer.finish(epoch(observer, images=images)[0]) for images in (bare, IMAGES))
    assert unlabeled.label is None and unlabeled.mixed_target is None
    assert torch.equal(unlabeled.student_images, labeled.student_images)


def test_the_students_resolution_is_drawn_from_several_once_a_batch_and_evenly() -> None:
    observer = Observer(SharedView(Inception()), Pair(16, 12), 5, student_resolutions=[8, 10, 12])
    sides = [seen.student.shape[-1] for number in range(60) for seen in epoch(observer, number)]
    assert set(sides) == {8, 10, 12}
    assert all(0.2 < sides.count(side) / len(sides) < 0.47 for side in (8, 10, 12))
    assert all(seen.teacher is not None and seen.teacher.shape[-1] == 16 for seen in epoch(observer))


def test_the_baseline_hands_the_teacher_the_students_own_pixels() -> None:
    batch = first(Observer(SharedView(Inception()), Pair(16, 8), 5, teacher_sees_students=True))
    assert batch.teacher_images is batch.student_images
    assert batch.student_images.shape[-1] == 8


@pytest.mark.parametrize(("policy", "alike"), [(SharedView(Resize()), True), (SeparateViews(Resize(), Resize()), False)])
def test_augmentation_is_drawn_once_under_a_shared_view_and_twice_under_separate_ones(
    policy: SharedView | SeparateViews, alike: bool
) -> None:
    class Shade(Augmentation):
        """Takes a number off every image."""

        draws = 1

        def apply(self, images: Tensor, numbers: NDArray[np.float64]) -> Tensor:
            return images - torch.from_numpy(numbers).float()[:, :, None, None]

    plain, shaded = (first(Observer(policy, Pair(16, 8), 5, augmentation=a)) for a in (None, Shade()))
    teacher = (teacher_images(plain) - teacher_images(shaded)).mean((1, 2, 3))
    student = (plain.student_images - shaded.student_images).mean((1, 2, 3))
    assert torch.allclose(teacher, student, atol=1e-5) == alike
    assert student.std() > 0.1


class Mirrored(SharedView):
    """A policy that a user wrote, whose flips have an axis too many."""

    def views(self, draw: Draw, sizes: NDArray[np.int64], flip: bool) -> tuple[View, View]:
        view, _ = super().views(draw, sizes, flip)
        return view, View(view.box, view.flip[:, None])


class Boxless(SharedView):
    """A sibling that gives one box for all."""

    def views(self, draw: Draw, sizes: NDArray[np.int64], flip: bool) -> tuple[View, View]:
        view, _ = super().views(draw, sizes, flip)
        return View(view.box[0], view.flip), view


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (Mirrored(Inception()), r"policy Mirrored returned flips of shape \[8, 1\]; expected \[8\]: return one bool"),
        (Boxless(Inception()), r"policy Boxless returned boxes of shape \[4\]; expected \[8, 4\]: return top, left"),
    ],
    ids=["flips", "boxes"],
)
def test_views_of_another_shape_are_refused_by_the_policys_name(policy: SharedView, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        first(Observer(policy, Pair(16, 16), 5))


@pytest.mark.parametrize("policy", [SharedView, lambda crop, **which: SeparateViews(crop, crop, **which)], ids=["same", "ind"])
def test_views_are_those_of_their_own_seed_and_are_repeated_after_the_distinct_epochs(
    policy: Callable[..., ViewPolicy],
) -> None:
    def seen(number: int, **which: int) -> dict[int, Tensor]:
        observer = Observer(policy(Inception(), **which), Pair(8, 6), 5, flip=True)
        batches = map(observer.finish, epoch(observer, number))
        return {i: image for b in batches if b.index is not None for i, image in zip(b.index.tolist(), teacher_images(b))}

    def equal(one: dict[int, Tensor], other: dict[int, Tensor]) -> bool:
        return all(torch.equal(one[i], other[i]) for i in one.keys() & other.keys())

    assert equal(seen(7, distinct_epochs=3), seen(1)) and not equal(seen(7), seen(1))
    assert equal(seen(0, seed=0), seen(0)) and not equal(seen(0, seed=1), seen(0))
    assert list(seen(7, distinct_epochs=3)) == list(seen(7))  # without mixing, the order is not repeated


def test_the_order_follows_the_views_only_if_they_depend_on_it() -> None:
    policy = SharedView(Inception(), seed=4, distinct_epochs=3)
    plain, mixed = (Observer(policy, Pair(8, 8), 5, mixing=mixing) for mixing in (None, Mixup()))
    drawn = Observer(policy, Pair(8, 8), 5, student_resolutions=(4, 8), teacher_sees_students=True)
    assert [observer.order(9, 7) for observer in (plain, mixed, drawn)] == [(9, 7), (4, 1), (4, 1)]
