"""Sources that combine other sources."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from kdx.data.source import Images, Source, SplitName
from kdx.data.splits import carve
from kdx.ranges import Fraction, Number, validated


class Unlabeled(Images):
    """The same images without their labels."""

    labels = None

    def __init__(self, images: Images) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        return self.images[index]

    def origins(self, index: NDArray[np.int64]) -> list[tuple[Images, NDArray[np.int64]]]:
        return self.images.origins(index)


@validated
class OutOfDomain(Source):
    """Out-of-domain distillation: train on `images` without labels; val and test come from `domain`.

    Missing splits of `domain` are carved as in a run on `domain` alone, so with the same shares and seed, val and test contain
    no image that a teacher was trained on there. `channels` and `check` raise ValueError if the numbers of channels differ.

    Reference: FunMatch, arXiv:2106.05237, section 3.8.
    """

    train_labels = False

    def __init__(self, domain: Source, images: Source, val_share: Fraction, test_share: Fraction, split_seed: Number) -> None:
        self.domain, self.images = domain, images
        self.val_share, self.test_share, self.split_seed = val_share, test_share, split_seed
        self.flip, self.mean, self.std = domain.flip, domain.mean, domain.std
        self.labels = domain.labels

    @property
    def num_classes(self) -> int | None:  # type: ignore[override]  # known once it is read
        """Number of classes of the domain, which may be read from its folders."""
        return self.domain.num_classes

    @property
    def channels(self) -> int:  # type: ignore[override]  # may be read from files
        """Number of channels of the domain. ValueError if the images have another one."""
        domain, images = self.domain, self.images
        if domain.channels != images.channels:
            raise ValueError(
                f"domain {type(domain).__name__} has {domain.channels} channels and images {type(images).__name__} have "
                f"{images.channels}: set data.source.images to a source with {domain.channels} channels"
            )
        return domain.channels

    def check(self) -> None:
        self.domain.check()
        self.images.check()
        _ = self.channels

    def splits(self) -> Mapping[SplitName, Images]:
        splits = self.domain.splits()
        domain = carve(splits, val=self.val_share, test=self.test_share, train_size=None, seed=self.split_seed)
        return {"train": Unlabeled(self.images.splits()["train"]), "val": domain["val"], "test": domain["test"]}
