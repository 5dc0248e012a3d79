"""kdx-train: train a student with the composed config."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from kdx.cli import app, launchers
from kdx.cli.help import Guide
from kdx.cli.sweep_job import NO_SCORE, apart, checked, has_ranks, recorded, run_job
from kdx.config.check import check
from kdx.config.schema import RunConfig
from kdx.config.trainer import check_processes
from kdx.run.folder import RunFolder
from kdx.run.ranks import processes
from kdx.run.sweep_folder import is_job
from kdx.training.sharing import Sharing, Successive

MORE_GROUPS = {
    "crop": "crop@views.crop=OPTION: how training images are cropped; crop@data.eval_crop=OPTION: val and test images",
    "recipe": "recipe@teacher.recipe=OPTION: how a teacher is trained; teacher=finetune and teacher=probe select theirs",
    "pair": "pair=OPTION with experiment=ctkd_cifar100 or cqkd_imagenet: teacher and student of a paper",
    "patience": "patience=OPTION with experiment=funmatch_...: the length of training",
}
GUIDE = Guide(
    name="train",
    config="train",
    purpose="Train a student to imitate a teacher, select its best epoch on val, test it once.",
    result=(
        "OUTPUTS/NAME/TIME/ with metrics.json (final numbers), metrics.csv (curves), config.yaml, student.safetensors and "
        "pictures. With -m, a folder per job and a comparison of all of them."
    ),
    examples=(
        ("kdx-train", "a student of 4 px digits, its teacher trained first"),
        ("kdx-train temperature=cosine temperature.end=2", "an option of a group, and a key of it"),
        ("kdx-train losses=[kl,ce] losses.kl.weight=0.9", "two losses"),
        ("kdx-train data=imagefolder data.root=FOLDER", "your own images, FOLDER/CLASS/*.png"),
        ("kdx-train -m temperature.value=1,4 baselines=[scratch]", "a sweep, with its label-only baseline"),
    ),
    more_keys=("data", "teacher"),
    more_groups=MORE_GROUPS,
    note="experiment=cqkd_digits changes some of these defaults: kdx-train --cfg job prints the composed config.",
)


def job_runner() -> Callable[[DictConfig], float | None]:
    """Return `train_job` for runs of this process that share what they have in common."""
    return partial(train_job, Successive())


def train_job(sharing: Sharing, cfg: DictConfig) -> float | None:
    """Train one run, or one job of a sweep. Return the monitored metric, which the sweep optimizes."""
    train_here = partial(train, sharing)
    settings = HydraConfig.get()
    path, overrides = Path(settings.runtime.output_dir), tuple(settings.overrides.task)
    if settings.mode == RunMode.MULTIRUN:
        job = checked(cfg, path)
        if job is None:
            return NO_SCORE
        return run_job(job, RunFolder(path, Path(settings.sweep.dir).name, overrides), apart if has_ranks(job) else train_here)
    with _no_empty_folder(path, settings.overrides.hydra):
        config = check(cfg)
        check_processes(config.trainer, processes())
    if not is_job(path):
        return train_here(config, RunFolder(path, None, overrides))
    return recorded(replace(config, baselines=[]), RunFolder(path, path.absolute().parent.name, overrides), train_here)


@contextmanager
def _no_empty_folder(path: Path, hydra_words: Sequence[str]) -> Iterator[None]:
    """Remove the folder of a run that is refused, which Hydra creates first of all; not one that the user has named."""
    try:
        yield
    except Exception:
        if not any(word.startswith("hydra.run.dir=") for word in hydra_words):
            for handler in [one for one in logging.root.handlers if isinstance(one, logging.FileHandler)]:
                if Path(handler.baseFilename).parent == path.absolute():
                    logging.root.removeHandler(handler)
                    handler.close()
            with suppress(OSError):  # something is in it
                path.rmdir()
        raise


def train(sharing: Sharing, config: RunConfig, folder: RunFolder) -> float:
    """Train a run, and its baselines. Return the monitored metric."""
    from kdx.experiment import stored

    metrics = stored.result(config, folder)
    if metrics is None:
        from kdx.networks.importing import import_timm

        import_timm()
        from kdx.experiment import build

        parts = build.parts(config, probed=True)  # finds contradictions before the heavy imports
        parts.sharing = sharing
        from kdx.experiment.with_baselines import train_with_baselines

        metrics = train_with_baselines(parts, folder)
    return metrics.get(config.monitor, NO_SCORE)


def in_full(word: str) -> list[str]:
    """Return the words for which `students=[a,b]` is short; any other word as it is."""
    key, _, names = word.partition("=")
    if key != "students":
        return [word]
    names = names.strip("[]")
    return ["-m", f"student.architecture={names}", "launcher=together", f"hydra.launcher.jobs={len(names.split(','))}"]


def main() -> NoReturn:
    """Run kdx-train."""
    if "--dry-run" in sys.argv:
        from kdx.cli import plan

        plan.main()
    sys.argv[1:] = [part for word in sys.argv[1:] for part in in_full(word)]
    launchers.register()
    app.run(app.Command(GUIDE, check, job_runner()))


if __name__ == "__main__":
    main()
