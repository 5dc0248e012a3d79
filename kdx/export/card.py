"""README.md of an export: what the student is, how it was made and measured, how to load it, and what not to expect."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kdx.export.finished import FinishedRun
from kdx.export.request import ExportRequest

COLUMNS = ("accuracy", "top5", "nll", "brier", "ece", "ece_mass", "entropy", "auroc")
PRIVATE = ("_target_", "root", "download")  # a source's arguments that say where it was, not what it is


def model_card(request: ExportRequest, reports: Mapping[str, Mapping[str, Any]], importing: str | None) -> str:
    """The text. `reports` are those of each format; `importing` is the module that makes timm know the architecture."""
    run = request.run
    parts = [
        f"# {run.config.get('name', 'student')}: {run.card['architecture']} at {run.card['resolution']} px",
        _summary(run),
        "## Numbers\n\n" + _numbers(run),
        "## Calibration\n\n" + _calibration(request),
        "## Protocol\n\n" + _protocol(run),
        "## Load it\n\n" + _loading(request, importing),
        "## Compared with the trained student\n\n" + _parity(reports),
        "## Limits\n\n" + _limits(request),
    ]
    return "\n\n".join(parts) + "\n"


def _summary(run: FinishedRun) -> str:
    channels, side, _ = run.shape
    classes = run.card["model_args"]["num_classes"]
    taught = "distilled from a teacher" if run.teacher else "trained without a teacher"
    return (
        f"A {run.card['architecture']} that tells {classes} classes apart in images of {side}x{side} px with {channels} "
        f"channel{'s' if channels > 1 else ''}, {taught} by kdx. It takes images in [0,1] and gives logits."
    )


def _numbers(run: FinishedRun) -> str:
    metrics = run.metrics
    split = "test" if any(name.startswith("test/student") for name in metrics) else "val"
    known = [name.split("/") for name in metrics if name.startswith(f"{split}/") and name.count("/") == 2]
    people = list(dict.fromkeys(who for _, who, _ in known))
    columns = [what for what in COLUMNS if f"{split}/student/{what}" in metrics]
    rows = [f"| {split}, n = 1 | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for who in people:
        values = [metrics.get(f"{split}/{who}/{what}") for what in columns]
        rows.append(f"| {who} | {' | '.join('' if value is None else f'{value:.4f}' for value in values)} |")
    chosen = "" if split == "test" else " This run was not tested: these are the images that chose the epoch, so they flatter."
    units = "accuracy is a fraction, entropy in nats, ECE has 15 equal-width bins"
    return "\n".join(rows) + f"\n\nOne run, one seed: {units}.{chosen}"


def _calibration(request: ExportRequest) -> str:
    fitted = request.run.calibration_temperature
    if fitted is None:
        return "No calibration temperature was fitted to this student: softmax of its logits is what training left."
    how = (
        f"T = {fitted:.4f} minimizes the NLL of softmax(logits / T) on val (Guo et al. 2017, arXiv:1706.04599); never on test."
    )
    if request.temperature is None:
        return f"{how} It is **not** in these files: divide the logits by it yourself. Rows named `_scaled` are with it."
    return f"{how} It **is** in these files: their last layer is divided by it. In the table, rows named `_scaled` are with it."


def _protocol(run: FinishedRun) -> str:
    config, provenance = run.config, run.result.get("provenance", {})
    data, selection = config.get("data") or {}, run.result.get("selection", {})
    source = data.get("source") or {}
    arguments = ", ".join(f"{name}={value}" for name, value in source.items() if name not in PRIVATE)
    commit = provenance.get("git_commit") or "unknown"
    facts = {
        "data": f"`{source.get('_target_', 'unknown')}`{f' ({arguments})' if arguments else ''}",
        "fingerprint of the data": (run.result.get("data") or {}).get("fingerprint"),
        "training images": data.get("train_size") or "all of train",
        "image seen in testing": f"`{(data.get('eval_crop') or {}).get('_target_', 'unknown')}`, resized "
        f"{(config.get('interpolation') or {}).get('student', 'bilinear')}",
        "losses": ", ".join(config.get("losses") or {}) or None,
        "epochs": (config.get("trainer") or {}).get("max_epochs"),
        "weights": f"{selection.get('text', 'unknown')} (rule `{selection.get('rule', 'unknown')}`)",
        "seed": config.get("seed"),
        "commit": f"`{commit}`{', with changes that were not committed' if provenance.get('git_dirty') else ''}",
        "teacher": _teacher(run),
    }
    return "\n".join(f"- {name}: {value}" for name, value in facts.items() if value is not None)


def _teacher(run: FinishedRun) -> str:
    if not run.teacher:
        return "none"
    members = run.teacher.get("members", {"teacher": run.teacher})
    described = [
        f"{name}, sha256 `{member['sha256'][:16]}`, calibration temperature {member['calibration_temperature']:.4f}"
        for name, member in members.items()
    ]
    return "; ".join(described)


def _loading(request: ExportRequest, importing: str | None) -> str:
    snippets = [SNIPPETS[name](request, importing) for name in request.formats]
    return "In this folder:\n\n" + "\n\n".join(f"```python\n{snippet}\n```" for snippet in snippets)


def _timm(request: ExportRequest, importing: str | None) -> str:
    return _pytorch(
        request,
        importing,
        imports=(),
        model=['model = timm.create_model("local-dir:.", pretrained=True).eval()'],
        trained="model.pretrained_cfg",
    )


def _plain(request: ExportRequest, importing: str | None) -> str:
    return _pytorch(
        request,
        importing,
        imports=("import json", "import pathlib", ""),
        model=[
            'card = json.loads(pathlib.Path("student.json").read_text())',
            'weights = "student.safetensors"',
            'model = timm.create_model(card["architecture"], checkpoint_path=weights, **card["model_args"]).eval()',
        ],
        trained='card["pretrained_cfg"]',
    )


def _pytorch(request: ExportRequest, importing: str | None, imports: Sequence[str], model: Sequence[str], trained: str) -> str:
    """How to make the model and feed it, whichever file it comes from."""
    return "\n".join(
        [
            *imports,
            *([f"import {importing}  # makes timm know the architecture"] if importing else []),
            "import timm",
            "import torch",
            "",
            *model,
            f'mean, std = (torch.tensor({trained}[name]).view(1, -1, 1, 1) for name in ("mean", "std"))',
            f"images = torch.rand(2, {', '.join(map(str, request.run.shape))})  # in [0,1]",
            "logits = model((images - mean) / std)",
        ]
    )


def _onnx(request: ExportRequest, importing: str | None) -> str:
    return "\n".join(
        [
            "import numpy as np",
            "import onnxruntime",
            "",
            'session = onnxruntime.InferenceSession("student.onnx", providers=["CPUExecutionProvider"])',
            f"images = np.random.rand(2, {', '.join(map(str, request.run.shape))}).astype(np.float32)  # in [0,1]",
            '(logits,) = session.run(["logits"], {"images": images})  # the graph normalizes',
        ]
    )


SNIPPETS: Mapping[str, Callable[[ExportRequest, str | None], str]] = {"timm": _timm, "safetensors": _plain, "onnx": _onnx}


def _parity(reports: Mapping[str, Mapping[str, Any]]) -> str:
    lines = [f"- {name}: logits differ by at most {report['max_difference']:.1e}" for name, report in reports.items()]
    for report in reports.values():
        if "latency" in report:
            spent = report["latency"]
            lines.append(
                f"- one image: {spent['onnxruntime_ms_1']:.2f} ms in onnxruntime, {spent['pytorch_ms_1']:.2f} ms in PyTorch "
                f"({spent['protocol']})"
            )
    return "\n".join(lines) + "\n\nOn uniform noise; export.json has each batch size, its tolerance, and the files' sha256."


def _limits(request: ExportRequest) -> str:
    run = request.run
    side = run.card["resolution"]
    lines = [
        f"- Trained and measured at {side} px on the data above; at other resolutions, and on other images, nothing is known.",
        "- One run: another seed gives other numbers, and the table says nothing of how far they would be off.",
        "- Calibration was measured on images like those of training; it does not carry over to others.",
    ]
    if "onnx" in request.formats:
        lines.append(f"- student.onnx takes any batch size, and {side} px only.")
    return "\n".join(lines)
