"""The private parts of libraries that kdx uses: they are there, and where they are not the library's version is named."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torchvision
import wandb

from kdx.data.vision import indexed
from kdx.training.datamodule import batches_begun
from kdx.training.interruption import one_collective_less, stop
from kdx.training.loggers.wandb import _use


def test_lightning_counts_the_batches_of_an_epoch() -> None:
    assert batches_begun(pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)) == 0
    with pytest.raises(RuntimeError, match=re.escape(f"pytorch_lightning {pl.__version__}")):
        batches_begun(SimpleNamespace(fit_loop=SimpleNamespace()))


def test_lightning_leaves_training_for_a_signal_and_asks_for_one_before_every_batch() -> None:
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    one_collective_less(trainer)
    stop(trainer)
    assert trainer.received_sigterm
    for use in (one_collective_less, stop):
        with pytest.raises(RuntimeError, match=re.escape(f"pytorch_lightning {pl.__version__}")):
            use(SimpleNamespace(fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace())))


@pytest.mark.parametrize("files", ["_image_files", "_images"])
def test_torchvision_lists_files_and_labels(files: str) -> None:  # of real data sets: tests/data/test_vision.py
    assert indexed(SimpleNamespace(**{files: ["a.jpg"], "_labels": [3]})) == (["a.jpg"], [3])
    with pytest.raises(RuntimeError, match=re.escape(f"torchvision {torchvision.__version__}")):
        indexed(SimpleNamespace(**{files: ["a.jpg"]}))


def test_wandb_records_the_input_of_an_offline_run() -> None:
    assert hasattr(wandb.Run, "_log_artifact"), f"wandb {wandb.__version__}"
    with pytest.raises(RuntimeError, match=f"wandb {wandb.__version__}"):
        _use(SimpleNamespace(offline=True), object())
