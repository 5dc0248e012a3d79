"""Python code of the model card that loads a file of an export and computes logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from kdx.export.request import ExportRequest


def _timm(request: ExportRequest, importing: str | None) -> str:
    place = f"hf-hub:{request.push}" if request.push else "local-dir:."
    return _pytorch(
        request,
        importing,
        imports=(),
        model=[f'model = timm.create_model("{place}", pretrained=True).eval()'],
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
    """Return Python code that creates the model and computes logits."""
    return "\n".join(
        [
            *imports,
            *([f"import {importing}  # registers the architecture in timm"] if importing else []),
            "import timm",
            "import torch",
            "",
            *model,
            f'mean, std = (torch.tensor({trained}[name]).view(1, -1, 1, 1) for name in ("mean", "std"))',
            f"images = torch.rand(2, {', '.join(map(str, request.run.shape))})  # in [0,1]",
            "logits = model((images - mean) / std)",
        ]
    )


def _onnx(request: ExportRequest, importing: str | None, file: str = "student.onnx") -> str:
    return "\n".join(
        [
            "import numpy as np",
            "import onnxruntime",
            "",
            f'session = onnxruntime.InferenceSession("{file}", providers=["CPUExecutionProvider"])',
            f"images = np.random.rand(2, {', '.join(map(str, request.run.shape))}).astype(np.float32)  # in [0,1]",
            '(logits,) = session.run(["logits"], {"images": images})  # the graph includes the normalization',
        ]
    )


def _executorch(request: ExportRequest, importing: str | None, file: str) -> str:
    return "\n".join(
        [
            "import torch",
            "from executorch.runtime import Runtime",
            "",
            f'program = Runtime.get().load_program("{file}")',
            'method = program.load_method("forward")',
            f"images = torch.rand(1, {', '.join(map(str, request.run.shape))})  # one, in [0,1]",
            "(logits,) = method.execute([images])  # the graph includes the normalization",
        ]
    )


SNIPPETS: Mapping[str, Callable[[ExportRequest, str | None], str]] = {
    "timm": _timm,
    "safetensors": _plain,
    "onnx": _onnx,
    "onnx_int8": partial(_onnx, file="student_int8.onnx"),
    "executorch": partial(_executorch, file="student.pte"),
    "executorch_int8": partial(_executorch, file="student_int8.pte"),
}
