"""The metrics of a run: those that it adds and those that it monitors must be measured on its data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdx.config.errors import ConfigError
from kdx.config.monitor import check_monitors
from kdx.config.schema import to_plain
from kdx.metrics.selection import applicable, check_added, directions
from kdx.metrics.suite import Suites

if TYPE_CHECKING:
    from kdx.experiment.build import Parts


def check_metrics(parts: Parts) -> None:
    """Raise ConfigError if an added metric or a monitored metric cannot be measured on this data set."""
    config, labels, num_classes = parts.config, parts.source.labels, parts.num_classes
    try:
        check_added(parts.metrics, num_classes, labels=labels)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    peers = config.peers.members if config.peers is not None else ()
    taught = config.teacher is not None or config.peers is not None
    suites = Suites(num_classes, peers, parts.metrics, teacher=taught, labels=labels)
    frozen = "teacher/" if config.teacher is not None else "no prefix"  # its metrics are the same in every epoch
    names = [f"val/{name}" for name in suites.names if not name.startswith(frozen)]
    name = config.monitor.removeprefix("val/student/")
    of_student = applicable(parts.metrics, num_classes, labels=True, teacher=False)
    if name in of_student and not labels and of_student[name].needs_label:
        raise ConfigError(f"monitor={config.monitor} needs labels on val: use monitor=val/kl monitor_mode=min")
    check_monitors(to_plain(config), names, directions(parts.metrics))
