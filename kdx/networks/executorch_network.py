"""A network in a .pte file that kdx-export has written for ExecuTorch."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdx.networks.file_network import FileNetwork, card_of, first_line
from kdx.run.quiet import quiet

NOTES, FORWARD = "kdx", "forward"  # methods of a file: its metadata as JSON, and the network


@functools.cache
def runtime() -> Any:
    """Return ExecuTorch's runtime; one per process."""
    with quiet():  # it warns of being experimental
        return importlib.import_module("executorch.runtime").Runtime.get()


class ExecutorchNetwork(FileNetwork):
    """Runs a .pte file by ExecuTorch on the CPU, one image at a time.

    Raises:
        ValueError: executorch is missing, cannot load the file, or the file was not written by kdx-export.
    """

    def __init__(self, file: Path) -> None:
        if importlib.util.find_spec("executorch") is None:
            raise ValueError(f"{file} needs executorch: pip install kdx[executorch]")
        try:
            program = runtime().load_program(file)
            names = program.method_names
            notes = json.loads(program.load_method(NOTES).execute([])[0]) if NOTES in names else {}
            method = program.load_method(FORWARD)
        except RuntimeError as error:
            remedy = "export it again with kdx-export run=FOLDER format=[executorch]"
            raise ValueError(f"ExecuTorch cannot load {file} ({first_line(error)}): {remedy}") from error
        card = card_of(notes.get, file, "executorch")
        super().__init__(file, card, int(method.metadata.output_tensor_meta(0).sizes()[-1]))
        self.program, self.method = program, method  # the method reads the program's memory

    def forward(self, images: Tensor) -> Tensor:
        rows = [self.method.execute([image[None].contiguous()])[0].clone() for image in images.cpu()]  # it reuses its memory
        return torch.cat(rows).to(images.device)
