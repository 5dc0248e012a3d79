"""kdx-views: draw the inputs of teacher and student for the first batch, without training."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from kdx.cli import app, train
from kdx.cli.help import Guide
from kdx.config.check import check

GUIDE = Guide(
    name="views",
    config="train",
    purpose="Draw the inputs of teacher and student for the first batch, without training.",
    result="OUTPUTS/NAME/TIME/views.png; a row per image: the original with both crops, the teacher's view, the student's.",
    examples=(
        ("kdx-views", "the views of kdx-train"),
        ("kdx-views views=funmatch resolution.student=8", "crop, mixing and resolution of FunMatch"),
        ("kdx-views data=glyphs resolution.teacher=64 resolution.student=16", "other images"),
        ("kdx-views data=imagefolder data.root=FOLDER hydra.run.dir=DIR", "your own images, into DIR"),
    ),
    more_keys=("data", "teacher"),
    more_groups=train.MORE_GROUPS,
    groups=("data", "mixing", "augmentation", "views", "teacher", "experiment"),
    keys=("name", "seed", "outputs", "resolution", "interpolation"),
    note="All other keys and groups of kdx-train are accepted and have no effect.",
)


def _draw(cfg: DictConfig) -> None:
    config = check(cfg)
    from kdx.experiment import build

    parts = build.parts(config)
    from kdx.experiment.train import show_views
    from kdx.run.folder import RunFolder

    print(show_views(parts, RunFolder(Path(HydraConfig.get().runtime.output_dir))))


def main() -> NoReturn:
    """Run kdx-views."""
    app.run(app.Command(GUIDE, check, _draw))


if __name__ == "__main__":
    main()
