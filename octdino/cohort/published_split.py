"""The published split of OCT2017 without its leak: training scans of tested patients are left out and counted.

Splits are by patient (splits.csv has one row per fold and patient), so a patient that is published in both training
and test cannot stay in both. Protocol `published` keeps the published test set as it is; the training scans of
its patients, and of patients that share identical images with them, go to the quarantine. The same was done in
https://tvst.arvojournals.org/article.aspx?articleid=2778252, where 104,649 of 108,312 training scans remained.
The audit names the leak with these counts.
"""

import logging
from typing import Any

import pandas as pd

from octdino.cohort.scan_table import ScanTable
from octdino.config.cohort import SplitSettings

log = logging.getLogger("octdino.cohort")


def leave_out_tested(table: ScanTable, settings: SplitSettings) -> pd.DataFrame:
    """Remove the published training scans of tested patients from the table, before any image is read; return them."""
    kept, left_out = without_tested(table.scans.assign(group=table.scans["patient"]), table, settings)
    table.scans = table.scans.loc[kept.index]
    table.truth = table.truth.loc[kept.index]
    return left_out


def without_tested(
    scans: pd.DataFrame, table: ScanTable, settings: SplitSettings
) -> tuple[pd.DataFrame, pd.DataFrame]:  # fmt: skip
    """Split scans into those to keep and, with protocol `published`, training scans of groups that are tested.

    Args:
        scans: columns group and given_split.
        table: its quarantine receives the scans that are left out.
    """
    tested = set(scans.loc[scans["given_split"] == "test", "group"]) if settings.protocol == "published" else set()
    leaked = scans["group"].isin(tested) & (scans["given_split"] != "test")
    for scan in scans[leaked].itertuples():
        detail = f"patient {scan.patient} is tested by the published split"
        if str(scan.group) != str(scan.patient):
            detail = f"patient {scan.patient} shares identical images with tested patients"
        table.quarantine.add(str(scan.table_path), None, "tested_patient", f"{detail}, which trains on this scan")
    return scans[~leaked], scans[leaked]


def leak_attribute(leaked: list[pd.DataFrame], settings: SplitSettings) -> dict[str, Any]:
    """Return the store's attribute `published_leak` with protocol `published`, else nothing; warn of the leak."""
    if settings.protocol != "published":
        return {}
    scans = pd.concat(leaked)
    counts = {"scans": len(scans), "patients": int(scans["patient"].nunique())}
    if counts["scans"]:
        log.warning(
            "the published split trains on %d scans of %d patients that it also tests, or that share images with them; "
            "they are left out", counts["scans"], counts["patients"],
        )  # fmt: skip
    return {"published_leak": counts}
