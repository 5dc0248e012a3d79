"""The model card of an export (README.md): metrics, calibration, training protocol, how to load the student, limitations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdx.experiment.students import calibration_of_card
from kdx.export import rounding_tables
from kdx.export.finished import FinishedRun
from kdx.export.front_matter import front_matter
from kdx.export.request import ExportRequest
from kdx.export.snippets import SNIPPETS

COLUMNS = ("accuracy", "top5", "nll", "brier", "ece", "ece_mass", "entropy", "auroc")
GRAPHS = {  # files that include the normalization
    "onnx": "student.onnx",
    "onnx_int8": "student_int8.onnx",
    "executorch": "student.pte",
    "executorch_int8": "student_int8.pte",
}
SIZES = {"onnx": "any batch size", "onnx_int8": "any batch size"}  # of the input; others take one image
PRIVATE = ("_target_", "root", "download", "cache")  # arguments of a data source that describe its location, not its content


def model_card(request: ExportRequest, reports: Mapping[str, Mapping[str, Any]], importing: str | None) -> str:
    """Return the model card as Markdown.

    Args:
        request: The export.
        reports: Format -> parity report.
        importing: The module whose import registers the architecture in timm; None if timm provides it.
    """
    run = request.run
    parts = [
        f"# {run.config.get('name', 'student')}: {run.card['architecture']} at {run.card['resolution']} px",
        _summary(run),
        "## Metrics\n\n" + _numbers(run),
        "## Preprocessing\n\n" + _preprocessing(request),
        "## Classes\n\n" + _classes(run),
        "## Calibration\n\n" + _calibration(request),
        *_rounding(request, reports),
        "## Training protocol\n\n" + _protocol(run),
        "## Usage\n\n" + _loading(request, importing),
        "## Parity with the trained student\n\n" + _parity(reports),
        "## Limitations\n\n" + _limits(request),
    ]
    return front_matter(request) + "\n" + "\n\n".join(parts) + "\n"


def _summary(run: FinishedRun) -> str:
    channels, side, _ = run.shape
    classes = run.card["model_args"]["num_classes"]
    taught = "distilled from a teacher" if run.teacher else "trained without a teacher"
    return (
        f"Image classifier with {classes} classes: {run.card['architecture']}, {taught} with kdx. "
        f"Input: images of {side}x{side} px with {channels} channel{'s' if channels > 1 else ''} and values in [0,1]. "
        "Output: logits."
    )


def _numbers(run: FinishedRun) -> str:
    metrics = run.metrics
    split = "test" if any(name.startswith("test/student") for name in metrics) else "val"
    names = [name.split("/") for name in metrics if name.startswith(f"{split}/") and name.count("/") == 2]
    networks = list(dict.fromkeys(network for _, network, _ in names))
    columns = [what for what in COLUMNS if f"{split}/student/{what}" in metrics]
    rows = [f"| {split}, n = 1 | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for network in networks:
        values = [metrics.get(f"{split}/{network}/{what}") for what in columns]
        rows.append(f"| {network} | {' | '.join('' if value is None else f'{value:.4f}' for value in values)} |")
    caveat = "" if split == "test" else " The run was not tested; the epoch was selected on these val images, so the metrics "
    caveat += "" if split == "test" else "are optimistic."
    units = "Accuracy is a fraction, NLL and entropy are in nats, ECE uses 15 equal-width bins"
    own = [f"Caveat: {text}" for text in run.result.get("caveats", {}).values()]
    return "\n\n".join(["\n".join(rows), f"One run with one seed. {units}.{caveat}", *own])


def _preprocessing(request: ExportRequest) -> str:
    run = request.run
    cfg = run.card["pretrained_cfg"]
    _, side, _ = run.shape
    if "crop_mode" not in cfg:
        crop = (run.config.get("data") or {}).get("eval_crop") or {}
        region = f"cut out the box of `{crop.get('_target_', 'an unknown crop')}`, which timm's transforms do not have"
    elif cfg["crop_mode"] == "squash":
        region = "use the whole image, without keeping its aspect ratio"
    else:
        region = f"cut out the central square of {cfg['crop_pct']:g} of the shorter side (`crop_pct`)"
    aliased = str(run.card.get("interpolation")).endswith("_aliased")
    mean, std = (", ".join(f"{value:g}" for value in cfg[name]) for name in ("mean", "std"))
    graphs = [GRAPHS[name] for name in request.formats if name in GRAPHS]
    included = f"; the graph in {' and '.join(graphs)} does this itself" if graphs else ""
    steps = [
        f"- crop: {region}",
        f"- resize: to {side}x{side} px, {cfg['interpolation']}, with{'out' if aliased else ''} antialiasing",
        f"- normalize: values in [0,1], minus mean ({mean}), divided by std ({std}), per channel{included}",
    ]
    return "In this order, as on val and test:\n\n" + "\n".join(steps)


def _classes(run: FinishedRun) -> str:
    names = run.card.get("label_names")
    count = run.card["model_args"]["num_classes"]
    if names is None:
        return f"Outputs 0 to {count - 1}; the data set has no class names."
    return "The outputs in their order: " + ", ".join(f"{i} {name}" for i, name in enumerate(names))


def _calibration(request: ExportRequest) -> str:
    fitted = request.run.calibration_temperature
    if fitted is None:
        return "No calibration temperature was fitted to this student: its probabilities are the softmax of the raw logits."
    how = (
        f"The calibration temperature T = {fitted:.4f} minimizes the NLL of softmax(logits / T) on val (temperature scaling, "
        "Guo et al. 2017, arXiv:1706.04599). Test images were not used."
    )
    scaled = "The `_scaled` rows of the table include it."
    if request.temperature is None:
        return f"{how} It is **not** included in these files: divide the logits by T. {scaled}"
    return f"{how} It **is** included in these files: their last layer is divided by T. {scaled}"


def _rounding(request: ExportRequest, reports: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the section on files in int8, if there are any."""
    folded = request.temperature is not None
    texts = [
        rounding_tables.section(report["rounding"], GRAPHS[name], folded=folded)
        for name, report in reports.items()
        if "rounding" in report
    ]
    return ["## Rounding to int8\n\n" + "\n\n".join(texts)] if texts else []


def _protocol(run: FinishedRun) -> str:
    config, provenance = run.config, run.result.get("provenance", {})
    data, selection = config.get("data") or {}, run.result.get("selection", {})
    source = data.get("source") or {}
    arguments = ", ".join(f"{name}={value}" for name, value in source.items() if value is not None and name not in PRIVATE)
    commit = provenance.get("git_commit") or "unknown"
    facts = {
        "data": f"`{source.get('_target_', 'unknown')}`{f' ({arguments})' if arguments else ''}",
        "data revision": (run.result.get("data") or {}).get("revision"),
        "data fingerprint": (run.result.get("data") or {}).get("fingerprint"),
        "training images": data.get("train_size") or "all of train",
        "losses": ", ".join(config.get("losses") or {}) or None,
        "epochs": (config.get("trainer") or {}).get("max_epochs"),
        "selected weights": f"{selection.get('text', 'unknown')} (rule `{selection.get('rule', 'unknown')}`)",
        "seed": config.get("seed"),
        "commit": f"`{commit}`{' with uncommitted changes' if provenance.get('git_dirty') else ''}",
        "teacher": _teacher(run),
    }
    return "\n".join(f"- {name}: {value}" for name, value in facts.items() if value is not None)


def _teacher(run: FinishedRun) -> str:
    if not run.teacher:
        return "none"
    members = run.teacher.get("members", {"teacher": run.teacher})
    described = [
        f"{name}, sha256 `{member['sha256'][:16]}`, {calibration_of_card(member).text}" for name, member in members.items()
    ]
    return "; ".join(described)


def _loading(request: ExportRequest, importing: str | None) -> str:
    texts = [SNIPPETS[name](request, importing) for name in request.formats]
    where = "Run in this folder:"
    if request.push:
        where = f"timm loads it from the hub; for other files, `hf download {request.push} --local-dir .` first:"
    return f"{where}\n\n" + "\n\n".join(f"```python\n{snippet}\n```" for snippet in texts)


def _parity(reports: Mapping[str, Mapping[str, Any]]) -> str:
    exact = {name: report for name, report in reports.items() if "rounding" not in report}
    lines = [f"- {name}: maximum difference of the logits {report['max_difference']:.1e}" for name, report in exact.items()]
    lines += [f"- {name}: see Rounding to int8" for name in reports if name not in exact]
    for report in exact.values():
        if "latency" in report:
            latency = report["latency"]
            times = ", ".join(f"{ms:.2f} ms in {name[:-5]}" for name, ms in latency.items() if name.endswith("_ms_1"))
            lines.append(f"- latency of one image: {times} ({latency['protocol']})")
    details = "Measured on uniform noise; export.json lists each batch size with its tolerance, and the sha256 of each file."
    return "\n".join(lines) + f"\n\n{details}"


def _limits(request: ExportRequest) -> str:
    run = request.run
    side = run.card["resolution"]
    lines = [
        f"- The student was trained and evaluated at {side} px on the data above; it was not evaluated elsewhere.",
        "- The metrics are from one run; their variation over seeds is unknown.",
        "- Calibration was measured on images of the training distribution and may not hold for other images.",
    ]
    graphs = [name for name in request.formats if name in GRAPHS]
    lines += [f"- {GRAPHS[name]} accepts {SIZES.get(name, 'one image at a time')}, but only {side} px." for name in graphs]
    return "\n".join(lines)
