"""The figures that a family declares: they select the numbers of systems, which kdx.report.plots draws."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

from kdx.evidence.kinds import Read
from kdx.ranges import validated
from kdx.report import plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

K = TypeVar("K")
ReadCurves = Callable[[str, str], Mapping[int, plots.Curve]]  # (system, column of metrics.csv) -> curve by seed


class Figure(ABC):
    """A figure of the finished runs of its systems; systems without finished runs are left out."""

    title: str

    @property
    @abstractmethod
    def systems(self) -> list[str]:
        """The systems in the figure."""

    @abstractmethod
    def draw(self, read: Read, read_curves: ReadCurves) -> Drawing | None:
        """Return the figure; None if no system has a finished run.

        Args:
            read: Returns a metric of a system by seed.
            read_curves: Returns a column of metrics.csv of a system by seed.
        """


@validated
class Against(Figure):
    """Metrics against a setting x of the systems, one panel per metric.

    Args:
        title: The title of the figure.
        caption: The label of the x axis.
        systems: Value of the setting -> system.
        metrics: Label -> metric.
        levels: Label -> system without this setting, drawn as a horizontal line.
    """

    def __init__(
        self,
        title: str,
        caption: str,
        systems: dict[float, str],
        metrics: dict[str, str],
        levels: dict[str, str] | None = None,
    ) -> None:
        self.title, self.caption, self.points, self.metrics = title, caption, dict(systems), dict(metrics)
        self.levels = dict(levels or {})

    @property
    def systems(self) -> list[str]:
        return [*self.points.values(), *self.levels.values()]

    def draw(self, read: Read, read_curves: ReadCurves) -> Drawing | None:
        panels = []
        for label, metric in self.metrics.items():
            points = {x: list(read(system, metric).values()) for x, system in self.points.items()}
            levels = {name: list(read(system, metric).values()) for name, system in self.levels.items()}
            panels.append(plots.Panel(label, _filled(points), _filled(levels)))
        return plots.against(self.title, self.caption, panels) if any(panel.points for panel in panels) else None


@validated
class Patience(Figure):
    """A metric after different numbers of epochs, a line per policy.

    Args:
        title: The title of the figure.
        metric: The metric.
        label: The label of the y axis.
        policies: Label of a policy -> number of epochs -> system.
        curve: A column of metrics.csv; its curve in the longest training is drawn as a thin line.
    """

    def __init__(
        self, title: str, metric: str, label: str, policies: dict[str, dict[int, str]], curve: str | None = None
    ) -> None:
        self.title, self.metric, self.label, self.policies, self.curve = title, metric, label, policies, curve

    @property
    def systems(self) -> list[str]:
        return [system for budgets in self.policies.values() for system in budgets.values()]

    def draw(self, read: Read, read_curves: ReadCurves) -> Drawing | None:
        lines, curves = {}, {}
        for name, budgets in self.policies.items():
            ends = _filled({epochs: list(read(system, self.metric).values()) for epochs, system in budgets.items()})
            if ends:
                lines[name] = ends
            if ends and self.curve is not None:
                curves[name] = list(read_curves(budgets[max(ends)], self.curve).values())
        return plots.patience(self.title, self.label, lines, curves) if lines else None


@validated
class Trajectories(Figure):
    """A column of metrics.csv over the epochs, one line per seed and the mean of each system.

    Args:
        title: The title of the figure.
        column: The column of metrics.csv.
        label: The label of the y axis.
        systems: Label -> system.
    """

    def __init__(self, title: str, column: str, label: str, systems: dict[str, str]) -> None:
        self.title, self.column, self.label, self.named = title, column, label, dict(systems)

    @property
    def systems(self) -> list[str]:
        return list(self.named.values())

    def draw(self, read: Read, read_curves: ReadCurves) -> Drawing | None:
        bundles = {name: list(read_curves(system, self.column).values()) for name, system in self.named.items()}
        bundles = {name: curves for name, curves in bundles.items() if any(curves)}
        return plots.trajectories(self.title, self.label, bundles) if bundles else None


def _filled(groups: Mapping[K, list[float]]) -> dict[K, list[float]]:
    return {key: values for key, values in groups.items() if values}
