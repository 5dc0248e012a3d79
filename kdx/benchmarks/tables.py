"""The tables of kdx-benchmark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from kdx.benchmarks.request import KEPT

if TYPE_CHECKING:
    from kdx.benchmarks.session import Measured

SHARES = ("data", "teacher", "student", "loss", "backward", "optimizer", "rest")
HEADINGS = {"data": "From files to pixels, one thread", "classes": "Losses and metrics, batch 64"}


def machine_line(about: Mapping[str, Any]) -> str:
    """Return the machine in one line."""
    gpus = f", {', '.join(about['gpus'])}" if about["gpus"] else ""
    threads = f"{about['cores']} cores, {about['threads']} threads"
    return f"{about['processor']}, {threads}{gpus}, torch {about['versions']['torch']}, kdx {about['versions']['kdx']}"


def steps(runs: Mapping[str, Measured]) -> Table:
    """Return the table of training steps: a row per setting and variant."""
    heading = ("setting", "variant", "kdx", "bare", "bare / kdx", "quartiles", "without data", "/ kdx")
    caption = (
        "bare: with its data, torchvision in the same process; without data: a step on images that are there; kdx has its data"
    )
    table = Table(*heading, *SHARES, title="Training steps", caption=caption)
    for name, measured in runs.items():
        for variant, one in measured.variants.items():
            low, high = one["quartiles_with_data"]
            cells = [f"{one['kdx_ms']:.1f} ms", f"{one['bare_with_data_ms']:.1f} ms", f"{one['ratio_with_data']:.2f}"]
            cells += [f"{low:.2f}-{high:.2f}", f"{one['bare_ms']:.1f} ms", f"{one['ratio']:.2f}"]
            table.add_row(name, variant, *cells, *(f"{one['shares'][part]:.0%}" for part in SHARES))
    return table


def processes(runs: Mapping[str, Measured], peak: float | None) -> Table:
    """Return the table of whole processes; `peak` are the FLOP/s that a GPU can reach, for MFU."""
    heading = ("setting", "start-up", "bare", "memory", "bare", "images/s", "model / kernel", "MFU", "kernel before, after")
    table = Table(*heading, title="Processes")
    for name, one in runs.items():
        seconds = [f"{one.start_seconds[who]:.1f} s" for who in ("kdx", "bare")]
        memory = [f"{one.memory_mb[who]:,.0f} MiB" for who in ("kdx", "bare")]
        speeds = [f"{speed:,.0f}{f' on {ranks} ranks' if ranks > 1 else ''}" for ranks, speed in one.images_per_second.items()]
        computed = [
            found["kdx_ms"] for variant, found in one.variants.items() if variant != KEPT
        ]  # the others read the teacher's part
        flops = one.step_flops / min(computed) * 1e3 if computed else math.nan
        before, after = one.kernel_flops
        shares = f"{2 * flops / (before + after):.0%}", "not measured" if peak is None else f"{flops / peak:.1%}"
        kernel = f"{before / 1e9:,.0f}, {after / 1e9:,.0f} GFLOP/s"
        table.add_row(name, *seconds, *memory, ", ".join(speeds), *shares, kernel)
    return table


def parts(name: str, rows: Sequence[tuple[str, str, str]]) -> Table:
    """Return the table of a setting that is no run."""
    table = Table("what", "result", "compared with", title=HEADINGS[name])
    for row in rows:
        table.add_row(*row)
    return table
