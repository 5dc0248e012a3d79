"""The figures that a family declares: which systems' numbers go where. Drawing them is for kdx.report.plots."""

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
Follow = Callable[[str, str], Mapping[int, plots.Curve]]  # (system, column of metrics.csv) -> curve by seed


class Figure(ABC):
    """Draws the finished runs of its systems; those that were not run are left out."""

    title: str

    @property
    @abstractmethod
    def systems(self) -> list[str]:
        """The systems it shows."""

    @abstractmethod
    def draw(self, read: Read, follow: Follow) -> Drawing | None:
        """The figure; None if there is nothing to show yet."""


@validated
class Against(Figure):
    """Metrics against a number that systems differ in, a panel each. `levels` are systems without that number, as lines."""

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

    def draw(self, read: Read, follow: Follow) -> Drawing | None:
        panels = []
        for label, metric in self.metrics.items():
            points = {x: list(read(system, metric).values()) for x, system in self.points.items()}
            levels = {name: list(read(system, metric).values()) for name, system in self.levels.items()}
            panels.append(plots.Panel(label, _filled(points), _filled(levels)))
        return plots.against(self.title, self.caption, panels) if any(panel.points for panel in panels) else None


@validated
class Patience(Figure):
    """A metric after trainings of different lengths, a line per policy; behind it `curve`, as the longest one went on."""

    def __init__(
        self, title: str, metric: str, label: str, policies: dict[str, dict[int, str]], curve: str | None = None
    ) -> None:
        self.title, self.metric, self.label, self.policies, self.curve = title, metric, label, policies, curve

    @property
    def systems(self) -> list[str]:
        return [system for budgets in self.policies.values() for system in budgets.values()]

    def draw(self, read: Read, follow: Follow) -> Drawing | None:
        lines, curves = {}, {}
        for name, budgets in self.policies.items():
            ends = _filled({epochs: list(read(system, self.metric).values()) for epochs, system in budgets.items()})
            if ends:
                lines[name] = ends
            if ends and self.curve is not None:
                curves[name] = list(follow(budgets[max(ends)], self.curve).values())
        return plots.patience(self.title, self.label, lines, curves) if lines else None


@validated
class Trajectories(Figure):
    """A column of metrics.csv over the epochs, a bundle of seeds per system."""

    def __init__(self, title: str, column: str, label: str, systems: dict[str, str]) -> None:
        self.title, self.column, self.label, self.named = title, column, label, dict(systems)

    @property
    def systems(self) -> list[str]:
        return list(self.named.values())

    def draw(self, read: Read, follow: Follow) -> Drawing | None:
        bundles = {name: list(follow(system, self.column).values()) for name, system in self.named.items()}
        bundles = {name: curves for name, curves in bundles.items() if any(curves)}
        return plots.trajectories(self.title, self.label, bundles) if bundles else None


def _filled(groups: Mapping[K, list[float]]) -> dict[K, list[float]]:
    return {key: values for key, values in groups.items() if values}
