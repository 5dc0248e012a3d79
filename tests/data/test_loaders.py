"""Loaders: resident and streamed, with or without workers, give identical examples."""

from __future__ import annotations

import gc
import itertools
import multiprocessing
from collections.abc import Callable, Iterable
from multiprocessing.process import BaseProcess

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.utils.data import _utils

from kdx.data.loaders import Loader, Position, ResidentLoader, StreamedLoader, workers
from kdx.data.resident import Resident, TooLargeError
from kdx.data.sampler import Sampler
from kdx.data.source import ArrayImages, BadImageError, Images, Subset, check_labels
from kdx.ranges import ShapeError
from kdx.types import Examples, Pair, RenderedBatch
from kdx.views.crops import Inception
from kdx.views.mixing import Cutmix, Mixing, Mixup
from kdx.views.observer import Observer
from kdx.views.policies import SharedView


class Uneven(Images):
    """Images whose size and pixels are functions of their index."""

    def __init__(self, count: int) -> None:
        self.count, self.labels = count, np.arange(count) % 7

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        size = (3, 5 + index % 4, 4 + index % 9)
        return np.random.default_rng(index).integers(0, 256, size, np.uint8)


EVEN = ArrayImages(np.random.default_rng(0).integers(0, 256, (50, 1, 6, 7), np.uint8), np.arange(50) % 7)


def as_canvas(examples: Examples) -> RenderedBatch:
    """Looks at nothing: hands on the whole images, each in the top left corner of one canvas."""
    images = examples.images
    if isinstance(images, list):
        canvas = torch.zeros(len(images), len(images[0]), *examples.sizes.max(0).tolist(), dtype=torch.uint8)
        for row, image in zip(canvas, images, strict=True):
            row[:, : image.shape[1], : image.shape[2]] = image
        images = canvas
    return RenderedBatch(examples.draw, images, None, examples.label, examples.halo)


Build = Callable[[Images, Sampler, Position], Loader]
BUILDS: dict[str, Build] = {
    "resident": lambda images, order, position: ResidentLoader(images, order, as_canvas, position),
    "resident, three at once": lambda images, order, position: ResidentLoader(images, order, as_canvas, position, at_once=3),
    "streamed": lambda images, order, position: StreamedLoader(images, order, as_canvas, position),
    "two workers": lambda images, order, position: StreamedLoader(images, order, as_canvas, position, num_workers=2),
}
every_loader = pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS)


@pytest.mark.parametrize(
    ("asked", "gpus", "cores", "given"),
    [
        (3, 2, 8, 3),
        (0, 1, 8, 0),
        ("auto", 0, 8, 0),
        ("auto", 1, 8, 8),
        ("auto", 3, 8, 2),
        ("auto", 8, 4, 1),
        ("auto", 2, 99, 16),
    ],
)
def test_cores_are_shared_among_gpus(monkeypatch: pytest.MonkeyPatch, asked: int, gpus: int, cores: int, given: int) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(cores)), raising=False)
    assert workers(asked, gpus) == given


def positions(*places: tuple[int, int]) -> Position:
    remaining = iter(places)
    return lambda: next(remaining)


def assert_is_the_plan(found: Iterable[RenderedBatch], images: Images, order: Sampler, epoch: int, first: int = 0) -> None:
    """Each example is, pixel by pixel, what the images say of the index that the sampler planned there."""
    for examples, (number, index) in itertools.zip_longest(found, order.batches(epoch, first)):
        assert (examples.draw.seed, examples.draw.epoch, examples.draw.batch) == (order.seed, epoch, number)
        np.testing.assert_array_equal(examples.draw.index, index)
        assert examples.halo == order.halo and examples.student.dtype == torch.uint8
        assert images.labels is not None
        np.testing.assert_array_equal(examples.label, images.labels[index])
        for canvas, i in zip(examples.student.numpy(), index, strict=True):
            height, width = images[int(i)].shape[1:]
            np.testing.assert_array_equal(canvas[:, :height, :width], images[int(i)])
            assert canvas[:, height:].sum() == canvas[:, :, width:].sum() == 0


@every_loader
@pytest.mark.parametrize("halo", [0, 1])
@pytest.mark.parametrize("images", [EVEN, Uneven(50)], ids=["even", "uneven"])
def test_every_loader_gives_the_planned_examples_over_two_epochs(build: Build, images: Images, halo: int) -> None:
    order = Sampler(50, 8, seed=5, train=True, halo=halo)
    loader = build(images, order, positions((3, 0), (4, 0)))
    assert_is_the_plan(loader, images, order, 3)
    assert_is_the_plan(loader, images, order, 4)


@every_loader
def test_every_loader_continues_where_a_run_was_cut_off_and_then_begins_anew(build: Build) -> None:
    order = Sampler(50, 8, train=True)
    loader = build(EVEN, order, positions((2, 4), (3, 0)))
    assert_is_the_plan(loader, EVEN, order, 2, 4)
    assert_is_the_plan(loader, EVEN, order, 3)


@pytest.mark.parametrize("first", range(6))
def test_batches_rendered_together_are_bitwise_the_same_wherever_a_run_was_cut_off(first: int) -> None:
    observer = Observer(SharedView(Inception()), Pair(8, 5), 7, mixing=Mixup(), flip=True)
    order = Sampler(50, 8, train=True, halo=1)
    whole = list(ResidentLoader(Uneven(50), order, observer.look, lambda: (2, 0), at_once=4))
    apart = list(ResidentLoader(Uneven(50), order, observer.look, lambda: (2, 0)))
    rest = list(ResidentLoader(Uneven(50), order, observer.look, lambda: (2, first), at_once=4))
    for found, cut_off, alone in zip(whole[first:], rest, apart[first:], strict=True):
        batch, resumed, single = (observer.finish(rendered) for rendered in (found, cut_off, alone))
        for name in ("student_images", "teacher_images", "label", "mixed_target", "index"):
            assert torch.equal(getattr(batch, name), getattr(resumed, name))
            torch.testing.assert_close(getattr(batch, name), getattr(single, name), rtol=0, atol=1e-6)


@pytest.mark.parametrize("at_once", [1, 4])
def test_a_batch_states_the_seed_and_epoch_from_which_its_views_were_drawn(at_once: int) -> None:
    observer = Observer(SharedView(Inception(), seed=9, distinct_epochs=2), Pair(8, 5), 7)
    order = Sampler(50, 8, train=True)
    found = list(ResidentLoader(EVEN, order, observer.look, lambda: (3, 0), at_once=at_once))
    assert [(one.draw.seed, one.draw.epoch, one.draw.batch) for one in found] == [(9, 1, number) for number in range(6)]


@every_loader
def test_an_epoch_that_is_left_early_leaves_nothing_behind_for_the_next(build: Build) -> None:
    order = Sampler(50, 4, train=True)
    loader = build(EVEN, order, positions((0, 0), (1, 0)))
    next(iter(loader))
    assert_is_the_plan(loader, EVEN, order, 1)


@every_loader
def test_evaluation_ends_with_the_short_batch(build: Build) -> None:
    order = Sampler(50, 8)
    loader = build(Uneven(50), order, positions((0, 0), (0, 0)))
    assert [len(examples.student) for examples in loader] == [8] * 6 + [2]
    assert_is_the_plan(loader, Uneven(50), order, 0)


@pytest.mark.parametrize(("room", "looks"), [(10**6, 7), (50 * 42 - 1, 21), (0, 21)], ids=["all", "all but a byte", "none"])
def test_what_evaluation_shows_is_rendered_once_if_there_is_room(
    monkeypatch: pytest.MonkeyPatch, room: int, looks: int
) -> None:
    seen: list[int] = []
    monkeypatch.setattr("kdx.data.loaders.KEPT", room)
    order = Sampler(50, 8)
    loader = ResidentLoader(EVEN, order, lambda examples: (seen.append(examples.draw.batch), as_canvas(examples))[1])
    next(iter(loader))  # and breaks off, as Ctrl-C does
    seen.clear()
    for _ in range(3):
        assert_is_the_plan(loader, EVEN, order, 0)
    assert len(seen) == looks


def test_training_is_rendered_in_every_epoch() -> None:
    seen: list[int] = []
    order = Sampler(50, 8, train=True)
    positions_of_two = positions((0, 0), (1, 0))
    loader = ResidentLoader(
        EVEN, order, lambda examples: (seen.append(examples.draw.epoch), as_canvas(examples))[1], positions_of_two
    )
    for epoch in range(2):
        assert_is_the_plan(loader, EVEN, order, epoch)
    assert seen == [0] * 6 + [1] * 6


def test_workers_go_at_once_even_if_their_loader_dies_in_a_cycle(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[str] = []  # by torch, after it waited for a worker that was not told to go
    monkeypatch.setattr(BaseProcess, "terminate", lambda worker: (killed.append(worker.name), worker.kill()))
    monkeypatch.setattr(_utils, "MP_STATUS_CHECK_INTERVAL", 30.0)  # seconds that it waits
    before = set(multiprocessing.active_children())
    loader = StreamedLoader(EVEN, Sampler(50, 8), as_canvas, num_workers=2)
    loader.position = lambda cycle=loader: (0, 0)  # as a trainer's does, which holds the loader
    assert len(list(loader)) == 7
    del loader
    gc.collect()
    assert set(multiprocessing.active_children()) <= before
    assert not killed


@every_loader
def test_images_without_labels_load_without_labels(build: Build) -> None:
    bare = ArrayImages(EVEN.images, None)
    assert all(examples.label is None for examples in build(bare, Sampler(50, 25), positions((0, 0))))


class Damaged(Uneven):
    """Some of the images cannot be decoded."""

    def __init__(self, count: int, bad: set[int]) -> None:
        super().__init__(count)
        self.bad = bad

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        if index in self.bad:
            raise BadImageError(f"{index}.jpg cannot be decoded")
        return super().__getitem__(index)


SKIPPING: dict[str, Callable[..., Loader]] = {
    "resident": lambda *given: ResidentLoader(*given, on_bad_image="skip"),
    "streamed": lambda *given: StreamedLoader(*given, on_bad_image="skip"),
    "two workers": lambda *given: StreamedLoader(*given, on_bad_image="skip", num_workers=2),
}


@pytest.mark.parametrize("build", SKIPPING.values(), ids=SKIPPING)
@pytest.mark.parametrize("mixing", [None, Mixup()], ids=["plain", "mixup"])
def test_skipping_a_bad_image_changes_no_other_images_view(build: Callable[..., Loader], mixing: Mixup | None) -> None:
    observer = Observer(SharedView(Inception()), Pair(8, 6), 7, mixing=mixing, flip=True)
    order = Sampler(50, 10, train=True, halo=observer.halo)
    index = [i for _, i in order.batches(0)]
    bad = {int(index[0][0]), int(index[0][3]), int(index[1][1])}  # the first is the halo of its batch
    loader = build(Damaged(50, bad), order, observer.look, positions((0, 0)))
    whole = StreamedLoader(Uneven(50), order, observer.look, positions((0, 0)))
    for found, expected in zip(loader, whole, strict=True):
        rows = {int(i): k for k, i in enumerate(expected.draw.index)}
        for k, i in enumerate(found.draw.index.tolist()):
            assert i not in bad
            difference = as_unit(found.student[k]) - as_unit(expected.student[rows[i]])
            assert difference.abs().max() <= 1 / 255 + 1e-6
        assert len(observer.finish(found)) == len(found.draw.index) - observer.halo
    assert set(loader.skipped) == bad


@pytest.mark.parametrize("build", SKIPPING.values(), ids=SKIPPING)
@pytest.mark.parametrize("mixing", [Mixup(), Cutmix(per="example")], ids=["mixup", "cutmix"])
def test_two_ranks_mix_as_one_where_images_are_bad(build: Callable[..., Loader], mixing: Mixing) -> None:
    """The last image of the first rank is the second rank's halo, and the last image of the batch the first rank's."""
    observer = Observer(SharedView(Inception()), Pair(8, 6), 7, mixing=mixing)
    one = Sampler(50, 10, train=True, halo=1)
    (_, index), *_ = one.batches(0)
    halo, batch = index[:1], index[1:]
    assert halo[0] == batch[9]
    bad = {int(batch[k]) for k in (4, 9, 2)}  # at both borders, and inside of the first rank's share
    found: dict[int, list[tuple[torch.Tensor, ...]]] = {}
    for world in (1, 2):
        for rank in range(world):
            order = Sampler(50, 10, train=True, halo=1, rank=rank, world=world)
            mixed = observer.finish(next(iter(build(Damaged(50, bad), order, observer.look, positions((0, 0))))))
            assert mixed.mixed_target is not None and mixed.index is not None
            rows = zip(mixed.index.tolist(), mixed.student_images, mixed.mixed_target, strict=True)
            found.setdefault(world, []).extend((i, image, target) for i, image, target in rows)
    assert [row[0] for row in found[1]] == [row[0] for row in found[2]] == [i for i in batch.tolist() if i not in bad]
    for (i, image, target), (_, other_image, other_target) in zip(found[1], found[2], strict=True):
        torch.testing.assert_close(image, other_image, rtol=0, atol=1e-6)
        torch.testing.assert_close(target, other_target)
        own = torch.nn.functional.one_hot(torch.tensor(i % 7), 7).float()
        place = batch.tolist().index(i)
        if int(batch[place - 1]) in bad:  # its partner is missing, so it is as it was drawn
            assert torch.equal(target, own)
        elif (int(batch[place - 1]) - i) % 7:
            assert not torch.equal(target, own)


def as_unit(image: torch.Tensor) -> torch.Tensor:
    """An image as floats in [0,1]."""
    return image.float() / 255 if image.dtype == torch.uint8 else image


@pytest.mark.parametrize("build", [ResidentLoader, StreamedLoader])
def test_a_bad_image_stops_the_run_unless_it_may_be_skipped(build: Callable[..., Loader]) -> None:
    with pytest.raises(BadImageError, match=r"3\.jpg cannot be decoded"):
        list(build(Damaged(10, {3}), Sampler(10, 5), as_canvas))


def test_resident_and_streamed_show_the_same_pixels_within_a_step_of_uint8() -> None:
    observer = Observer(SharedView(Inception()), Pair(12, 8), 7, mixing=Mixup(), flip=True)
    order = Sampler(50, 8, train=True, halo=1)
    for one, other in zip(*(list(b(Uneven(50), order, observer.look)) for b in (ResidentLoader, StreamedLoader)), strict=True):
        a, b = observer.finish(one), observer.finish(other)
        assert a.teacher_images is not None and b.teacher_images is not None
        for x, y in ((a.student_images, b.student_images), (a.teacher_images, b.teacher_images)):
            assert (x - y).abs().max() <= 1 / 255 + 1e-6


class Made(Images):
    """Images that a user wrote: `shape` and `dtype` of the one at `bad`, gray and well-formed elsewhere."""

    def __init__(self, shape: tuple[int, ...], dtype: type = np.uint8, bad: int = 21) -> None:
        self.shape, self.dtype, self.bad, self.labels = shape, dtype, bad, np.arange(50) % 7

    def __len__(self) -> int:
        return 50

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        return np.zeros(self.shape, self.dtype) if index == self.bad else np.zeros((1, 6, 7), np.uint8)


class MadeToo(Made):
    """A sibling."""


WRONG = {
    "floats": (Made((1, 6, 7), np.float32), r"image 21 of Made is float32 \[1, 6, 7\]; expected uint8 \[C, H, W\]: scale it"),
    "no channel": (MadeToo((6, 7)), r"image 21 of MadeToo is uint8 \[6, 7\]; expected uint8 \[C, H, W\]: give gray images"),
    "channels": (Made((3, 6, 7)), r"image 21 of Made has 3 channels; expected 1 as before: convert"),
    "a subset": (
        Subset(Made((6, 7)), np.arange(49, -1, -1)),
        r"image 21 of Made is uint8 \[6, 7\]; expected uint8 \[C, H, W\]",
    ),
}


@every_loader
@pytest.mark.parametrize("case", WRONG)
def test_images_of_another_shape_are_refused_in_one_line_by_the_name_of_their_class(build: Build, case: str) -> None:
    images, message = WRONG[case]
    with pytest.raises(ShapeError, match=f"^{message}") as refused:
        list(build(images, Sampler(50, 8), positions((0, 0))))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.arange(50) % 7 + 1, r"labels of ArrayImages contain 7; expected 0 to 6 \(7 classes\): number the classes from 0"),
        (np.arange(50) % 7 - 1, "labels of ArrayImages contain -1; expected 0 to 6"),
        (np.zeros((50, 7), np.int64), r"labels of ArrayImages are int64 \[50, 7\]; expected int64 \[50\]"),
        (np.zeros(50), r"labels of ArrayImages are float64 \[50\]; expected int64 \[50\]: use np.array\(labels, np.int64\)"),
        (np.zeros(49, np.int64), r"labels of ArrayImages are int64 \[49\]; expected int64 \[50\]"),
    ],
    ids=["from one", "negative", "one-hot", "floats", "too few"],
)
def test_labels_that_are_no_classes_are_refused(labels: NDArray[np.int64], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        check_labels(ArrayImages(EVEN.images, labels), 7)
    check_labels(EVEN, 7)
    check_labels(ArrayImages(EVEN.images, None), 7)


class Panorama(Uneven):
    """Images of which the one at `place` is 400 px wide. Counts what is decoded."""

    def __init__(self, count: int, place: int) -> None:
        super().__init__(count)
        self.place, self.decoded = place, 0

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        self.decoded += 1
        return np.zeros((3, 8, 400), np.uint8) if index == self.place else super().__getitem__(index)


@pytest.mark.parametrize(("place", "decoded"), [(81, 64), (80, 200)])
def test_a_split_is_as_large_as_its_largest_image_makes_it(place: int, decoded: int) -> None:
    images, small = Panorama(160, place), 160 * 3 * 8 * 12
    with pytest.raises(TooLargeError, match="makes the canvas 8 x 400 px"):
        Resident(images, budget=160 * 3 * 8 * 400 - 1)
    assert images.decoded < decoded  # the sample finds the first one, the second is found while all are decoded
    assert Resident(images, budget=160 * 3 * 8 * 400).pixels.shape == (160, 3, 8, 400)
    assert Resident(Uneven(160), budget=small).pixels.nbytes == small
