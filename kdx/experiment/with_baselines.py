"""A run and its equal-budget baselines, with one table and one sentence per baseline."""

from __future__ import annotations

from dataclasses import replace

from kdx.experiment import build
from kdx.experiment.build import Parts
from kdx.experiment.stored import baseline_of, show_comparison
from kdx.experiment.train import train
from kdx.run.folder import RunFolder
from kdx.training.ranks import rank


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
        own = build.parts(baseline)
        own.sharing = parts.sharing
        baselines[name] = train(own, baseline_folder, quiet=True, describe=False)
    if rank() == 0 and not quiet:
        show_comparison(config, folder, metrics, baselines)
    return metrics
