"""RunRecord folders that no run wrote: realistic files, any numbers."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

NETWORK = {"_target_": "kdx.networks.network.Network", "_partial_": True, "pretrained": False, "init": None}
CE = {"_target_": "kdx.losses.objective.Term", "weight": 0.5, "loss": {"_target_": "kdx.losses.ce.CE", "label_smoothing": 0.0}}
KL = {"_target_": "kdx.losses.kl.KL", "tau_squared": True, "direction": "forward"}
ADAMW = {
    "_target_": "torch.optim.AdamW",
    "_partial_": True,
    "lr": 0.001,
    "betas": [0.9, 0.999],
    "eps": 1e-8,
    "weight_decay": 0.01,
}
RESIZE = {"_target_": "kdx.views.crops.Resize"}
CONFIG: dict[str, Any] = {
    "name": "cqkd_digits",
    "seed": 0,
    "tags": [],
    "outputs": "outputs",
    "resolution": {"teacher": 8, "student": 4},
    "data": {
        "source": {"_target_": "kdx.data.digits.Digits"},
        "root": None,
        "download": False,
        "num_classes": None,
        "eval_crop": RESIZE,
        "train_size": 300,
        "val_share": 0.2,
        "test_share": 0.3,
        "split_seed": 0,
        "batch_size": 64,
        "loader": "auto",
        "num_workers": 0,
        "resident_budget_mb": 2048,
        "cache": None,
        "on_bad_image": "raise",
        "teacher_view": "full",
        "flip": None,
    },
    "views": {"crop": RESIZE, "_target_": "kdx.views.policies.SharedView"},
    "mixing": None,
    "augmentation": None,
    "interpolation": {"teacher": "bilinear", "student": "bilinear"},
    "student": {**NETWORK, "architecture": "cifar_resnet8"},
    "teacher": {
        "network": {**NETWORK, "architecture": "cifar_resnet20"},
        "checkpoint": None,
        "recipe": {"losses": {"ce": {**CE, "weight": 1.0}}, "optimizer": ADAMW, "seed": 0, "trainer": {"max_epochs": 60}},
        "run": None,
        "resolution": None,
        "members": None,
        "combine": "logits",
    },
    "peers": None,
    "calibration": {"_target_": "kdx.teachers.calibration.TemperatureScaling"},
    "temperature": {"_target_": "kdx.temperatures.schedules.Constant", "value": 10.0},
    "losses": {"kl": {"_target_": "kdx.losses.objective.Term", "weight": 0.5, "loss": KL}, "ce": CE},
    "optimizer": ADAMW,
    "decay": "kernels",
    "lr_schedule": {
        "_target_": "kdx.training.optimizers.schedules.CosineLr",
        "warmup_steps": 0,
        "warmup_epochs": 0,
        "final": 0.0,
    },
    "trainer": {
        "_target_": "pytorch_lightning.Trainer",
        "accelerator": "auto",
        "devices": 1,
        "max_epochs": 150,
        "max_steps": -1,
        "accumulate_grad_batches": 1,
    },
    "callbacks": {
        "best": {"_target_": "kdx.training.callbacks.checkpoints.Best", "monitor": "val/student/accuracy", "mode": "max"},
        "progress": {"_target_": "kdx.training.callbacks.progress.RunProgress"},
    },
    "logger": None,
    "monitor": "val/student/accuracy",
    "monitor_mode": "max",
    "selection": "best_val",
    "baseline": None,
    "baselines": [],
    "test": True,
    "ckpt_path": None,
}
SCRATCH: dict[str, Any] = {
    "baseline": "scratch",
    "teacher": None,
    "calibration": None,
    "temperature": None,
    "losses": {"ce": {**CE, "weight": 1.0}},
}
QUALITY = {"accuracy": 0.91, "top5": 0.998, "nll": 0.26, "brier": 0.13, "entropy": 0.28, "ece": 0.02}
METRICS: dict[str, float] = {
    **{f"{split}/student/{what}": value for split in ("val", "test") for what, value in QUALITY.items()},
    **{f"{split}/teacher/{what}": value for split in ("val", "test") for what, value in QUALITY.items()},
    **{f"preflight/teacher/{what}": value for what, value in QUALITY.items()},
    "test/agreement": 0.89,
    "test/kl": 0.27,
    "student/parameters": 77754.0,
    "student/macs": 1_200_000.0,
    "student/latency_ms_1": 1.5,
    "teacher/parameters": 272186.0,
    "images_per_second": 1900.0,
    "seconds": 80.0,
    "peak_memory_mb": 900.0,
    "teacher_share": 0.4,
}
PROVENANCE: dict[str, Any] = {
    "command": ["kdx-train"],
    "overrides": [],
    "git_commit": "9d3e8a3ae3d41d2f5b9d44a2765067885871c203",
    "git_dirty": False,
    "versions": {"kdx": "0.1.0", "python": "3.11.7", "torch": "2.15.0"},
    "hardware": {"platform": "Linux-6.18-x86_64", "cpu_cores": 2, "threads": 1, "gpus": []},
}


def fake_config(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """CONFIG changed by dotted path, e.g. {"temperature.value": 1, "baseline": "scratch"}; a baseline brings all it decides."""
    scratch = SCRATCH if overrides.get("baseline") == "scratch" else {}
    config: dict[str, Any] = json.loads(json.dumps({**CONFIG, **scratch}))  # a copy in which no two nodes are the same object
    for path, value in overrides.items():
        *parents, last = path.split(".")
        node = config
        for parent in parents:
            node = node[parent]
        node[last] = value
    return config


def fake_run(
    folder: Path,
    config: Mapping[str, Any] | None = None,
    metrics: Mapping[str, float | None] | None = None,
    state: str = "finished",
    provenance: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
    group: str | None = None,
    old: bool = False,
    caveats: Mapping[str, str] | None = None,
) -> Path:
    """Write a run folder. `config` by dotted path, `metrics` over METRICS (None takes one away).

    `state`: finished | running | stopped | damaged (metrics.json is cut off). An `old` run has no run.json.
    """
    folder.mkdir(parents=True)
    whole = fake_config(config or {})
    made = {**PROVENANCE, **(provenance or {})}
    (folder / "config.yaml").write_text(yaml.safe_dump(whole, sort_keys=False))
    if not old:
        start = {"config": whole, "provenance": made, "started": f"2026-11-22T18:25:{whole['seed'] % 60:02d}", "group": group}
        (folder / "run.json").write_text(json.dumps(start, indent=2))
    numbers = {name: value for name, value in {**METRICS, **(metrics or {})}.items() if value is not None}
    if whole["teacher"] is None:
        numbers = {
            name: value
            for name, value in numbers.items()
            if "teacher" not in name and name not in ("test/kl", "test/agreement")
        }
    last = {"val/student/accuracy": 0.9, "val/student/nll": 0.3}
    text = f"epoch 29 of 150, the best {whole['monitor']}"
    end = {
        "metrics": numbers,
        "last": last,
        "selection": {"rule": whole["selection"], "monitor": whole["monitor"], "epoch": 29, "text": text},
        "data": {"fingerprint": "d1", "duplicates_in_test": 0, "skipped": {}, **(data or {})},
        "provenance": made,
        "cost": {"protocol": "median of 20 passes after 5"},
        "caveats": dict(caveats or {}),
    }
    written = json.dumps(end, indent=2)
    if state in ("finished", "damaged"):
        (folder / "metrics.json").write_text(written if state == "finished" else written[: len(written) // 2])
    (folder / "metrics.csv").write_text("epoch,step,train/loss,val/student/accuracy\n0,4,2.5,\n0,4,,0.5\n1,9,1.5,\n1,9,,0.75\n")
    if state == "stopped":
        before = time.time() - 3600
        for file in folder.iterdir():
            os.utime(file, (before, before))
    return folder
