"""Find the weights of a network among the tensors of a file, by structure.

A trainer may wrap a state dict in containers (`state_dict`, `model`, `ema`) and prefixes (`module.`, `net.`, `_orig_mod.`).
Both are prefixes of the names in the file, so the prefix under which all weights of the network are found is the right one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from kdx.networks import fitting
from kdx.networks.fitting import HARMLESS, Fit

PREFERRED = ("distiller.student.model", "state_dict_ema", "model_ema")  # kdx's student before its peers; averaged weights


class AmbiguousError(ValueError):
    """Several networks in a file fit, with different weights; `prefixes` lists where they are."""

    def __init__(self, prefixes: Iterable[str]) -> None:
        self.prefixes = [shown(prefix) for prefix in prefixes]
        super().__init__(f"contains several networks that fit, with different weights: {', '.join(self.prefixes)}")


class MissingKeyError(ValueError):
    """No weights are under `key`."""


def shown(prefix: str) -> str:
    """Return how messages and the option `key` write a prefix."""
    return prefix.removesuffix(".") or "."


def find(model: nn.Module, tensors: Mapping[str, Tensor], key: str | None = None, new_head: bool = False) -> Fit:
    """Return the weights of `model` among `tensors`; if nothing fits, the nearest, with its problems.

    Args:
        model: The network.
        tensors: Tensors of a file by their name in the file.
        key: Part of the prefix, at dots, for files with several networks.
        new_head: Whether the last layer may be missing, or have other classes.

    Raises:
        AmbiguousError: If several networks with different weights fit.
        MissingKeyError: If no tensors are under `key`.
    """
    expected = model.state_dict()
    needed = {name for name in expected if not name.endswith(HARMLESS)}
    found = Counter(name.removesuffix(part) for name in tensors for part in _suffixes(name) if part in needed)
    if not found:  # the names are those of other code
        found = Counter(dict.fromkeys(["", *(f"{name.partition('.')[0]}." for name in tensors)], 0))
    prefixes = under(key, found) if key is not None else list(found)
    if key is not None and not prefixes:
        roots = dict.fromkeys(shown(prefix) for prefix, count in found.most_common() if 2 * count >= max(found.values()))
        raise MissingKeyError(f"has no weights of this network under key={key}; available: {', '.join(roots) or 'none'}")
    prefixes = [prefix for prefix in prefixes if 2 * found[prefix] >= max(found[p] for p in prefixes)]
    whole = [prefix for prefix in prefixes if found[prefix] == len(needed)]
    fits = []
    for prefix in sorted(prefixes, key=lambda p: -found[p])[:8]:
        inside = [p for p in whole if p != prefix and p.startswith(prefix)]  # further networks below this prefix
        own = [name for name in tensors if name.startswith(prefix) and not name.startswith(tuple(inside))]
        fits.append(fitting.fit(model, prefix, {name.removeprefix(prefix): tensors[name] for name in own}, new_head))
    good = [fit for fit in fits if not fit.num_problems]
    if not good:
        other_code = 2 * max(found.values()) < len(needed)  # then the names are shown as they are in the file
        return fitting.as_is(model, "", dict(tensors), new_head) if other_code else min(fits, key=lambda fit: fit.num_problems)
    best = min(fit.rank for fit in good)
    return _chosen([fit for fit in good if fit.rank == best])


def _suffixes(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[i:]) for i in range(len(parts))]


def under(key: str, prefixes: Iterable[str]) -> list[str]:
    """Return the prefixes that are `key` or else contain it, between dots."""
    dotted = f".{key.strip('.')}.".replace("..", ".")
    matching = [prefix for prefix in prefixes if dotted in f".{prefix}"]
    return [prefix for prefix in matching if f".{prefix}" == dotted] or matching


def preferred(prefixes: Collection[str]) -> list[str]:
    """Return the prefixes that are preferred to the others, or all if none is."""
    return next((list(some) for name in PREFERRED if (some := under(name, prefixes))), list(prefixes))


def _chosen(fits: list[Fit]) -> Fit:
    """Return the preferred of several fitting state dicts. AmbiguousError if the rest are not the same."""
    names = preferred([fit.prefix for fit in fits])
    others = [shown(fit.prefix) for fit in fits if fit.prefix not in names]
    first, *rest = (fit for fit in fits if fit.prefix in names)
    if any(not _equal(first.state, fit.state) for fit in rest):
        raise AmbiguousError(names)
    return replace(first, notes=(f"preferred to {' and '.join(others)}", *first.notes)) if others else first


def _equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return all(torch.allclose(one[name], other[name], rtol=0, atol=0, equal_nan=True) for name in one if not one[name].is_meta)
