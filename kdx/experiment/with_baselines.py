"""A run and its equal-budget baselines, with one table and one sentence per baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from kdx.config.check import check_plain
from kdx.config.schema import AUTO, RunConfig, to_plain
from kdx.experiment import build
from kdx.experiment.build import Parts
from kdx.experiment.train import train
from kdx.report.summary import show, verdict
from kdx.run.folder import RunFolder
from kdx.training.ranks import rank

# Overrides that leave an experiment what it was when its result was measured.
NEUTRAL = ("experiment", "seed", "logger", "outputs", "hydra", "name", "tags", "baselines")


def train_with_baselines(parts: Parts, folder: RunFolder, quiet: bool = False) -> dict[str, float]:
    """Train a run, then each of its `baselines` with the same student, data, budget and seed in `folder/baselines/NAME`.

    Unless `quiet`, print one table of teacher, student and baselines, and the difference to each baseline.

    Returns:
        The final metrics of the run, without those of its baselines, by flat name.
    """
    config = parts.config
    names = config.baselines
    if not names:
        return train(parts, folder, quiet)
    configs = {name: baseline_of(config, name) for name in names}  # raises before training if one does not apply
    parts.config = replace(config, baselines=[])
    metrics = train(parts, folder, quiet=True)
    baselines: dict[str, dict[str, float]] = {}
    for name, baseline in configs.items():
        baseline_folder = RunFolder(folder.baselines / name, folder.group, folder.overrides)
        baselines[name] = train(build.parts(baseline), baseline_folder, quiet=True, describe=False)
    if rank() == 0 and not quiet:
        show_comparison(config, folder, metrics, baselines)
    return metrics


def baseline_of(config: RunConfig, name: str) -> RunConfig:
    """Return the config of a run's baseline. ConfigError if the baseline does not apply."""
    return check_plain({**to_plain(config), "baseline": name, "baselines": [], "measured": None, "ckpt_path": AUTO})


def show_comparison(
    config: RunConfig, folder: RunFolder, metrics: Mapping[str, float], baselines: Mapping[str, Mapping[str, float]]
) -> None:
    """Print the table of teacher, student and baselines, and the difference to each baseline on this seed."""
    split, report = "test" if config.test else "val", folder.read("metrics.json")
    title = f"{config.name} · seed {config.seed} · {report['selection']['text']}"
    caveats = list(report.get("caveats", {}).values())
    pixels = {"teacher": config.resolution.teacher, "student": config.student_resolution}
    show(metrics, pixels, split, title, str(folder.path), list(config.metrics), baselines, caveats)
    for name, numbers in baselines.items():
        print(verdict(metrics, numbers, split, name))
    print(f"One seed is not enough for a conclusion. Use five: add -m 'seed=range(5)' baselines=[{','.join(baselines)}]")
    if config.measured and all(word.lstrip("+~").split("=")[0].split(".")[0] in NEUTRAL for word in folder.overrides):
        print(config.measured)
