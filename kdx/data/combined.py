"""Sources made of other sources."""

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


@validated
class OutOfDomain(Source):
    """Train on the pictures of `images`, whose labels nobody looks at; val and test are those of `domain`. (FunMatch, 3.8)

    Shares and seed carve what `domain` lacks, exactly as a run on `domain` alone would: with the same numbers, val and test
    hold nothing that a teacher was trained on there. ValueError if the two differ in channels.
    """

    train_labels = False

    def __init__(self, domain: Source, images: Source, val_share: Fraction, test_share: Fraction, split_seed: Number) -> None:
        if domain.channels != images.channels:
            raise ValueError(
                f"domain {type(domain).__name__} has {domain.channels} channels and images {type(images).__name__} have "
                f"{images.channels}: choose a source of {domain.channels} channels as data.source.images"
            )
        self.domain, self.images = domain, images
        self.val_share, self.test_share, self.split_seed = val_share, test_share, split_seed
        self.channels, self.flip, self.mean, self.std = domain.channels, domain.flip, domain.mean, domain.std
        self.labels = domain.labels

    @property
    def num_classes(self) -> int | None:  # type: ignore[override]  # known once it is read
        """Those of the domain, which may have to look at its folders."""
        return self.domain.num_classes

    def check(self) -> None:
        self.domain.check()
        self.images.check()

    def splits(self) -> Mapping[SplitName, Images]:
        own = self.domain.splits()
        domain = carve(own, val=self.val_share, test=self.test_share, train_size=None, seed=self.split_seed)
        return {"train": Unlabeled(self.images.splits()["train"]), "val": domain["val"], "test": domain["test"]}
