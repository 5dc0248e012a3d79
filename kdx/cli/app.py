"""A command of kdx as a Hydra app: its help, its checks, its messages and its exit status."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import hydra
from omegaconf import DictConfig

from kdx.cli import arguments, preview
from kdx.cli.arguments import Arguments
from kdx.cli.help import Guide, help_text, info_text
from kdx.cli.pipes import close_pipe
from kdx.config import plugins
from kdx.config.check import conf_dir
from kdx.config.errors import ConfigError
from kdx.config.explain import explain, is_mistake
from kdx.config.hydra_versions import of_main

FAILED, MISUSED, INTERRUPTED, TERMINATED = 1, 2, 130, 143
RESUME = "kdx-train --config-dir=RUN --config-name=rerun ckpt_path=RUN/checkpoints/last.ckpt"


@dataclass(frozen=True)
class Command:
    """A command: what its help says, what `--cfg job` checks, and what it does with the composed config."""

    guide: Guide
    check: Callable[[DictConfig], Any]
    job: Callable[[DictConfig], Any]


def run(command: Command) -> NoReturn:
    """Run a command and exit: with 0, with 2 after a mistake in the configuration, with 1 after a failure while running.

    Mistakes and failures are printed as one sentence, with a traceback only under HYDRA_FULL_ERROR=1.
    """
    # Hydra must raise exceptions instead of printing them, which this variable makes it do; the ranks that Lightning
    # starts inherit it, so what the user wanted travels in another.
    os.environ.setdefault("KDX_FULL_ERROR", os.environ.get("HYDRA_FULL_ERROR", "0"))
    os.environ["HYDRA_FULL_ERROR"] = "1"
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # huge pages: torch, imported later, renders large batches faster
    given = Arguments()
    try:
        given = arguments.parse(sys.argv[1:])
        plugins.add_folders(given.config_dirs)
        for fault in map(plugins.run_config_fault, given.config_dirs if given.config_name == "rerun" else ()):
            if fault is not None:
                raise ConfigError(fault)
        _answer(command, given)
        sys.stdout.flush()
    except BrokenPipeError:
        close_pipe()
    except KeyboardInterrupt:
        print("kdx: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except SystemExit as error:  # Lightning leaves with 0 after SIGTERM, which a scheduler would take for success
        if isinstance(error.__context__, KeyboardInterrupt):  # Lightning saved last.ckpt and left with 1
            print(f"kdx: interrupted; to resume: {RESUME}", file=sys.stderr)
            _name_sweep()
            sys.exit(INTERRUPTED)
        sys.exit(TERMINATED if type(error).__name__ == "SIGTERMException" else error.code)
    except Exception as error:
        status = report(error, given)
        _name_sweep()
        sys.exit(status)
    sys.exit(0)


def _answer(command: Command, given: Arguments) -> None:
    """Print help or a config, or run the job."""
    group = given.options.get(arguments.INFO)
    if "--help" in given.options:
        print(help_text(command.guide))
        return
    if arguments.INFO in given.options and group not in arguments.HYDRA_INFO:
        print(info_text(command.guide, group, given.config_dirs))
        return
    if given.options.get("--cfg") == "job":
        config_name = given.config_name or command.guide.config
        if "--multirun" in given.options:
            preview.print_sweep(given, config_name, command.check)
            return
        preview.check_job(given, config_name, command.check)
    sys.argv = [sys.argv[0], *given.for_hydra]
    hydra.main(**of_main(), config_path=str(conf_dir()), config_name=command.guide.config)(command.job)()


def report(error: Exception, given: Arguments | None = None) -> int:
    """Print what went wrong as one sentence; returns the exit status, 2 for a mistake in the configuration, else 1."""
    if os.environ.get("KDX_FULL_ERROR") == "1":
        traceback.print_exception(error)
    given = given or arguments.parse(sys.argv[1:])
    if is_mistake(error):
        print(f"kdx: {explain(error, given.overrides, given.config_dirs)}", file=sys.stderr)
        return MISUSED
    print(f"kdx: {type(error).__name__}: {error}", file=sys.stderr)
    return FAILED


def _name_sweep() -> None:
    """A sweep that was cut off has no comparison; say how to see the runs there are."""
    sweep = os.environ.get("KDX_SWEEP_DIR")  # set when its first job starts
    if sweep is not None and os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"kdx: the sweep's runs so far: kdx-report {sweep}", file=sys.stderr)
