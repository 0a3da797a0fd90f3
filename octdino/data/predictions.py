"""Predictions of one arm, predictions.csv and classifier.json: the one place that writes and reads them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from octdino.data.csv_io import label_matrix, probability_column, read_table, write_table
from octdino.data.schemas.column import Column, Schema
from octdino.data.schemas.csv_schemas import PREDICTIONS
from octdino.data.schemas.metadata import ClassifierMetadata, read_metadata, write_metadata
from octdino.errors import UserError


@dataclass(frozen=True)
class Predictions:
    """One arm's predictions for the labeled validation and test scans of one fold.

    Attributes:
        folder: folder that contains the two files.
        metadata: classifier.json.
        labels: L names.
        table: predictions.csv, N rows.
    """

    folder: Path
    metadata: ClassifierMetadata
    labels: list[str]
    table: pd.DataFrame

    def truth(self) -> np.ndarray:
        """Labels float32 [N, L]: 0, 1, or NaN where missing."""
        return label_matrix(self.table, self.labels)

    def probabilities(self) -> np.ndarray:
        """Predicted probabilities float64 [N, L]."""
        return self.table[[probability_column(label) for label in self.labels]].to_numpy(np.float64)

    def thresholds(self) -> list[float | None]:
        """The decision threshold of each label, chosen on validation patients; None where that was impossible."""
        return [self.metadata.thresholds[label] for label in self.labels]

    def temperature(self) -> float | None:
        """The calibration temperature that divides the logits, fitted on validation patients; None if there is none."""
        return self.metadata.calibration.temperature if self.metadata.calibration else None

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
        metadata: the keys of `ClassifierMetadata` except the labels, and any others that document where the numbers
            come from; plain JSON values.

    Raises:
        UserError: a probability is not finite because training diverged.
    """
    assert probabilities.shape == (len(manifest_rows), len(labels)), probabilities.shape
    check_probabilities(probabilities, labels, str(out))
    checked = ClassifierMetadata.parse({**metadata, "labels": labels}, f"{out}/classifier.json")
    table = manifest_rows[PREDICTIONS.names + labels].reset_index(drop=True)
    predicted = pd.DataFrame(
        np.asarray(probabilities, np.float64), columns=[probability_column(label) for label in labels]
    )
    write_table(out / "predictions.csv", pd.concat([table, predicted], axis=1), PREDICTIONS)
    write_metadata(out / "classifier.json", checked)


def check_probabilities(probabilities: np.ndarray, labels: list[str], where: str) -> None:
    """Check that all probabilities [N, L] are finite.

    Raises:
        UserError: one is not; names `where` and the labels.
    """
    if bad := [label for label, column in zip(labels, probabilities.T, strict=True) if not np.isfinite(column).all()]:
        raise UserError(f"{where}: probabilities of {', '.join(bad)} are not numbers: it diverged; lower classify.lr")


def read_predictions(folder: Path) -> Predictions:
    """Read the predictions of one arm from its folder.

    Raises:
        UserError: a file, a key or a column is missing, or a value is impossible.
    """
    metadata = read_metadata(folder / "classifier.json", ClassifierMetadata, "classify")
    table = read_table(folder / "predictions.csv", schema_of(metadata.labels))
    return Predictions(folder, metadata, metadata.labels, table)


def schema_of(labels: list[str]) -> Schema:
    """The schema of predictions.csv with these labels."""
    truth = [Column(label, "Float64", "as in the manifest", (0, 1)) for label in labels]
    predicted = [
        Column(probability_column(label), "Float64", "predicted probability", low=0, high=1, needed=True)
        for label in labels
    ]
    return Schema((*PREDICTIONS, *truth, *predicted))
