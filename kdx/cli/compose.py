"""Composition of further configs within a command, with one initialization of Hydra."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra import version
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from kdx.cli.arguments import Arguments
from kdx.config.check import check, conf_dir
from kdx.config.errors import ConfigError
from kdx.config.explain import explain, is_mistake
from kdx.config.schema import RunConfig


@contextmanager
def opened(arguments: Arguments) -> Iterator[None]:
    """Initialize Hydra with the option folders of the command line, for `hydra.compose`."""
    version.setbase("1.3")
    path = create_config_search_path(arguments.options.get("--config-path") or str(conf_dir()))
    config_dir = arguments.options.get("--config-dir")
    if config_dir is not None:  # as hydra.main does
        path.prepend("command-line", f"file://{Path(config_dir).absolute()}", SearchPathQuery(provider="schema"))
    GlobalHydra.instance().clear()
    Hydra.create_main_hydra2(task_name="kdx", config_search_path=path)
    try:
        yield
    finally:
        GlobalHydra.instance().clear()


def compose_train(overrides: Sequence[str]) -> DictConfig:
    """Return the unchecked config of `kdx-train OVERRIDES`. ConfigError if Hydra cannot compose it."""
    try:
        return hydra.compose("train", list(overrides))
    except (HydraException, OmegaConfBaseException, AssertionError, ValueError) as error:
        if not is_mistake(error):
            raise
        raise ConfigError(explain(error, overrides)) from None


def with_data(data: DictConfig) -> RunConfig:
    """Return a checked default config with these data."""
    defaults: Any = OmegaConf.to_container(compose_train(["experiment=none"]))
    return check(OmegaConf.create({**defaults, "data": OmegaConf.to_container(data)}))
