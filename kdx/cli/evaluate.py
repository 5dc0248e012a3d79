"""kdx-evaluate: evaluate a finished run again, or any network on any data set, under shifts."""

from __future__ import annotations

from typing import Any, NoReturn

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from kdx.cli import app
from kdx.cli.compose import with_data
from kdx.cli.help import Guide
from kdx.evaluation.request import EvaluationRequest, request, run_of

GUIDE = Guide(
    name="evaluate",
    config="evaluate",
    usage="run=FOLDER|student=FILE|checkpoint=FILE|timm=NAME|file=FILE [KEY=VALUE ...]",
    purpose="Evaluate a finished run again, or any network on any data set, under shifts.",
    result=(
        "A table of accuracy, NLL, calibration and entropy; and files with all metrics, per class and per shift, in "
        "RUN/evaluations/ or in to=FOLDER."
    ),
    examples=(
        ("kdx-evaluate run=DIR", "the test metrics of the run again"),
        ("kdx-evaluate run=DIR split=val resolution=[8,4]", "another split, at two resolutions"),
        ("kdx-evaluate run=DIR shift=all severities=[1,3,5]", "noise, blur, JPEG, contrast, fewer pixels"),
        ("kdx-evaluate file=DIR/student_int8.onnx shift=noise", "an exported file"),
        ("kdx-evaluate timm=resnet50 data=imagenet_a data.root=DIR to=FOLDER", "a pretrained timm network"),
    ),
    more_keys=("data",),
)


def _request(cfg: DictConfig) -> EvaluationRequest:
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    return request(plain)


def _check(cfg: DictConfig) -> None:
    run_of(_request(cfg))


def _evaluate(cfg: DictConfig) -> None:
    requested = _request(cfg)
    run = run_of(requested)
    if requested.again:
        from kdx.experiment.evaluate import evaluate as evaluate_run
        from kdx.run.folder import RunFolder

        assert run is not None and requested.folder is not None
        split, folder = requested.split_of(run), RunFolder(requested.folder)
        assert split != "all"
        folder.write(f"evaluation-{split}.json", {"metrics": evaluate_run(run, folder, split)})
        return
    settings = HydraConfig.get()
    other = None if requested.data is None else with_data(cfg.data)
    data_name = "own" if other is None else settings.runtime.choices["data"]
    from kdx.evaluation.session import evaluate as evaluate_any

    evaluate_any(requested, run, other, data_name, settings.overrides.task)


def main() -> NoReturn:
    """Run kdx-evaluate."""
    app.run(app.Command(GUIDE, _check, _evaluate))


if __name__ == "__main__":
    main()
