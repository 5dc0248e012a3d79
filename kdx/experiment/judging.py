"""What the preflight finds wrong in a run's networks: an error, or a caveat of the run."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from kdx.config.errors import ConfigError
from kdx.config.schema import RunConfig
from kdx.teachers.judgement import Fault

log = logging.getLogger("kdx")


def class_faults(doubts: Sequence[str | None]) -> list[Fault]:
    """Return the faults of teachers whose classes are matched by their order although their names differ."""
    return [Fault("teacher_classes", doubt, certain=False) for doubt in doubts if doubt is not None]


def judges(config: RunConfig) -> bool:
    """Return whether teachers are judged."""
    return config.preflight != "off" and not config.rehearsal


def report_faults(faults: Sequence[Fault], config: RunConfig, caveats: dict[str, str]) -> None:
    """Raise ConfigError for a teacher that must be wrong, unless `preflight` says otherwise; warn of all else, as a caveat."""
    certain = [fault for fault in faults if fault.certain]
    if certain and config.preflight == "strict":
        raise ConfigError(f"{certain[0].text}; or train with it all the same, with preflight=warn")
    for fault in faults:
        caveats[fault.kind] = fault.text
        log.warning("%s", fault.text)
