"""Weights & Biases logger: online if an API key is configured, else offline for a later `wandb sync`."""

from __future__ import annotations

import json
import logging
import netrc
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import WandbLogger

from kdx.run.masking import mask, web_link
from kdx.training.loggers.journal import FinalReport, Journal, Row, RunInfo

log = logging.getLogger("kdx")
ID = "wandb.json"  # in the run's folder from its start, so that a resumed run goes on in the same W&B run


class Wandb(Journal, WandbLogger):
    """A W&B run of its own. `mode`: online | offline | disabled; by default online where a key is configured, else offline.

    Name, group, job type and tags come from the run (its overrides, its sweep, what baseline it is) where they are None. With
    `artifacts` the student is stored as an artifact whose input is the teacher's. If the server cannot be reached at the start,
    the run is logged offline.
    """

    def __init__(
        self,
        save_dir: str,
        project: str = "kdx",
        entity: str | None = None,
        name: str | None = None,
        group: str | None = None,
        tags: Sequence[str] = (),
        job_type: str | None = None,
        mode: str | None = None,
        init_timeout: float = 20.0,
        artifacts: bool = True,
    ) -> None:
        super().__init__(save_dir=save_dir, project=project, log_model=False)  # starts no run
        self.given = {"name": name, "group": group, "job_type": job_type}
        self.project, self.entity, self.tags, self.mode = project, entity, list(tags), mode
        self.init_timeout, self.artifacts, self.folder = init_timeout, artifacts, save_dir

    def begin(self, about: RunInfo) -> None:
        """Start the W&B run, or go on with the one of the run that this one resumes."""
        defaults = {"name": about.name[:128], "group": about.group, "job_type": about.job_type}
        chosen = {key: value or defaults[key] for key, value in self.given.items()}
        tags = [mask(tag)[:64] for tag in dict.fromkeys([*self.tags, *about.tags])]
        resumed = _id(about.resumed) if about.resumed is not None else None
        again = {"id": resumed, "resume": "allow"} if resumed else {}
        arguments = {"dir": self.folder, "project": self.project, "entity": self.entity, "tags": tags, **chosen, **again}
        run = _start(arguments, self.mode or os.environ.get("WANDB_MODE"), self.init_timeout)
        super().__init__(experiment=run, save_dir=self.folder, log_model=False)  # Lightning takes a run nowhere else
        (Path(self.folder) / ID).write_text(json.dumps(card(run, self.project)) + "\n", encoding="utf-8")
        self._axes(about)
        self.log_hyperparams(dict(about.config))

    def _axes(self, about: RunInfo) -> None:
        run = self.experiment
        for axis in ("epoch", "trainer/global_step"):
            run.define_metric(axis, hidden=True)
        for names, axis in (("train/*", "trainer/global_step"), ("val/*", "epoch"), ("preflight/*", "epoch")):
            run.define_metric(names, step_metric=axis)
        run.define_metric(about.monitor, step_metric="epoch", summary=f"{about.mode},last")

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        super().log_metrics(metrics, step)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The resolved config, as plain nested data."""
        self.experiment.config.update(params, allow_val_change=True)

    def picture(self, name: str, path: Path) -> None:
        self.log_image(name, [str(path)])

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        self.log_table(name, list(columns), [list(row) for row in rows])

    def conclude(self, about: RunInfo, conclusion: FinalReport) -> None:
        """The summary, by which dashboards sort, and the artifacts. `selected/` values are also logged, to steer sweeps."""
        run = self.experiment
        val = {name: value for name, value in conclusion.metrics.items() if name.startswith("val/")}
        selected = {f"selected/{name}": value for name, value in val.items()}
        final = {**{name: value for name, value in conclusion.metrics.items() if name not in val}, **selected}
        final |= {f"last/{name}": value for name, value in conclusion.last.items()}
        if conclusion.best is not None:
            final[f"best/{about.monitor}"] = conclusion.best
        caveats = {f"caveats/{kind}": text for kind, text in conclusion.caveats.items()}
        run.summary.update(
            {**final, **caveats, "selection": conclusion.selection["rule"], "selected_epoch": conclusion.selection["epoch"]}
        )
        run.log(selected)  # a sweep reads what is logged; `val/` values are those of every epoch
        if self.artifacts:
            self._keep(about, conclusion)

    def _keep(self, about: RunInfo, conclusion: FinalReport) -> None:
        import wandb

        run = self.experiment
        for name, sha in conclusion.teachers.items():
            teacher = wandb.Artifact(f"teacher-{sha[:12]}", "model", metadata={"member": name, "sha256": sha})
            teacher.add_file(str(about.folder / "teacher.json"))
            _use(run, teacher)
        inputs = [f"teacher-{sha[:12]}" for sha in conclusion.teachers.values()]
        numbers = {name: value for name, value in conclusion.metrics.items() if name.startswith("test/student/")}
        metadata = {"teachers": inputs, "selection": dict(conclusion.selection), "metrics": numbers}
        student = wandb.Artifact(f"student-{run.id}", "model", metadata=metadata)
        for file in ("student.safetensors", "student.json", "config.yaml"):
            student.add_file(str(about.folder / file))
        run.log_artifact(student, aliases=["latest", conclusion.selection["rule"]])

    def alert(self, title: str, text: str) -> None:
        self.experiment.alert(title=title, text=text, level="ERROR")

    def close(self, failed: bool) -> None:
        self.experiment.finish(exit_code=int(failed))


def card(run: Any, project: str) -> dict[str, str]:
    """Return what a folder says of its W&B run: id and project, and the address of an online run, without any key in it."""
    return {"id": run.id, "project": project} | ({} if run.offline else {"url": web_link(run.url)})


def _use(run: Any, artifact: Any) -> None:
    """Record an artifact as input of a run. Offline, `use_artifact` refuses what can be synced later."""
    if not run.offline:
        run.use_artifact(artifact)
        return
    try:
        record = run._log_artifact
    except AttributeError as error:
        import wandb

        raise RuntimeError(f"wandb {wandb.__version__} records no input of an offline run as 0.31 does: {error}") from error
    record(artifact, use_after_commit=True)


def _start(arguments: dict[str, Any], mode: str | None, timeout: float) -> Any:
    import wandb

    command, sys.argv = sys.argv, [mask(word) for word in sys.argv]  # W&B records it
    try:
        return _init(wandb, arguments, mode, wandb.Settings(init_timeout=timeout, silent=True, console="off"))
    finally:
        sys.argv = command


def _init(wandb: Any, arguments: dict[str, Any], mode: str | None, settings: Any) -> Any:
    mode = mode or ("online" if _has_key() else "offline")
    try:
        return wandb.init(mode=mode, settings=settings, reinit="create_new", **arguments)
    except Exception as error:  # no server, no key, no right to the project: the run does not depend on any of them
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        log.warning("W&B cannot be reached (%s): this run is logged offline; upload it later with `wandb sync`", reason)
        return wandb.init(mode="offline", settings=settings, reinit="create_new", **arguments)


def _id(folder: Path) -> str | None:
    try:
        run_id: str = json.loads((folder / ID).read_text(encoding="utf-8"))["id"]
    except (OSError, ValueError, KeyError):
        return None
    return run_id


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        hosts = netrc.netrc().hosts
    except (OSError, netrc.NetrcParseError):
        return False
    return os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("//")[-1].split("/")[0] in hosts
