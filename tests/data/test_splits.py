"""Splits: disjoint, complete, in the classes' proportions, and a function of the seed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdx.data.source import ArrayImages, Images, SplitName
from kdx.data.splits import carve, carved_from, stratified_order

CLASSES = np.repeat(np.arange(5), [200, 100, 100, 60, 40])
seeds = st.integers(-(2**63), 2**63)


def source(labels: np.ndarray) -> ArrayImages:
    """Images whose pixels spell their index."""
    pixels = np.arange(len(labels), dtype=np.uint16).view(np.uint8).reshape(-1, 1, 1, 2)
    return ArrayImages(pixels, labels)


def members(images: Images) -> list[int]:
    """Which examples of the source these are, read from their pixels."""
    return [int(np.ascontiguousarray(images[i]).view(np.uint16).item()) for i in range(len(images))]


def carved(seed: int, train_size: int | None = None, *, val: float = 0.1, test: float = 0.2) -> dict[SplitName, Images]:
    labels = np.random.default_rng(0).permutation(CLASSES)
    return carve({"train": source(labels)}, val=val, test=test, train_size=train_size, seed=seed)


@settings(max_examples=50, deadline=None)
@given(seeds, st.floats(0, 0.4), st.floats(0, 0.4))
def test_splits_are_disjoint_and_together_everything(seed: int, val: float, test: float) -> None:
    splits = carved(seed, val=val, test=test)
    assert len(splits["val"]) == round(500 * val) and len(splits["test"]) == round(500 * test)
    assert sorted(members(splits["train"]) + members(splits["val"]) + members(splits["test"])) == list(range(500))


@settings(max_examples=50, deadline=None)
@given(seeds, st.sampled_from([None, 10, 50, 123]))
def test_every_split_and_every_size_of_train_has_the_classes_proportions(seed: int, train_size: int | None) -> None:
    for images in carved(seed, train_size).values():
        assert images.labels is not None
        expected = len(images) * np.bincount(CLASSES) / len(CLASSES)
        assert np.abs(np.bincount(images.labels, minlength=5) - expected).max() <= 2


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=200), seeds)
def test_any_first_examples_of_a_stratified_order_have_about_the_classes_proportions(labels: list[int], seed: int) -> None:
    classes = np.array(labels)
    order = stratified_order(classes, seed)
    np.testing.assert_array_equal(np.sort(order), np.arange(len(classes)))
    counts = np.cumsum(np.eye(5)[classes[order]], 0)
    share = counts[-1] / len(classes)
    off = np.abs(counts - np.arange(1, len(classes) + 1)[:, None] * share)
    assert (off < 1 + (counts[-1] > 0).sum() * share + 1e-9).all()  # one of its own, and its share of one of each class


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_splits_are_a_function_of_the_seed(seed: int) -> None:
    one, again, other = carved(seed), carved(seed), carved(seed + 1)
    for name in one:
        assert members(one[name]) == members(again[name]) != members(other[name])


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_a_smaller_train_is_part_of_a_larger_and_leaves_val_and_test_alone(seed: int) -> None:
    sizes = [carved(seed, size) for size in (1, 20, 50, 200, 349, None)]
    for small, large in itertools.pairwise(sizes):
        assert set(members(small["train"])) < set(members(large["train"]))
        assert [members(small[n]) for n in ("val", "test")] == [members(large[n]) for n in ("val", "test")]


def test_labels_follow_their_images() -> None:
    labels = np.random.default_rng(0).permutation(CLASSES)
    for images in carved(0, 100).values():
        np.testing.assert_array_equal(images.labels, labels[members(images)])


def test_a_split_the_data_set_has_is_left_as_it_is() -> None:
    own = source(np.arange(10) % 5)
    splits = carve({"train": source(CLASSES), "test": own}, val=0.1, test=0.2, train_size=None, seed=0)
    assert splits["test"] is own
    assert (len(splits["train"]), len(splits["val"])) == (450, 50)


@pytest.mark.parametrize(("own_val", "size"), [(200, 100), (60, 30)])  # as many as a fifth of train, at most half of val
def test_test_may_be_taken_from_val_so_that_train_stays_whole(own_val: int, size: int) -> None:
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(5), own_val // 5))
    given: dict[SplitName, Images] = {"train": source(CLASSES), "val": source(labels)}
    splits = carve(given, val=0.1, test=0.2, train_size=None, seed=0, test_from="val")
    assert carved_from(given, "val") == {"test": "val"}
    assert len(splits["train"]) == 500 and len(splits["test"]) == size
    assert sorted(members(splits["val"]) + members(splits["test"])) == list(range(own_val))
    for name in ("val", "test"):
        counts = np.bincount(splits[name].labels, minlength=5)
        assert np.ptp(counts) <= 2
    as_before = carve(given, val=0.1, test=0.2, train_size=None, seed=0)
    assert carved_from(given, "train") == {"test": "train"}
    assert as_before["val"] is given["val"] and len(as_before["train"]) == 400


def test_test_is_taken_from_train_if_there_is_no_val() -> None:
    given: dict[SplitName, Images] = {"train": source(CLASSES)}
    one, other = (carve(given, val=0.1, test=0.2, train_size=None, seed=0, test_from=origin) for origin in ("val", "train"))
    assert carved_from(given, "val") == {"test": "train", "val": "train"}
    assert all(members(one[name]) == members(other[name]) for name in one)


def test_more_training_images_than_there_are_is_refused_with_the_number_left() -> None:
    with pytest.raises(ValueError, match=r"data\.train_size=351, but only 350 images"):
        carved(0, 351)


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_without_labels_chance_decides(seed: int) -> None:
    pixels = source(CLASSES).images
    splits, other = (
        carve({"train": ArrayImages(pixels, None)}, val=0.1, test=0.2, train_size=200, seed=s) for s in (seed, seed + 1)
    )
    assert [len(splits[name]) for name in ("train", "val", "test")] == [200, 50, 100]
    drawn = [members(splits[name]) for name in ("train", "val", "test")]
    assert len({i for part in drawn for i in part}) == 350 and all(part == sorted(part) for part in drawn)
    assert drawn != [members(other[name]) for name in ("train", "val", "test")]
    assert all(images.labels is None for images in splits.values())
