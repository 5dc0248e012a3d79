"""Which mean and std the images of a network are normalized with: one rule for students, teachers and evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kdx.networks import metadata
from kdx.networks.published import published

Values = tuple[float, ...]


@dataclass(frozen=True)
class Normalization:
    """Mean and std of images in [0,1], one value per channel, and where they come from."""

    mean: Values
    std: Values
    origin: str

    def __str__(self) -> str:
        mean, std = (f"[{', '.join(f'{value:.4g}' for value in values)}]" for values in (self.mean, self.std))
        return f"mean={mean} std={std}, {self.origin}"

    def differs(self, other: Normalization) -> bool:
        """Return whether any value differs by more than rounding."""
        pairs = zip((*self.mean, *self.std), (*other.mean, *other.std), strict=True)
        return any(abs(one - two) > 1e-3 for one, two in pairs)


def of_weights(architecture: str | None, file: Path, key: str | None = None) -> Normalization | None:
    """Return what the weights in a file expect: the values beside or inside it, else timm's for the architecture.

    timm's count only if the network in the file has as many classes as the published weights; others have been trained anew,
    with a normalization that is not known, and the result is None.
    """
    known = metadata.of_file(file, key)
    if known.colors is not None:
        return Normalization(*known.colors, f"as stated in {known.origin}")
    theirs = published(architecture) if architecture is not None else None
    if theirs is None or not theirs.has_weights or theirs.num_classes != known.num_classes:
        return None
    return Normalization(theirs.mean, theirs.std, f"as published with {architecture}")


def candidates(
    architecture: str | None, channels: int, data: tuple[Values, Values], file: Path | None = None, key: str | None = None
) -> list[Normalization]:
    """Return the normalizations that weights may expect, per channel and without repetitions; the first one is to be used.

    The order is the rule: what the weights in the file expect, as far as it is known; that of the data; timm's for the
    architecture. What a user states goes before all of them.

    Args:
        architecture: The name in timm, or None.
        channels: The number of image channels.
        data: Mean and std of the data set.
        file: The file of the weights, or None for random ones, which expect nothing.
        key: Where they are in the file, if it contains several networks.
    """
    expected = of_weights(architecture, file, key) if file is not None else None
    theirs = published(architecture) if file is not None and architecture is not None else None
    possible = [
        expected,
        Normalization(*data, "of the data set"),
        Normalization(theirs.mean, theirs.std, f"the default of {architecture}") if theirs is not None else None,
    ]
    found: list[Normalization] = []
    for one in possible:
        if one is not None and {len(one.mean), len(one.std)} <= {1, 3, channels}:
            one = Normalization(per_channel(one.mean, channels), per_channel(one.std, channels), one.origin)
            found += [one] if all(one.differs(other) for other in found) else []
    return found


def others(possible: Sequence[Normalization], mean: Values, std: Values) -> list[Normalization]:
    """Return the normalizations that differ from the one in use."""
    used = Normalization(mean, std, "in use")
    return [one for one in possible if one.differs(used)]


def per_channel(values: Sequence[float], channels: int) -> Values:
    """Return one value per channel, from as many, from one for all, or from three for RGB, which are averaged."""
    return tuple(values) if len(values) == channels else (sum(values) / len(values),) * channels
