"""A command of kdx as a Hydra app: help, checks, error messages and exit status."""

from __future__ import annotations

import errno
import functools
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from kdx.cli import arguments, preview
from kdx.cli.arguments import Arguments
from kdx.cli.help import Guide, help_text, info_text
from kdx.cli.pipes import close_pipe
from kdx.config import plugins
from kdx.config.check import conf_dir
from kdx.config.explain import explain, is_mistake
from kdx.config.hydra_versions import of_main
from kdx.run.masking import masked_output, secrets_in
from kdx.run.provenance import VERSION

FAILED, MISUSED, INTERRUPTED, TERMINATED = 1, 2, 130, 143
# What to do when a folder cannot be written, by the number of the error.
DISK = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some, and the same command goes on"),
    errno.EROFS: "outputs=FOLDER (KDX_OUTPUTS) chooses another folder",
    errno.EACCES: "give permission, or choose another folder: outputs=FOLDER (KDX_OUTPUTS) for what is written",
}


@dataclass(frozen=True)
class Command:
    """A command: the guide for its help, the check that `--cfg job` runs, and the job, a function of the composed config.

    With `start`, the command does what follows the help itself, as a function of the arguments: Hydra runs no job.
    """

    guide: Guide
    check: Callable[[DictConfig], Any]
    job: Callable[[DictConfig], Any]
    start: Callable[[Arguments], None] | None = None


def run(command: Command) -> NoReturn:
    """Run a command and exit with status 0, 2 for an invalid configuration, or 1 for a failure while running.

    Errors are printed in one line, with a traceback only with HYDRA_FULL_ERROR=1. Nothing that is printed contains a secret.
    """
    with masked_output(secrets_in(sys.argv[1:])):
        _run(command)


def _run(command: Command) -> NoReturn:
    # This variable makes Hydra raise exceptions instead of printing them. Ranks that Lightning starts inherit it, so the
    # user's value is passed on in another variable.
    os.environ.setdefault("KDX_FULL_ERROR", os.environ.get("HYDRA_FULL_ERROR", "0"))
    os.environ["HYDRA_FULL_ERROR"] = "1"
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # huge pages: torch, imported later, renders large batches faster
    parsed = Arguments()
    try:
        parsed = arguments.parse(sys.argv[1:])
        plugins.trust(parsed.trust)
        plugins.add_folders(parsed.config_dirs)
        for folder in parsed.config_dirs:
            plugins.check_run_config(folder)
        execute(command, parsed)
        sys.stdout.flush()
    except BrokenPipeError:
        close_pipe()
    except KeyboardInterrupt:
        _leave_interrupted()
    except SystemExit as error:  # Lightning exits with 0 after SIGTERM, which a scheduler would read as success
        if isinstance(error.__context__, KeyboardInterrupt):  # before the first step, Lightning exits with 1
            _leave_interrupted()
        sys.exit(TERMINATED if type(error).__name__ == "SIGTERMException" else error.code)
    except Exception as error:
        status = report(error, parsed)
        _print_report_command()
        sys.exit(status)
    sys.exit(0)


def _leave_interrupted() -> NoReturn:
    print("kdx: interrupted", file=sys.stderr)
    _print_report_command()
    sys.exit(INTERRUPTED)


def execute(command: Command, parsed: Arguments) -> None:
    """Print help or a config, or run the job."""
    group = parsed.options.get(arguments.INFO)
    if "--help" in parsed.options:
        print(help_text(command.guide))
        return
    if "--version" in parsed.options:
        print(f"kdx {VERSION}")
        return
    if arguments.INFO in parsed.options and group not in arguments.HYDRA_INFO:
        print(info_text(command.guide, group, parsed.config_dirs))
        return
    if command.start is not None:
        command.start(parsed)
        return
    if parsed.options.get("--cfg") == "job":
        config_name = parsed.config_name or command.guide.config
        if "--multirun" in parsed.options:
            preview.print_sweep(parsed, config_name, command.check)
            return
        preview.check_job(parsed, config_name, command.check)
    sys.argv = [sys.argv[0], *parsed.for_hydra]
    main = hydra.main(**of_main(), config_path=str(conf_dir()), config_name=command.guide.config)
    try:
        main(_carrying(command.job))()
    except _JobFailedError as failed:
        raise failed.error from None


class _JobFailedError(BaseException):
    """The exception of a single run. Hydra passes it on without printing the overrides, as it does for an Exception."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def _carrying(job: Callable[[DictConfig], Any]) -> Callable[[DictConfig], Any]:
    """Return the job, whose exceptions become `_JobFailedError`; not in a sweep, where further jobs may follow."""

    @functools.wraps(job)
    def carrying(cfg: DictConfig) -> Any:
        try:
            return job(cfg)
        except Exception as error:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise
            raise _JobFailedError(error) from error

    return carrying


def report(error: Exception, parsed: Arguments | None = None) -> int:
    """Print the error in one line. Return the exit status: 2 for an invalid configuration, else 1."""
    if os.environ.get("KDX_FULL_ERROR") == "1":
        traceback.print_exception(error)
    parsed = parsed or arguments.parse(sys.argv[1:])
    if is_mistake(error):
        print(f"kdx: {explain(error, parsed.overrides, parsed.config_dirs)}", file=sys.stderr)
        return MISUSED
    if isinstance(error, OSError) and error.errno in DISK:
        print(f"kdx: {error.filename or 'output'}: {os.strerror(error.errno)}; {DISK[error.errno]}", file=sys.stderr)
        return FAILED
    bug = isinstance(error, (AttributeError, TypeError, NameError, LookupError))  # in code, perhaps the user's own
    hint = " (HYDRA_FULL_ERROR=1 prints the traceback)" if bug else ""
    print(f"kdx: {type(error).__name__}: {error}{hint}", file=sys.stderr)
    return FAILED


def _print_report_command() -> None:
    """Print the kdx-report command for the finished runs of an interrupted sweep, which has no comparison."""
    sweep = os.environ.get("KDX_SWEEP_DIR")  # set when its first job starts
    if sweep is not None and any(Path(sweep).glob("*/job.json")) and os.environ.get("LOCAL_RANK", "0") == "0":
        print(
            f"kdx: sweep incomplete; the same command goes on with it. For a report of its finished runs: kdx-report {sweep}",
            file=sys.stderr,
        )
