"""What an arm leaves behind: predictions.csv and classifier.json, written and read in one place."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from octdino.errors import UserError
from octdino.files import read_json, replacing
from octdino.tables import PREDICTIONS, label_matrix, probability, read_table, write_table

REQUIRED = ("arm", "backbone", "fraction", "fold", "seed", "thresholds")


@dataclass(frozen=True)
class Predictions:
    """One arm's predictions for the labelled validation and test scans of one fold.

    Attributes:
        folder: where they were read.
        metadata: classifier.json.
        labels: their names, L of them.
        table: predictions.csv, N rows.
    """

    folder: Path
    metadata: dict[str, Any]
    labels: list[str]
    table: pd.DataFrame

    def truth(self) -> np.ndarray:
        """Labels float32 [N, L]: 0, 1, or NaN where missing."""
        return label_matrix(self.table, self.labels)

    def probabilities(self) -> np.ndarray:
        """Predicted probabilities float64 [N, L]."""
        return self.table[[probability(label) for label in self.labels]].to_numpy(np.float64)

    def thresholds(self) -> list[float | None]:
        """The operating point of each label, chosen on validation patients; None where that was impossible."""
        return [self.metadata["thresholds"].get(label) for label in self.labels]

    def temperature(self) -> float | None:
        """What its logits are divided by, fitted on validation patients; None where the card has none."""
        found = (self.metadata.get("calibration") or {}).get("temperature")
        return None if found is None else float(found)

    def take(self, split: str) -> "Predictions":
        """The rows of one split."""
        rows = self.table[self.table["split"] == split].reset_index(drop=True)
        return Predictions(self.folder, self.metadata, self.labels, rows)


def write_predictions(
    out: Path, manifest_rows: pd.DataFrame, labels: list[str], probabilities: np.ndarray, metadata: dict[str, Any]
) -> None:
    """Write `out`/predictions.csv and `out`/classifier.json, each atomically.

    Args:
        manifest_rows: rows of the manifest, N of them, with the label columns; `split` is this fold's, val or test.
        labels: L names.
        probabilities: [N, L] in [0, 1].
        metadata: at least arm, backbone, fraction, fold, seed and thresholds {label: float or None}; whatever else
            somebody needs who wants to know where the numbers come from. Must be plain JSON values.

    Raises:
        UserError: a probability is not a number; the training diverged.
    """
    assert probabilities.shape == (len(manifest_rows), len(labels)), probabilities.shape
    assert not (missing := [key for key in REQUIRED if key not in metadata]), missing
    if not np.isfinite(probabilities).all():
        bad = [label for label, column in zip(labels, probabilities.T, strict=True) if not np.isfinite(column).all()]
        raise UserError(
            f"{out}: probabilities of {', '.join(bad)} are not numbers: the training diverged; lower the lr"
        )
    table = manifest_rows[[column.name for column in PREDICTIONS] + labels].reset_index(drop=True)
    predicted = pd.DataFrame(np.asarray(probabilities, np.float64), columns=[probability(label) for label in labels])
    write_table(out / "predictions.csv", pd.concat([table, predicted], axis=1), PREDICTIONS)
    with replacing(out / "classifier.json") as temporary:
        text = json.dumps({**metadata, "labels": labels}, indent=2, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def read_predictions(folder: Path) -> Predictions:
    """Read what `write_predictions` wrote.

    Raises:
        UserError: a file, a key or a column is missing, or a value is impossible.
    """
    path = folder / "classifier.json"
    metadata = read_json(path, "classify")
    if missing := [key for key in (*REQUIRED, "labels") if key not in metadata]:
        raise UserError(f"{path}: no {', '.join(missing)}")
    labels = [str(label) for label in metadata["labels"]]
    path = folder / "predictions.csv"
    table = read_table(path, PREDICTIONS)
    wanted = labels + [probability(label) for label in labels]
    if missing := [name for name in wanted if name not in table.columns]:
        raise UserError(f"{path}: no column {', '.join(missing)}")
    for name in wanted:
        values = pd.to_numeric(table[name], errors="coerce").astype("Float64")
        known = table[name].notna()
        low_high = values[known].between(0, 1) if name not in labels else values[known].isin([0, 1])
        if (name not in labels and not known.all()) or not low_high.fillna(False).all():
            expected = "0, 1 or empty" if name in labels else "a probability between 0 and 1 in each row"
            raise UserError(f"{path}: column {name}: expected {expected}")
        table[name] = values
    if not (side := table["split"].isin(["val", "test"])).all():
        raise UserError(f"{path}: scan {table['scan_id'][~side].iloc[0]} has split {table['split'][~side].iloc[0]!r}")
    if (twice := table["scan_id"].duplicated()).any():
        raise UserError(f"{path}: scan {table['scan_id'][twice].iloc[0]} stands in two rows; expected one a scan")
    return Predictions(folder, metadata, labels, table)
