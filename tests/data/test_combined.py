"""Out of domain: pictures of one source without labels, val and test of another exactly as a run on that one has them."""

from __future__ import annotations

import pickle
from collections.abc import Mapping

import numpy as np
import pytest
from omegaconf import OmegaConf

from kdx.data.combined import OutOfDomain
from kdx.data.digits import Digits
from kdx.data.source import ArrayImages, Images, Source, SplitName
from kdx.data.splits import carve
from kdx.experiment.build import make


class Noise(Source):
    """Forty pictures of two classes."""

    num_classes = 2
    channels = 1

    def __init__(self, channels: int = 1) -> None:
        self.channels = channels

    def check(self) -> None:
        raise ValueError("noise: folder not found")

    def splits(self) -> Mapping[SplitName, Images]:
        pixels = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8), np.uint8)
        return {"train": ArrayImages(pixels, np.arange(40) % 2), "test": ArrayImages(pixels[:1], np.zeros(1, np.int64))}


def test_train_is_the_images_without_labels_and_the_rest_the_domains() -> None:
    source = OutOfDomain(Digits(), Noise(), val_share=0.2, test_share=0.3, split_seed=3)
    assert (source.num_classes, source.channels, source.flip, source.mean) == (10, 1, False, Digits.mean)
    assert source.labels and not source.train_labels
    splits = source.splits()
    train, noise = splits["train"], Noise().splits()["train"]
    assert train.labels is None and len(train) == 40
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(train))[7], noise[7])
    alone = carve(Digits().splits(), val=0.2, test=0.3, train_size=None, seed=3)
    for name in ("val", "test"):
        np.testing.assert_array_equal(splits[name].labels, alone[name].labels)
        assert all((splits[name][i] == alone[name][i]).all() for i in range(len(alone[name])))


def test_the_splits_are_complete_so_carving_leaves_them_alone() -> None:
    splits = OutOfDomain(Digits(), Noise(), 0.1, 0.1, 0).splits()
    again = carve(splits, val=0.5, test=0.5, train_size=10, seed=9)
    assert again["val"] is splits["val"] and again["test"] is splits["test"] and len(again["train"]) == 10


def test_both_are_checked() -> None:
    for one, other in ((Digits(), Noise()), (Noise(), Digits())):
        with pytest.raises(ValueError, match="noise: folder not found"):
            OutOfDomain(one, other, 0.1, 0.1, 0).check()


def test_channels_must_agree() -> None:
    with pytest.raises(
        ValueError, match=r"Digits has 1 channels and images Noise have 3: set data.source.images to a source with 1 channels"
    ):
        _ = OutOfDomain(Digits(), Noise(channels=3), 0.1, 0.1, 0).channels


def test_it_is_made_from_a_config() -> None:
    node = {
        "_target_": "kdx.data.combined.OutOfDomain",
        "domain": {"_target_": "kdx.data.vision.Cifar10", "root": "x"},
        "images": {"_target_": "kdx.data.folders.ImageFolder", "root": "y"},
        "val_share": 0.1,
        "test_share": 0.1,
        "split_seed": 0,
    }
    assert make(OmegaConf.create(node), "data.source").num_classes == 10
    node["images"] = {"_target_": "kdx.data.vision.FashionMnist", "root": "y"}
    with pytest.raises(ValueError, match="channels"):
        _ = make(OmegaConf.create(node), "data.source").channels
