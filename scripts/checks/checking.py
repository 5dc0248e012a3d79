"""What the checks share: kdx-train as a process, and a command line."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

Check = Callable[[Path, argparse.Namespace], bool]


def start(words: list[str], log: Path, *module: str, **environment: str) -> subprocess.Popen[bytes]:
    """Start kdx-train with one thread, in a session of its own; what it prints goes to a file. `module` is run before it."""
    command = [sys.executable, "-m", *module, "kdx.cli.train", *words]
    with log.open("ab") as file:
        own = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        return subprocess.Popen(command, stdout=file, stderr=file, env=own, start_new_session=True)


def run(parser: argparse.ArgumentParser, *checks: Check) -> None:
    """Do the checks in `--folder`, or in a temporary one, and exit with status 0 if all are as they should be."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--folder", type=Path, help="where the runs are kept; by default a temporary one")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = (given.folder or Path(temporary)).absolute()
        root.mkdir(parents=True, exist_ok=True)
        right = [check(root, given) for check in checks]
    print("as it should be" if all(right) else f"WRONG: {right}")
    sys.exit(0 if all(right) else 1)
