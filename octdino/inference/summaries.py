"""Summaries of predictions by file (the volume of a multi-frame file) and by eye."""

from pathlib import Path

import pandas as pd

from octdino.inference.prediction_tables import TableWriter

GROUPS = {"volumes": ["file"], "eyes": ["patient", "eye"]}


class Summaries:
    """Sums over scans by group and label, added part by part; scans out of distribution are counted and left out."""

    def __init__(self) -> None:
        self._parts: dict[str, list[pd.DataFrame]] = {name: [] for name in GROUPS}

    def add(self, rows: pd.DataFrame) -> None:
        """Add rows as `tidy_table` returns them."""
        for name, keys in GROUPS.items():
            known = (
                rows[(rows["eye"] != "") & (rows["patient"] != "")] if name == "eyes" else rows[rows["frame"].notna()]
            )
            if len(known):
                self._parts[name].append(_sums(known, keys))

    def write(self, out: Path) -> None:
        """Write volumes.csv and eyes.csv; a file without rows is not written, and an older one is deleted."""
        for name, keys in GROUPS.items():
            path = out / f"{name}.csv"
            path.unlink(missing_ok=True)
            if self._parts[name]:
                with TableWriter(path) as table:
                    table.append(_joined(pd.concat(self._parts[name]), keys))


def _sums(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    kept = ~rows["flagged"]
    values = rows.assign(
        n_scans=1,
        n_flagged=rows["flagged"].astype(int),
        total=rows["probability"].where(kept, 0.0),
        highest=rows["probability"].where(kept),
        n_called=(rows["call"] & kept).astype(int),
    )
    return _grouped(values, keys)


def _grouped(values: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    how = {"n_scans": "sum", "n_flagged": "sum", "total": "sum", "highest": "max", "n_called": "sum"}
    return values.groupby([*keys, "label"], sort=False, as_index=False).agg(how)


def _joined(parts: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Return per group and label: n_scans, n_flagged, mean and highest probability, n_called."""
    table = _grouped(parts, keys)
    counted = table["n_scans"] - table["n_flagged"]
    mean = (table["total"] / counted).where(counted > 0)
    table = table.assign(mean_probability=mean, highest_probability=table["highest"])
    return table[[*keys, "label", "n_scans", "n_flagged", "mean_probability", "highest_probability", "n_called"]]
