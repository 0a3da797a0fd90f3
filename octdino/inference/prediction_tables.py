"""Tables of predict: one row per scan and label, refused files, and writing them part by part."""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from octdino.data.atomic_files import replacing
from octdino.data.formula_cells import escape_formulas
from octdino.inference.ensemble import Ensemble
from octdino.inference.scan_inputs import Refused, ScanInput
from octdino.inference.scan_model import Outputs

TIDY = {
    "scan": "int64", "file": "string", "frame": "Int64", "patient": "string", "eye": "string", "label": "string",
    "probability": "float64", "threshold": "float64", "call": "bool", "out_of_distribution": "float64",
    "flagged": "bool",
}  # fmt: skip
QUARANTINE = {"file": "string", "frame": "Int64", "reason": "string", "detail": "string"}


def tidy_table(scans: list[ScanInput], numbers: list[int], ensemble: Ensemble, outputs: Outputs | None) -> pd.DataFrame:
    """Return one row per scan and label, with the columns of TIDY.

    scan is the number of the scan among the inputs, from 1, as in the names of overlays; probability is calibrated;
    threshold is on the same scale, and empty where labels exclude each other (the most probable one is called);
    out_of_distribution above 1 is flagged.
    """
    if outputs is None:
        return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in TIDY.items()})
    labels = len(ensemble.labels)
    values = {
        "scan": np.repeat(np.asarray(numbers) + 1, labels),
        **{name: np.repeat([getattr(scan, name) for scan in scans], labels) for name in ("file", "patient", "eye")},
        "frame": np.repeat(pd.array([scan.frame for scan in scans], dtype="Int64"), labels),
        "label": np.tile(ensemble.labels, len(scans)),
        "probability": outputs.probabilities.ravel(),
        "threshold": np.tile(ensemble.thresholds(), len(scans)),
        "call": outputs.calls.ravel(),
        "out_of_distribution": np.repeat(outputs.out_of_distribution, labels),
        "flagged": np.repeat(outputs.out_of_distribution > 1, labels),
    }
    return pd.DataFrame(values)[list(TIDY)].astype(TIDY)


def quarantine_table(rows: list[Refused]) -> pd.DataFrame:
    """Return one row per refused file or frame: file, frame, reason, detail."""
    return pd.DataFrame(rows, columns=list(QUARANTINE)).astype(QUARANTINE)


class TableWriter:
    """Writer of a CSV or Parquet table, part by part; the file appears under its name when all is written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._replacing = replacing(path)
        self._parquet: Any = None
        self._begun = False

    def __enter__(self) -> Self:
        self._temporary = self._replacing.__enter__()
        return self

    def append(self, table: pd.DataFrame) -> None:
        """Write some rows; all parts have the same columns."""
        if self.path.suffix == ".parquet":
            rows = pa.Table.from_pandas(table, preserve_index=False)
            if self._parquet is None:
                self._parquet = pq.ParquetWriter(self._temporary, rows.schema)
            self._parquet.write_table(rows)
            return
        escape_formulas(table).to_csv(self._temporary, mode="a", header=not self._begun, index=False)
        self._begun = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._parquet is not None:
            self._parquet.close()
        self._replacing.__exit__(kind, error, trace)
