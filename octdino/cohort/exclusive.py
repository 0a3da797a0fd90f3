"""Mutually exclusive labels (classes): whether a cohort has them, and which source says so."""

import logging

import numpy as np
import pandas as pd

from octdino.cohort.scan_table import ScanTable
from octdino.config.cohort import CohortSettings
from octdino.data.csv_io import label_matrix
from octdino.errors import UserError

log = logging.getLogger("octdino.cohort")


def check_exclusive(table: ScanTable, settings: CohortSettings) -> None:
    """Check that with cohort.exclusive true each labeled scan has exactly one positive label, before images are read.

    Raises:
        UserError: a labeled scan has no positive label, several, or an empty cell.
    """
    truth = label_matrix(table.truth, table.labels)
    if settings.exclusive and (odd := _labeled(truth) & ~_one_positive(truth)).any():
        row = int(np.argmax(odd))
        raise UserError(
            f"cohort.exclusive: {table.scans['path'].iloc[row]} has {int(np.nansum(truth[row]))} positive labels "
            f"({odd.sum()} such scans); expected exactly one, and no empty cell"
        )


def exclusive_labels(scans: pd.DataFrame, table: ScanTable, settings: CohortSettings) -> tuple[bool, str]:
    """Return whether each labeled scan has exactly one positive label, and which source says so.

    Args:
        scans: the accepted scans.

    Returns:
        Whether one softmax over all labels is right, and the source of the answer: `setting` (cohort.exclusive),
        `cohort` (as published, or class folders) or `table` (the labels of its rows).
    """
    if settings.exclusive is not None:
        return settings.exclusive, "setting"
    if table.exclusive is not None:
        return table.exclusive, "cohort"
    truth = label_matrix(table.truth.loc[scans.index], table.labels)
    labeled = _labeled(truth)
    each_one = not (labeled & ~_one_positive(truth)).any()
    exclusive = len(table.labels) > 1 and each_one and bool((truth == 1).any(0).all())
    if exclusive:
        log.warning(
            "each of the %d labeled scans has exactly one of the labels %s: they are treated as classes, with one "
            "softmax over all and an accuracy; cohort.exclusive: false treats each label on its own",
            labeled.sum(), ", ".join(table.labels),
        )  # fmt: skip
    else:
        log.info("each label is treated on its own; cohort.exclusive: true treats them as classes, one per scan")
    return exclusive, "table"


def _labeled(truth: np.ndarray) -> np.ndarray:
    """Bool [N], whether any label of a scan is known."""
    known: np.ndarray = (~np.isnan(truth)).any(axis=1)
    return known


def _one_positive(truth: np.ndarray) -> np.ndarray:
    """Bool [N], whether all labels of a scan are known and exactly one is positive."""
    one: np.ndarray = (~np.isnan(truth)).all(axis=1) & (np.nansum(truth, axis=1) == 1)
    return one
