"""What the values of a config influence: the weights and the numbers of a run, or only where and how it runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

# Dotted paths that determine neither the weights nor the numbers of a run: names, places, logs, what it does besides.
UNRELATED = (
    "name",
    "tags",
    "outputs",
    "logger",
    "preflight",
    "ckpt_path",
    "on_conflict",
    "sweep",
    "max_attempts",
    "baselines",
    "measured",
    "hydra",
    "callbacks.progress",
    "callbacks.last.seconds",
    "data.download",
    "data.num_workers",
    "data.resident_budget_mb",
    "data.cache",
    "data.verify",
    "data.check_duplicates",
    "data.max_megapixels",
    "data.source.root",  # the same value as data.root
    "data.source.download",
    "data.source.cache",
    "data.source.verify",  # the same value as data.verify
    "trainer.log_every_n_steps",
    "trainer.enable_model_summary",
    "trainer.enable_progress_bar",
)
# Settings of the machine, on which weights and numbers depend by rounding only; and the place of the data, whose pixels and
# labels have a fingerprint of their own.
PLACE = (
    "speed",
    "compile",
    "teacher_cache",
    "teacher_cache_bits",
    "data.root",
    "data.channels",
    "data.source.channels",
    "data.loader",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.strategy",
)


def _below(paths: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"{path}." for path in paths)


_OF_RUNS = _below((*UNRELATED, *PLACE))
SHOWN = 3  # lines of a difference


def flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a config by dotted path. Lists, empty mappings and None are values."""
    return dict(_leaves(config, ""))


def _leaves(node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def relevant(values: Mapping[str, Any], ignored: Iterable[str]) -> dict[str, Any]:
    """Return the values of `flat` without those at or below the ignored paths, and without None and empty mappings.

    In a teacher's recipe, which has the keys of a run, UNRELATED and PLACE are ignored in any case.
    """
    prefixes = _below(ignored)
    return {
        path: value
        for path, value in values.items()
        if value is not None
        and value != {}
        and not f"{path}.".startswith(prefixes)
        and not f"{path}.".partition(".recipe.")[2].startswith(_OF_RUNS)
    }


def difference(there: Mapping[str, Any], here: Mapping[str, Any], ignored: Iterable[str] = (*UNRELATED, *PLACE)) -> list[str]:
    """Return where two configs differ, in at most three lines `KEY: old -> new`, in the order of `here`."""
    ignored = tuple(ignored)
    old, new = relevant(flat(there), ignored), relevant(flat(here), ignored)
    changed = [path for path in dict.fromkeys([*new, *old]) if old.get(path) != new.get(path)]
    lines = [f"{path}: {_shown(old.get(path))} -> {_shown(new.get(path))}" for path in changed[:SHOWN]]
    return [*lines[: SHOWN - 1], f"{lines[-1]}, and {len(changed) - SHOWN} more"] if len(changed) > SHOWN else lines


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)
