"""Write all predictions into a Parquet file, batch by batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdx.types import Outputs


class Predictions:
    """A Parquet file with a row per example, written in a `with` statement. It gets its name when it is complete.

    Columns: `index` in the split, `label` (null if there is none), and for each network with the prefix `student_` or
    `teacher_`: `predicted` (label), `confidence` (its probability) and `logits` (float32, list of fixed size K).
    """

    def __init__(self, path: Path) -> None:
        self.path, self.draft = path, path.with_name(f".{path.name}.part")
        self.writer: Any = None

    def update(self, outputs: Outputs) -> None:
        """Add a batch."""
        import pyarrow as pa  # type: ignore[import-untyped]  # it has no types
        import pyarrow.parquet as pq  # type: ignore[import-untyped]  # nor has this

        assert outputs.index is not None
        label = pa.nulls(len(outputs.index), pa.int64()) if outputs.label is None else pa.array(outputs.label.cpu().numpy())
        columns = {"index": pa.array(outputs.index.cpu().numpy()), "label": label}
        for name, logits in (("student", outputs.student_logits), ("teacher", outputs.teacher_logits)):
            if logits is not None:
                columns |= {f"{name}_{what}": column for what, column in self._columns(logits).items()}
        table = pa.table(columns)
        if self.writer is None:
            self.writer = pq.ParquetWriter(self.draft, table.schema)
        self.writer.write_table(table)

    @staticmethod
    def _columns(logits: Tensor) -> dict[str, Any]:
        import pyarrow as pa

        logits = logits.to("cpu", torch.float32).contiguous()
        confidence, predicted = logits.to(torch.float64).softmax(-1).max(-1)
        return {
            "predicted": pa.array(predicted.numpy()),
            "confidence": pa.array(confidence.numpy()),
            "logits": pa.FixedSizeListArray.from_arrays(pa.array(logits.flatten().numpy()), logits.shape[1]),
        }

    def __enter__(self) -> Predictions:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self.writer is not None:
            self.writer.close()
            if error is None:
                self.draft.replace(self.path)
            else:
                self.draft.unlink()
