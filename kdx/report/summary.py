"""The table of final metrics at the end of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

COLUMNS = ("accuracy", "nll", "ece", "entropy")
FITTED = "calibration_temperature"  # metrics that start with this are temperatures fitted on val


def summary(
    metrics: Mapping[str, float],
    resolution: Mapping[str, int],
    split: str,
    title: str,
    added: Sequence[str] = (),
    baselines: Mapping[str, Mapping[str, float]] | None = None,
) -> Table:
    """Return a table with a row per network: the teacher at both resolutions, the peers, the student.

    The teacher before calibration has a row if calibration changed it.

    Args:
        metrics: Final metrics by flat name; accuracy is a fraction, NLL, entropy and KL are in nats.
        resolution: The resolutions of "teacher" and "student", px.
        split: The split of the final metrics.
        title: The title of the table.
        added: The metrics that the run adds to the built-in ones.
        baselines: Final metrics of the run's baselines, whose students get a row each.
    """
    table = Table(title=title, title_justify="left")
    pairs = ["agreement", "kl", *(name for name in added if f"{split}/{name}" in metrics)]
    columns = [*COLUMNS, *(name for name in added if name not in pairs)]
    for name in ("", "split", "px", *columns, *({"kl": "KL"}.get(name, name) for name in pairs), "parameters"):
        table.add_column(name, justify="left" if name in ("", "split") else "right")
    at = {"teacher": resolution["teacher"], "student": resolution["student"]}
    peers = sorted({name.split("/")[1] for name in metrics if name.startswith(f"{split}/peer_")})
    taught_by = ("peers", at["student"]) if peers else ("teacher", at["teacher"])
    raw, teacher = "preflight/teacher_raw", "preflight/teacher"
    is_calibrated = metrics.get(f"{raw}/entropy") != metrics.get(f"{teacher}/entropy")
    rows = [
        *([("teacher, uncalibrated", raw, "val", at["teacher"], "")] if is_calibrated else []),
        ("teacher", teacher, "val", at["teacher"], ""),
        ("teacher", "preflight/teacher_at_student_resolution", "val", at["student"], ""),
        (taught_by[0], f"{split}/teacher", split, taught_by[1], "teacher"),
        *((peer.replace("_", " "), f"{split}/{peer}", split, at["student"], peer) for peer in peers),
        ("student", f"{split}/student", split, at["student"], "student"),
    ]
    for network, prefix, split_name, pixels, counted in rows:
        if f"{prefix}/entropy" not in metrics:
            continue
        numbers = [_number(metrics, f"{prefix}/{name}") for name in columns]
        against = {"student": split}.get(network, prefix if network.startswith("peer ") else None)
        pair = [_number(metrics, f"{against}/{name}") if against else "" for name in pairs]
        count = f"{int(metrics[f'{counted}/parameters']):,}" if f"{counted}/parameters" in metrics else ""
        table.add_row(network, split_name, str(pixels), *numbers, *pair, count)
    for name, values in (baselines or {}).items():
        numbers = [_number(values, f"{split}/student/{metric}") for metric in columns]
        pair = [_number(values, f"{split}/{metric}") for metric in pairs]
        table.add_row(f"baseline: {name}", split, str(at["student"]), *numbers, *pair, f"{int(values['student/parameters']):,}")
    return table


def verdict(metrics: Mapping[str, float], baseline: Mapping[str, float], split: str, name: str) -> str:
    """Return a sentence that says which student is ahead on this seed, by how much: accuracy, NLL and ECE.

    A difference in ECE below the ECE of a perfectly calibrated student on these images is within chance.
    """
    parts = []
    for metric, less_is_better in (("accuracy", False), ("nll", True), ("ece", True)):
        key = f"{split}/student/{metric}"
        if key in metrics and key in baseline:
            difference = metrics[key] - baseline[key]
            better = "equal" if abs(difference) < 0.0005 else "better" if (difference < 0) == less_is_better else "worse"
            if abs(difference) < metrics.get(f"{key}_by_chance", 0.0):
                better = "within chance"
            title = metric if metric == "accuracy" else metric.upper()
            parts.append(f"{title} {difference:+.3f} ({better})".replace("-", "\N{MINUS SIGN}"))
    return f"On this seed, against {name}: {', '.join(parts)}." if parts else f"Nothing to compare with {name} without labels."


def _fitted(name: str) -> str:
    """Return what a temperature is that was fitted on val: of the teacher or one of its members, or one that is not in use."""
    unused = {"/student": "student", "/teacher_scaled": "teacher"}.get(name.removeprefix(FITTED))
    if unused is not None:
        return f"T that would calibrate the {unused}:"
    return f"T that calibrates the teacher{name.removeprefix(FITTED).replace('_', ' ')}:"


def _number(metrics: Mapping[str, float], name: str) -> str:
    return f"{metrics[name]:.4f}" if name in metrics else ""


def show(
    metrics: Mapping[str, float],
    resolution: Mapping[str, int],
    split: str,
    title: str,
    footer: str,
    added: Sequence[str] = (),
    baselines: Mapping[str, Mapping[str, float]] | None = None,
    caveats: Sequence[str] = (),
) -> None:
    """Print the table, and below it a line with calibration temperatures, throughput, time and `footer`, and the caveats."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=120 + 12 * len(added))
    console.print(summary(metrics, resolution, split, title, added, baselines))
    facts = []
    for name, value in metrics.items():
        if name.startswith(FITTED):
            facts.append(f"{_fitted(name)} {value:.3f}")
    if f"{split}/student/ece_by_chance" in metrics:
        facts.append(f"ECE by chance {metrics[f'{split}/student/ece_by_chance']:.3f}")
    if "images_per_second" in metrics:
        facts.append(f"{metrics['images_per_second']:,.0f} images/s")
    if "seconds" in metrics:
        facts.append(f"{metrics['seconds']:.0f} s")
    if "teacher_seconds" in metrics:
        facts.append(f"teacher {metrics['teacher_seconds']:.0f} s")
    console.print(" · ".join([*facts, footer]), highlight=False, soft_wrap=True)
    for caveat in caveats:
        console.print(f"Caveat: {caveat}", highlight=False, soft_wrap=True, markup=False)
