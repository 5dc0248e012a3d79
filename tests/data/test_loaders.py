"""Loaders: resident and streamed, with or without workers, give identical examples."""

from __future__ import annotations

import gc
import itertools
import multiprocessing
import time
from collections.abc import Callable, Iterable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from kdx.data.loaders import Loader, Position, ResidentLoader, StreamedLoader, at_start
from kdx.data.sampler import Sampler
from kdx.data.source import ArrayImages, Images
from kdx.types import Examples

CPU = torch.device("cpu")


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
Build = Callable[[Images, Sampler, Position], Loader]
BUILDS: dict[str, Build] = {
    "resident": lambda images, order, position: ResidentLoader(images, order, position, CPU),
    "streamed": lambda images, order, position: StreamedLoader(images, order, position, 0),
    "two workers": lambda images, order, position: StreamedLoader(images, order, position, 2),
}
every_loader = pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS)


def positions(*places: tuple[int, int]) -> Position:
    remaining = iter(places)
    return lambda: next(remaining)


def assert_is_the_plan(found: Iterable[Examples], images: Images, order: Sampler, epoch: int, first: int = 0) -> None:
    """Each example is, pixel by pixel, what the images say of the index that the sampler planned there."""
    for examples, (number, index) in itertools.zip_longest(found, order.batches(epoch, first)):
        assert (examples.draw.seed, examples.draw.epoch, examples.draw.batch) == (order.seed, epoch, number)
        np.testing.assert_array_equal(examples.draw.index, index)
        assert examples.halo == order.halo and examples.images.dtype == torch.uint8
        assert images.labels is not None
        np.testing.assert_array_equal(examples.label, images.labels[index])
        for canvas, (height, width), i in zip(examples.images.numpy(), examples.sizes, index, strict=True):
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
    assert [len(examples.images) for examples in loader] == [8] * 6 + [2]
    assert_is_the_plan(loader, Uneven(50), order, 0)


def test_workers_go_at_once_even_if_their_loader_dies_in_a_cycle() -> None:
    before, start = set(multiprocessing.active_children()), time.monotonic()
    loader = StreamedLoader(EVEN, Sampler(50, 8), at_start, 2)
    loader.position = lambda cycle=loader: (0, 0)  # as a trainer's does, which holds the loader
    assert len(list(loader)) == 7
    del loader
    gc.collect()
    assert set(multiprocessing.active_children()) <= before
    assert time.monotonic() - start < 9  # torch waits 5 s for each worker that was not told


@every_loader
def test_images_without_labels_load_without_labels(build: Build) -> None:
    bare = ArrayImages(EVEN.images, None)
    assert all(examples.label is None for examples in build(bare, Sampler(50, 25), positions((0, 0))))
