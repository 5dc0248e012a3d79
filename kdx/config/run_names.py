"""Names of the folders of runs and sweeps, as resolvers for conf/folders.yaml: the same command finds its folder again."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from kdx.config.hydra_versions import register_resolver
from kdx.config.influence import PLACE, UNRELATED

INTERACTIVE = ("bash", "zsh", "sh", "interactive")  # names of Slurm jobs in which a person types commands
LOCAL = ("localhost", "127.0.0.1", "::1")
# What a command may say otherwise and still mean the same sweep: where and how its jobs run. Their names and number count.
ELSEWHERE = ("launcher", "hydra", *(path for path in (*UNRELATED, *PLACE) if path not in ("name", "baselines")))


def now() -> str:
    """Return the local time as the name of a folder."""
    return datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")


def run_id(words: Sequence[str]) -> str:
    """Return the name of a run's folder: the time; in a cluster's job, what is the same on all ranks and after a requeue.

    The words of the command are part of it, because a job may run several commands.
    """
    job = _cluster_job()
    return now() if job is None else f"{job}-{_hash(words)[:6]}"


def sweep_id(sweep: str, words: Sequence[str]) -> str:
    """Return the name of a sweep's folder: for `auto` a hash of what the command sweeps over, the time for `new`, else `sweep`.

    A sweeper that draws values has no jobs to go on with, so `auto` is a new folder.
    """
    if sweep == "new" or (sweep == "auto" and any(word.startswith("hydra/sweeper=") for word in words)):
        return now()
    if sweep != "auto":
        return sweep
    counted = what_it_computes(words)
    named = next((word.partition("=")[2] for word in counted if re.fullmatch(r"experiment=\w+", word)), "sweep")
    return f"{named}-{_hash(counted)[:8]}"


def what_it_computes(words: Sequence[str]) -> list[str]:
    """Return the overrides without those that say only where and how a job runs."""
    elsewhere = tuple(f"{path}." for path in ELSEWHERE)
    return [word for word in words if not f"{_key(word)}.".startswith(elsewhere)]


def _key(word: str) -> str:
    return re.sub(r"^[+~]+", "", word).partition("=")[0].partition("@")[0].replace("/", ".")


def _hash(words: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(words).encode()).hexdigest()


def _cluster_job() -> str | None:
    """Return a name that all ranks of this job share, also after a requeue; None outside of a cluster's job."""
    get = os.environ.get
    slurm, name = get("SLURM_JOB_ID"), get("SLURM_JOB_NAME", "")
    if slurm is not None and name not in INTERACTIVE:
        array = get("SLURM_ARRAY_JOB_ID")
        return f"slurm-{array}_{get('SLURM_ARRAY_TASK_ID')}" if array is not None else f"slurm-{slurm}"
    elastic = get("TORCHELASTIC_RUN_ID")
    if elastic not in (None, "", "none"):
        return f"torchrun-{elastic}"
    if int(get("WORLD_SIZE", "1")) < 2:
        return None
    address = get("MASTER_ADDR", "localhost")
    if address not in LOCAL:
        return f"job-{address}-{get('MASTER_PORT', '')}"
    return f"torchrun-{_parent()}"


def _parent() -> str:
    """Return a name for the process that started this one; the ranks of a machine have the same."""
    parent = os.getppid()
    try:
        started = Path(f"/proc/{parent}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        started = "0"
    return f"{parent}-{started}"


def register() -> None:
    """Make the resolvers known to OmegaConf."""
    register_resolver("run_id", run_id)
    register_resolver("sweep_id", sweep_id)
