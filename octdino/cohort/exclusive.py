"""Whether a cohort's labels exclude each other, and what says so."""

import logging

import numpy as np
import pandas as pd

from octdino.cohort.scan_table import Rows
from octdino.config.cohort import CohortSettings
from octdino.errors import UserError

log = logging.getLogger("octdino.cohort")


def exclusive_labels(scans: pd.DataFrame, rows: Rows, settings: CohortSettings) -> tuple[bool, str]:
    """Whether each labelled scan has exactly one of the labels, and what says so.

    Args:
        scans: the accepted scans.

    Returns:
        Whether one softmax over all labels is right, and the origin of the answer: `setting` (cohort.exclusive),
        `cohort` (as it is published, or class folders) or `table` (what its rows hold).

    Raises:
        UserError: cohort.exclusive is true and a labelled scan has no positive label, several, or an empty cell.
    """
    truth = rows.truth.loc[scans.index].to_numpy(np.float32, na_value=np.nan)
    known = ~np.isnan(truth)
    one = known.all(1) & (np.nansum(truth, axis=1) == 1)
    odd = known.any(1) & ~one
    if settings.exclusive is not None:
        if settings.exclusive and odd.any():
            row = int(np.argmax(odd))
            raise UserError(
                f"cohort.exclusive: {scans['path'].iloc[row]} has {int(np.nansum(truth[row]))} positive labels "
                f"({odd.sum()} such scans); expected exactly one, and no empty cell"
            )
        return settings.exclusive, "setting"
    if rows.exclusive is not None:
        return rows.exclusive, "cohort"
    found = len(rows.labels) > 1 and not odd.any() and bool((truth == 1).any(0).all())
    if found:
        log.warning(
            "each of the %d labelled scans has exactly one of the labels %s: they are treated as classes, with one "
            "softmax over all and an accuracy; cohort.exclusive: false treats each label on its own",
            one.sum(), ", ".join(rows.labels),
        )  # fmt: skip
    else:
        log.info("each label is treated on its own; cohort.exclusive: true treats them as classes, one per scan")
    return found, "table"
