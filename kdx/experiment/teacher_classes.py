"""Which outputs of a teacher are the classes of the data: by a class map, by name, or by their order."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kdx.config.errors import ConfigError
from kdx.config.schema import MemberConfig
from kdx.data import class_map
from kdx.networks import metadata
from kdx.networks.published import Published, published
from kdx.networks.published import class_names as synsets
from kdx.run.ranks import own_rank


@dataclass(frozen=True)
class Outputs:
    """The number of a network's outputs, those for the data's classes (None: all, in order), and what is in doubt."""

    count: int
    chosen: Sequence[int] | None = None
    doubt: str | None = None


def own_classes(member: MemberConfig, num_classes: int) -> tuple[int, Sequence[str] | None]:
    """Return the number of classes of a member's file or pretrained weights, and their names if known."""
    if member.checkpoint is not None:
        known: metadata.Known | Published = metadata.of_file(Path(member.checkpoint), member.key)
    else:
        known = published(member.architecture["architecture"]) or metadata.Known(num_classes)
    count, names = known.num_classes or num_classes, known.names
    return count, names if names is None or len(names) == count else None


def outputs(path: str, member: MemberConfig, names: Sequence[str] | None, num_classes: int, strict: bool = True) -> Outputs:
    """Return the outputs of a member's existing weights for the classes of the data set.

    Args:
        path: The config path of the member.
        member: The member; its weights come from a file or from timm.
        names: The names of the data's classes, if it has any.
        num_classes: Their number.
        strict: Whether names that differ are an error if the numbers of classes agree; otherwise a doubt.

    Raises ConfigError, with the remedy, if the classes do not fit.
    """
    origin = f"{path}.checkpoint" if member.checkpoint is not None else f"{path}.network"
    try:
        count, own_names = own_classes(member, num_classes)
    except ValueError as error:
        raise ConfigError(f"{origin}: {error}") from None
    if own_names is None and names is not None and all(re.fullmatch(r"n\d{8}", name) for name in names):
        own_names = synsets(count)
    map_key = f"{path}.class_map"
    try:
        if member.class_map is not None:
            chosen = class_map.from_file(Path(member.class_map), names, num_classes, count).tolist()
            return Outputs(count, chosen)
    except ValueError as error:
        raise ConfigError(f"{path}.{error}") from None
    if own_names is None or names is None:
        if count == num_classes:
            return Outputs(count)
        raise ConfigError(
            f"{origin}: its weights have {count} classes and the data set has {num_classes}. Choose outputs with "
            f"{map_key}=FILE.json, {class_map.FORMAT}; or train them for these classes: teacher=finetune "
            f"{path}.network.init=FILE"
        )
    if list(names) == list(own_names):
        return Outputs(count)
    absent = [name for name in names if name not in own_names]
    if not absent:
        return Outputs(count, class_map.by_name(names, own_names).tolist())
    problem = (
        f"{origin}: its classes are {_listed(own_names)}, and the data set's {_listed(names)}; {len(absent)} of "
        f"{num_classes} do not exist there, such as '{absent[0]}'"
    )
    if count == num_classes and not strict:
        return Outputs(count, doubt=f"{problem}. They are matched by their order")
    by_order = "; or match them by their order with preflight=warn" if count == num_classes else ""
    raise ConfigError(f"{problem}. Rename the class folders, or give {map_key}=FILE.json, {class_map.FORMAT}{by_order}")


def propose_map(order: Sequence[int] | None, *, path: str, own: Outputs, names: Sequence[str] | None, folder: Path) -> str:
    """Return the remedy for a member at `path` whose outputs, those that are used, are the data's classes in this order [K].

    It is a class map in `folder`, which is written; without an order, it is to be given by the user.
    """
    option = f"{path}.class_map"
    if order is None:
        return f"give {option}=FILE.json, {class_map.FORMAT}"
    file = folder.absolute() / f"{option}.json"
    if own_rank() == 0:
        class_map.write(file, names, order if own.chosen is None else [own.chosen[place] for place in order])
    return f"set {option}={file}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f", … ({len(names)})" if len(names) > 3 else "")
