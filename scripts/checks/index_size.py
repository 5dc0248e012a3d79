"""How much memory and time do the paths of 1.28 and 14 million images take? Prints both; no disk is read."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator

from kdx.data.decoding import Paths


def names(classes: int, each: int) -> Iterator[str]:
    """Yield paths like those of ImageNet."""
    for number in range(classes):
        for image in range(each):
            yield f"/data/imagenet/train/n{number:08d}/n{number:08d}_{image:05d}.JPEG"


if __name__ == "__main__":
    for classes, each in ((1000, 1281), (21_841, 641)):
        before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
        paths = Paths(names(classes, each))
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6  # kB on Linux
        print(f"{len(paths):,} files: {grown:.2f} GB more at the peak, {time.monotonic() - began:.0f} s")
