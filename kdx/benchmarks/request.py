"""The request of kdx-benchmark, checked before torch is imported: settings, variants, and the words of kdx-train for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdx.config.errors import ConfigError, nearest
from kdx.config.overrides import checked_overrides
from kdx.config.requests import typed
from kdx.ranges import Count

COMMON = (
    *("logger=none", "baselines=[]", "preflight=off", "test=false", "callbacks.last.seconds=3600"),
    *("trainer.limit_val_batches=1", "teacher.recipe.trainer.max_epochs=1", "teacher.recipe.trainer.limit_train_batches=2"),
)
PAIRED = (
    *("experiment=none", "losses=[kl]", "temperature=constant", "temperature.value=4", "optimizer=sgd"),
    "trainer.max_epochs=1",
)
GLYPHS = (*PAIRED, "data=glyphs", "data.source.size=32", "data.source.val=64", "data.source.test=64")
CIFAR = (*GLYPHS, "data.source.train=2560", "data.batch_size=64", "resolution.teacher=32", "resolution.student=32")
RUNS: dict[str, tuple[str, ...]] = {
    "digits": ("experiment=cqkd_digits", "data=digits", "trainer.max_epochs=15"),
    "funmatch": ("experiment=funmatch_digits", "trainer.max_epochs=15"),
    "resnet56": (*CIFAR, "network@student=cifar_resnet20", "teacher.network.architecture=cifar_resnet56"),
    "wrn": (*CIFAR, "student.architecture=cifar_wrn_16_2", "teacher.network.architecture=cifar_wrn_40_2"),
    "resnet34": (
        *(*PAIRED, "data=imagefolder", "student.architecture=resnet18", "teacher.network.architecture=resnet34"),
        *(
            "resolution.teacher=224",
            "resolution.student=224",
            "data.batch_size=16",
            "data.loader=streamed",
            "data.num_workers=0",
        ),
    ),
    "bit": (
        *(*GLYPHS, "network@student=bit_r50x1", "teacher.network.architecture=resnetv2_101x1_bit", "data.batch_size=8"),
        *("data.source.train=96", "resolution.teacher=64", "resolution.student=64"),
    ),
}
PARTS = ("data", "classes")  # settings that measure a part of kdx, without a run
SETTINGS = (*RUNS, *PARTS)
KEPT = "kept"
VARIANTS: dict[str, tuple[str, ...]] = {
    "exact": ("speed=exact",),
    "safe": ("speed=safe",),
    KEPT: ("speed=safe", "teacher_cache=auto"),  # measured in the second run
    "compiled": ("speed=safe", "compile=both"),
}


def words_of(setting: str, further: Sequence[str] = ()) -> list[str]:
    """Return the words of kdx-train for a setting that is a run."""
    return [*RUNS[setting], *COMMON, *further]


@dataclass(frozen=True)
class BenchmarkRequest:
    """The keys of conf/benchmark.yaml; the YAML file explains them."""

    settings: list[str]
    variants: list[str]
    words: list[str]
    ranks: Count
    to: str | None

    @property
    def file(self) -> Path | None:
        """The file for the numbers; None to write none."""
        return None if self.to is None else Path(self.to).expanduser()


def request(plain: Mapping[str, Any]) -> BenchmarkRequest:
    """Return the request in a composed config (conf/benchmark.yaml) as plain data.

    Raises:
        ConfigError: If the config is invalid; the message ends with the remedy.
    """
    asked = typed(BenchmarkRequest, plain)
    for kind, names, known in (("setting", asked.settings, SETTINGS), ("variant", asked.variants, tuple(VARIANTS))):
        for name in names:
            if name not in known:
                raise ConfigError(f"Unknown {kind} '{name}'.{nearest(name, list(known))} Available: {', '.join(known)}")
    if not asked.settings or not asked.variants:
        raise ConfigError(f"Nothing to measure: give one of settings={','.join(SETTINGS)} and variants={','.join(VARIANTS)}")
    checked_overrides(asked.words)
    if asked.file is not None and (asked.file.is_dir() or not asked.file.absolute().parent.is_dir()):
        raise ConfigError(f"Cannot write to={asked.to}: give the path of a file in an existing folder")
    return asked
