"""kdx-prepare: write the splits of a data set as shards."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from kdx.cli import app
from kdx.cli.compose import with_data
from kdx.cli.help import Guide
from kdx.config.errors import ConfigError
from kdx.config.schema import DataConfig

GUIDE = Guide(
    name="prepare",
    config="prepare",
    usage="data=OPTION to=FOLDER [data.KEY=VALUE ...]",
    purpose="Write a data set as shards: few large files, for fast or remote storage.",
    result="FOLDER with shards and index.json; and, as the last line, the kdx-train command that uses them.",
    examples=(
        ("kdx-prepare data=glyphs to=FOLDER", "drawn letters"),
        ("kdx-prepare data=imagefolder data.root=IMAGES to=FOLDER", "your own images"),
        ("kdx-train data=shards data.root=FOLDER", "training on the result"),
    ),
    more_keys=("data",),
    more_groups={"crop": "crop@data.eval_crop=OPTION: how val and test images are cropped"},
)


def _check(cfg: DictConfig) -> DataConfig:
    if OmegaConf.is_missing(cfg, "to"):
        raise ConfigError("Missing required option: to=FOLDER")
    if "://" in str(cfg.to):
        raise ConfigError(f"to={cfg.to}: shards can only be written to a local folder: use to=FOLDER, then copy the folder")
    return with_data(cfg.data).data


def _prepare(cfg: DictConfig) -> None:
    data = _check(cfg)
    from kdx.data.shard_writer import write_dataset
    from kdx.data.splits import carve_configured
    from kdx.experiment import build
    from kdx.experiment.data import read_splits

    source, to = build.make(data.source, "data.source"), Path(str(cfg.to)).expanduser().resolve()
    try:
        source.check()
        splits = carve_configured(read_splits(data, source), data)
        write_dataset(source, splits, to, print, skip_bad=data.on_bad_image == "skip")
    except ValueError as error:
        raise ConfigError(str(error)) from None
    crop = HydraConfig.get().runtime.choices["crop@data.eval_crop"]
    print(f"kdx-train data=shards data.root={to} crop@data.eval_crop={crop}")


def main() -> NoReturn:
    """Run kdx-prepare."""
    app.run(app.Command(GUIDE, _check, _prepare))


if __name__ == "__main__":
    main()
