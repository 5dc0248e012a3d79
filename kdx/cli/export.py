"""kdx-export: the student of a finished run as verified files for other programs, with a model card; also on the hub."""

from __future__ import annotations

from typing import Any, NoReturn

from omegaconf import DictConfig, OmegaConf

from kdx.cli import app
from kdx.cli.help import Guide
from kdx.export.request import ExportRequest, requested

GUIDE = Guide(
    name="export",
    config="export",
    usage="run=FOLDER [KEY=VALUE ...]",
    purpose="Write the student of a run as files for other programs, and a model card.",
    result="RUN/export/ with a timm folder, safetensors and ONNX; each file's logits are compared with the student's.",
    examples=(
        ("kdx-export run=DIR", "all formats"),
        ("kdx-export run=DIR format=[safetensors] to=FOLDER", "one format, into another folder"),
        ("kdx-export run=DIR format=[onnx,onnx_int8]", "int8, measured before and after rounding"),
        ("kdx-export run=DIR fold_temperature=true", "calibrated: logits / T inside the files"),
        ("kdx-export run=DIR push=USER/NAME", "and upload it to the Hugging Face hub"),
    ),
)


def _request(cfg: DictConfig) -> ExportRequest:
    values: Any = OmegaConf.to_container(cfg)
    return requested(values)


def _export(cfg: DictConfig) -> None:
    request = _request(cfg)
    from kdx.export.folder import export as write
    from kdx.export.rounding_tables import show

    to = write(request)
    show(to)
    print(to)
    if request.push is not None:
        from kdx.export.push import push

        print(push(to, request.push, private=request.private))


def main() -> NoReturn:
    """Run kdx-export."""
    app.run(app.Command(GUIDE, _request, _export))


if __name__ == "__main__":
    main()
