"""Reader of everything below results/{cohort}/ that the page may show; a missing table is an empty one."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from octdino.data.atomic_files import read_text
from octdino.data.cohort_reader import Cohort, read_cohort
from octdino.data.csv_io import read_csv, read_table
from octdino.data.evaluated_runs import EvaluatedRun, evaluated_runs
from octdino.data.schemas.column import Schema
from octdino.data.schemas.csv_schemas import COMPARISON, HISTORY, METRICS, QUARANTINE, SUBGROUPS
from octdino.data.schemas.evaluate_schemas import LABEL_EFFICIENCY, POWER
from octdino.data.schemas.metadata import BackboneMetadata, ClassifierMetadata, read_metadata
from octdino.report.prepared_tables import PreparedTables, prepare

FIGURES = (
    "comparison", "difference", "label_efficiency", "roc", "pr", "reliability", "calibration", "subgroups",
    "labels", "label_difference", "patients_needed",
)  # fmt: skip


@dataclass(frozen=True)
class Pretraining:
    """One pretraining run: its metadata (backbone.json) and its history, one row per epoch."""

    method: str
    backbone: str
    run: str
    metadata: dict[str, Any]
    history: pd.DataFrame


@dataclass(frozen=True)
class Results:
    """The content of results/{cohort}/.

    Attributes:
        root: results/{cohort}.
        cohort: manifest, splits, labels, unit and, where there is a store, images.
        classifiers: folder and classifier.json of each classifier that metrics.csv has; folders of arms, seeds and
            folds that were taken out of the configuration stay, and are no part of the results.
        explained: folders of the explained networks.
        figures: SVG by name.
        benchmarks: one row per job: rule, job, s, max_rss.
    """

    root: Path
    cohort: Cohort
    quarantine: pd.DataFrame
    metrics: pd.DataFrame
    comparison: pd.DataFrame
    subgroups: pd.DataFrame
    label_efficiency: pd.DataFrame
    power: pd.DataFrame
    pretraining: list[Pretraining]
    classifiers: list[tuple[Path, dict[str, Any]]]
    explained: list[Path]
    figures: dict[str, str]
    benchmarks: pd.DataFrame

    @cached_property
    def tables(self) -> PreparedTables:
        """Return the filtered tables of the evaluate stage; they are computed once."""
        return prepare(self.metrics, self.comparison)

    @cached_property
    def pretrained(self) -> dict[str, str]:
        """Return the method of each pretraining run by its name, see `octdino.config.families`."""
        named = {run.method: (run.metadata.get("method") or {}).get("method") for run in self.pretraining}
        return {name: str(method) for name, method in named.items() if method}

    def images(self, scan_ids: list[str]) -> dict[str, np.ndarray]:
        """Return the image of each scan, uint8 [C, H, W]; none where there is no store."""
        if not self.cohort.has_store:
            return {}
        names = self.cohort.manifest["scan_id"]
        rows = np.flatnonzero(names.isin(scan_ids))
        return dict(zip(names.iloc[rows], self.cohort.images(rows), strict=True))


def read_results(root: Path, evaluated: bool = True) -> Results:
    """Read results/{cohort}/.

    Args:
        evaluated: whether there are arms; without them a comparison below evaluate/ is of an earlier configuration
            and is left out.

    Raises:
        UserError: there is no manifest, no metrics although there are classifiers, or a file is invalid.
    """
    cohort = read_cohort(root / "cohort" / "scans.h5", needs_store=False)
    return Results(
        root=root,
        cohort=cohort,
        quarantine=_optional(root / "cohort" / "quarantine.csv", QUARANTINE),
        **(_evaluation(root, cohort) if evaluated else _no_evaluation()),
        pretraining=[_pretraining(path) for path in sorted(root.glob("pretrain/*/*/*/backbone.json"))],
        explained=explained_folders(root),
        benchmarks=read_benchmarks(root / "benchmarks"),
    )


def explained_folders(root: Path) -> list[Path]:
    """Return the folders of the explained networks below results/{cohort}, sorted."""
    return [path.parent for path in sorted(root.glob("explain/*/*/*/explain.json"))]


def _evaluation(root: Path, cohort: Cohort) -> dict[str, Any]:
    """Return what the evaluate stage wrote, and the classifiers that it contains."""
    read = [
        (path.parent, read_metadata(path, ClassifierMetadata, "classify"))
        for path in sorted(root.glob("classify/*/*/*/*/classifier.json"))
    ]
    others = any(any(root.glob(f"{stage}/*/*/*")) for stage in ("pretrain", "explain"))
    needed = bool(read) or not others  # a cohort without labels has something else to show
    metrics = _floats(root / "evaluate" / "metrics.csv", METRICS, needed)
    if len(metrics):
        contained = evaluated_runs(metrics, cohort.splits)
        read = [(folder, metadata) for folder, metadata in read if EvaluatedRun.of(metadata) in contained]
    paths = {name: root / "evaluate" / f"{name}.svg" for name in FIGURES}
    return {
        "metrics": metrics,
        "comparison": _floats(root / "evaluate" / "comparison.csv", COMPARISON, needed),
        "subgroups": _floats(root / "evaluate" / "subgroups.csv", SUBGROUPS, needed=False),
        "label_efficiency": _floats(root / "evaluate" / "label_efficiency.csv", LABEL_EFFICIENCY, needed=False),
        "power": _floats(root / "evaluate" / "power.csv", POWER, needed=False),
        "classifiers": [(folder, metadata.plain()) for folder, metadata in read],
        "figures": {name: read_text(path, "evaluate") for name, path in paths.items() if path.is_file()},
    }


def _no_evaluation() -> dict[str, Any]:
    """Return the same without arms."""
    tables = {
        "metrics": METRICS, "comparison": COMPARISON, "subgroups": SUBGROUPS, "label_efficiency": LABEL_EFFICIENCY,
        "power": POWER,
    }  # fmt: skip
    return {name: _as_floats(_empty(schema), schema) for name, schema in tables.items()} | {
        "classifiers": [], "figures": {},
    }  # fmt: skip


def _floats(path: Path, schema: Schema, needed: bool) -> pd.DataFrame:
    """Return a table whose missing numbers are NaN, which compares as False where pandas' NA raises."""
    return _as_floats(read_table(path, schema) if needed else _optional(path, schema), schema)


def _as_floats(table: pd.DataFrame, schema: Schema) -> pd.DataFrame:
    return table.astype({column.name: "float64" for column in schema if column.dtype == "Float64"})


def _optional(path: Path, schema: Schema) -> pd.DataFrame:
    return read_table(path, schema) if path.is_file() else _empty(schema)


def _empty(schema: Schema) -> pd.DataFrame:
    return pd.DataFrame({column.name: pd.Series(dtype=column.dtype) for column in schema})


def _pretraining(path: Path) -> Pretraining:
    *_, method, backbone, run = path.parent.parts
    history = path.with_name("history.csv")
    table = read_table(history, HISTORY).astype({"epoch": "int64"}) if history.is_file() else pd.DataFrame()
    return Pretraining(method, backbone, run, read_metadata(path, BackboneMetadata, "pretrain").plain(), table)


def read_benchmarks(folder: Path) -> pd.DataFrame:
    """Return Snakemake's benchmark tables, one row per job; the rule is the file's name up to its first dot.

    Seconds in `s`, peak resident memory in `max_rss` (MiB); NaN where the job was too short to be measured.

    Raises:
        UserError: a table cannot be read.
    """
    rows = []
    for path in sorted(folder.rglob("*.tsv")):
        table = read_csv(path, sep="\t", na_values=["-", "NA"])
        if "s" in table and len(table):
            job = path.relative_to(folder).with_suffix("").as_posix()
            rows.append(
                {
                    "rule": job.split("/")[0].split(".")[0],
                    "job": job,
                    "s": pd.to_numeric(table["s"], errors="coerce").mean(),
                    "max_rss": pd.to_numeric(table["max_rss"], errors="coerce").max() if "max_rss" in table else None,
                }
            )
    return pd.DataFrame(rows, columns=["rule", "job", "s", "max_rss"])
