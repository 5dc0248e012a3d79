"""kdx-sweep: look at a sweep, retry its failed jobs, or cancel it."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from kdx.cli import run_folders
from kdx.run import job
from kdx.run.durations import duration
from kdx.run.study import LOG
from kdx.run.sweep_folder import CANCELED, JobStatus, count, read_plan, shown, statuses
from kdx.run.sweep_progress import progress

EXAMPLES = """examples:
  kdx-sweep status outputs/sweeps/NAME     each job: state, attempts, host, epoch, time left, score
  kdx-sweep watch outputs/sweeps/NAME      the same, again and again until all jobs have ended
  kdx-sweep retry outputs/sweeps/NAME      run the sweep's command again, with failed jobs counted as new
  kdx-sweep cancel outputs/sweeps/NAME     stop its running jobs, with checkpoints, and start no others
"""
PURPOSE = "Show how far a sweep is, retry its failed jobs, or cancel it."
SHOWN = 40  # jobs in a table on the terminal; --all for the others
SECONDS = 5.0  # between two looks of watch


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run kdx-sweep."""
    run_folders.leave(_main, arguments)


def _main(arguments: Sequence[str] | None) -> None:
    given = _parser().parse_args(arguments)
    if given.action in ("status", "watch"):
        {"status": status, "watch": watch}[given.action](given.folder, given.all)
    else:
        {"retry": retry, "cancel": cancel}[given.action](given.folder)


def _parser() -> argparse.ArgumentParser:
    parser = run_folders.Parser(
        prog="kdx-sweep", description=PURPOSE, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=("status", "watch", "retry", "cancel"))
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the folder of a sweep, outputs/sweeps/NAME")
    parser.add_argument("--all", action="store_true", help=f"show all jobs, not the first {SHOWN} without finished ones")
    return parser


def status(folder: Path, everything: bool = False) -> list[JobStatus]:
    """Print the state of a sweep and its jobs, and return them."""
    from rich.console import Console
    from rich.table import Table

    whole = progress(folder)
    found = list(whole.jobs)
    listed = found if everything or len(found) <= SHOWN else [job for job in found if job.state != "finished"][:SHOWN]
    table = Table(title=f"{folder}: {whole}", title_justify="left")
    for title in ("job", "state", "attempts", "host", "epoch", "left", "score", "overrides, or the error"):
        table.add_column(title, justify="right" if title in ("attempts", "left", "score") else "left", overflow="fold")
    for one in listed:
        table.add_row(
            one.folder.name,
            one.state,
            str(len(one.attempts)),
            one.host if one.state == "running" else "",
            one.epoch,
            "" if one.seconds_left is None else duration(one.seconds_left),
            "" if one.score is None else f"{one.score:.4f}",
            one.error if one.state == "failed" else " ".join(shown(one.overrides)),
        )
    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(table)
    if len(listed) < len(found):
        console.print(f"{len(found) - len(listed)} more jobs: --all shows them")
    if (folder / CANCELED).exists():
        console.print("canceled: kdx-sweep retry goes on with it")
    return found


def watch(folder: Path, everything: bool = False) -> None:
    """Print the state again and again, until no job is running, or for ever while jobs are still to come."""
    while True:
        if sys.stdout.isatty():
            print("\033[H\033[2J", end="")
        found = count(status(folder, everything))
        if not found.get("running") and not found.get("pending"):
            return
        time.sleep(SECONDS)


def retry(folder: Path) -> None:
    """Run the sweep's command again, in the folder in which it was given; its failed jobs are counted as new.

    Failed trials of kdx-tune stay failed, because the search has learned from them.
    """
    plan = read_plan(folder)
    is_sweep = not (folder / LOG).is_file()
    failed = [one for one in statuses(folder) if one.state == "failed" and is_sweep]
    for one in failed:
        job.forget_failures(one.folder)
    (folder / CANCELED).unlink(missing_ok=True)
    command = [*plan.command, f"sweep={folder.name}"]
    print(f"{len(failed)} failed jobs are tried again: {shlex.join(command)}", file=sys.stderr, flush=True)
    own = Path(sys.argv[0]).with_name(plan.command[0])
    words = [str(own) if own.is_file() else plan.command[0], *command[1:]]
    sys.exit(subprocess.run(words, cwd=plan.folder if Path(plan.folder).is_dir() else None, check=False).returncode)


def cancel(folder: Path) -> None:
    """Keep the sweep from starting further jobs, and stop those that run on this machine, with a checkpoint."""
    found = [one for one in statuses(folder) if one.state == "running"]
    (folder / CANCELED).touch()
    here = socket.gethostname()
    for one in found:
        last = one.attempts[-1]
        if last.host == here:
            with contextlib.suppress(ProcessLookupError):
                os.kill(last.pid, signal.SIGTERM)
        told = "stopped" if last.host == here else "runs on another machine, and stops after this job"
        print(f"{one.folder.name}: {last}: {told}")
    print(f"No further jobs of {folder} start; kdx-sweep retry {folder} goes on with it")


if __name__ == "__main__":
    main()
