"""Section of the page on external validation: internal beside external performance of the same classifiers."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from octdino.config import EvaluateSettings
from octdino.data.atomic_files import read_text
from octdino.data.csv_io import one_seed, read_table
from octdino.data.sampling_units import unit
from octdino.data.schemas.csv_schemas import EXTERNAL, FINDINGS, MACRO
from octdino.data.schemas.external_metadata import ExternalMetadata, TestedCohort
from octdino.data.schemas.external_schemas import ALL_LABELS
from octdino.data.schemas.metadata import read_metadata
from octdino.report.conclusions import NOTHING, number, pair, percent
from octdino.report.configured_runs import section
from octdino.report.data_card import Part
from octdino.report.tables import Cell

TRANSFER = {  # metric: its heading; at the temperature and the threshold of the internal validation patients
    "ece_calibrated": "calibration error",
    "calibration_slope_calibrated": "slope",
    "calibration_intercept_calibrated": "intercept",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
}
KEYS = ["fraction", "arm", "backbone"]
NOT_EVALUABLE = Cell("n/e", sort=-math.inf)


@dataclass(frozen=True)
class ExternalCohort:
    """An external cohort on the page.

    Attributes:
        lines: what was tested, and how far it can be trusted.
        scores, transfer, labels: rows of the three tables; `heads` and so on are their heads.
    """

    name: str
    tested: TestedCohort
    lines: list[str]
    heads: list[str]
    scores: list[list[Cell]]
    transfer_heads: list[str]
    transfer: list[list[Cell]]
    label_heads: list[str]
    labels: list[list[Cell]]


@dataclass(frozen=True)
class External:
    """All external cohorts, and the figure (SVG)."""

    cohorts: list[ExternalCohort]
    figure: str


def external_section(root: Path, config: dict[str, Any], evaluated: EvaluateSettings) -> External | None:
    """Return the section from results/{cohort}/evaluate; None where no external cohort was tested or is asked for.

    Args:
        config: the settings of all stages; with a section `evaluate` only its external cohorts are shown.

    Raises:
        UserError: external.csv, external.json, external.svg or findings.csv is missing or damaged.
    """
    path = root / "evaluate" / "external.csv"
    asked = section(config, "evaluate")
    names = {each.name for each in evaluated.external}
    if not path.is_file() or (asked and not names):
        return None
    metadata = read_metadata(path.with_suffix(".json"), ExternalMetadata, "external")
    table = read_table(path, EXTERNAL)
    table = table.astype({column.name: "float64" for column in EXTERNAL if column.dtype == "Float64"})
    shown = {name: tested for name, tested in metadata.cohorts.items() if not asked or name in names}
    overlaps = _overlaps(root)
    cohorts = [
        _cohort(name, tested, table[table["cohort"] == name], evaluated, overlaps.get(f"external/{name}", 0))
        for name, tested in shown.items()
    ]
    return External(cohorts, read_text(path.with_suffix(".svg"), "external")) if cohorts else None


def _overlaps(root: Path) -> dict[str, int]:
    """Return the number of scans that the audit found in both cohorts, by the finding's place."""
    path = root / "audit" / "findings.csv"
    if not path.is_file():
        return {}
    found = read_table(path, FINDINGS)
    found = found[found["check"] == "external"]
    return dict(zip(found["where"].astype(str), found["count"].astype(int), strict=True))


def _cohort(
    name: str, tested: TestedCohort, table: pd.DataFrame, evaluated: EvaluateSettings, overlap: int
) -> ExternalCohort:
    table = one_seed(table).sort_values("fraction", kind="stable")  # arms stay in the order of the table
    several = len(set(table["backbone"])) > 1
    heads = ["labels", "arm", *(["backbone"] if several else [])]
    macro = table[table["label"] == MACRO]
    shares = {tuple(row[KEYS]): row for _, row in table[table["label"] == ALL_LABELS].iterrows()}
    scores, transfer = [], []
    for key, part in macro.groupby(KEYS, sort=False):
        own = {str(row["metric"]): row for _, row in part.iterrows()}
        first = _key_cells(key, several)
        scores.append([*first, *_value_cells(own["auroc"]), _distribution_cell(shares.get(tuple(key)))])
        transfer.append([*first, *(cell for metric in TRANSFER for cell in _value_cells(own[metric])[:2])])
    largest = table["fraction"].max()
    auroc = table[(table["metric"] == "auroc") & (table["fraction"] == largest) & (table["label"] != MACRO)]
    labels = [
        [
            _label(str(row["label"]), str(row["internal_labels"])),
            *_key_cells((row["fraction"], row["arm"], row["backbone"]), several)[1:],
            *_value_cells(row),
            Cell(f"{row['n_internal_positive']} / {row['n_internal_patients']}", sort=int(row["n_internal_positive"])),
            Cell(f"{row['n_external_positive']} / {row['n_external_patients']}", sort=int(row["n_external_positive"])),
        ]
        for _, row in auroc.iterrows()
    ]  # fmt: skip
    many = unit(tested.patients).many
    return ExternalCohort(
        name, tested, _lines(tested, macro, evaluated, overlap),
        [*heads, "AUROC, internal", "AUROC, external", "drop", "out of distribution, external"], scores,
        [*heads, *(f"{words}, {side}" for words in TRANSFER.values() for side in ("internal", "external"))], transfer,
        ["label", *heads[1:], "AUROC, internal", "AUROC, external", "drop", "positive, internal",
         f"positive {many}, external"], labels,
    )  # fmt: skip


def _label(label: str, internal: str) -> Cell:
    """Return the cell of a label, with the internal labels where they have other names."""
    return Cell(label, "" if internal == label else internal, label)


def _key_cells(key: Any, several: bool) -> list[Cell]:
    """Return the cells of fraction and arm, and of the backbone where there are several."""
    fraction, arm, backbone = key
    cells = [Cell(percent(float(fraction)), sort=float(fraction)), Cell(str(arm), sort=str(arm))]
    return [*cells, *([Cell(str(backbone), sort=str(backbone))] if several else [])]


def _value_cells(row: pd.Series) -> list[Cell]:
    """Return the cells of the internal value, the external one and the drop."""
    found = []
    for side in ("internal", "external", "drop"):
        value, sign = row[side], side == "drop"
        interval = pair(row[f"{side}_low"], row[f"{side}_high"], sign)
        found.append(NOT_EVALUABLE if pd.isna(value) else Cell(number(value, sign), interval, float(value)))
    return found


def _distribution_cell(row: pd.Series | None) -> Cell:
    """Return the share of external scans out of distribution, with that of internal test scans below it."""
    if row is None or pd.isna(row["external"]):
        return Cell(NOTHING, sort=-math.inf)
    internal = "" if pd.isna(row["internal"]) else f"internal {percent(round(row['internal'], 3))}"
    return Cell(percent(round(row["external"], 3)), internal, float(row["external"]))


def mapping_words(tested: TestedCohort) -> str:
    """Return what each tested label stands for: "AMD: CNV or DRUSEN; DME"."""
    texts = [
        label if names == [label] else f"{label}: {' or '.join(names)}" for label, names in tested.labels.items()
    ]  # fmt: skip
    return "; ".join(texts)


def _lines(tested: TestedCohort, macro: pd.DataFrame, evaluated: EvaluateSettings, overlap: int) -> list[str]:
    many = unit(tested.patients).many
    lines = [f"{tested.n_labeled:,} labeled scans of {tested.n_patients:,} {many}. Tested: {mapping_words(tested)}."]
    if any(len(names) > 1 for names in tested.labels.values()):
        lines.append(
            "Probabilities of the internal labels that one external label stands for are added, as they exclude each "
            "other."
            if tested.exclusive
            else "For an external label that stands for several internal ones p is 1 minus the product of their 1 "
            "\N{MINUS SIGN} p, as if they were independent."
        )
    if tested.patients == "unknown":
        lines.append("Its patients are unknown, each image counts as its own: intervals may be too narrow.")
    if tested.left_out:
        others = ", or one that evaluate.labels leaves out," if evaluated.labels else ""
        lines.append(f"Not tested, as no internal label{others} is mapped to them: {', '.join(tested.left_out)}.")
    if tested.unused:
        lines.append(f"Internal labels without a counterpart here: {', '.join(tested.unused)}.")
    if tested.not_evaluable:
        lines.append(
            f"Not evaluable (n/e), as fewer than {evaluated.min_test_patients} {many} have, or fewer do not have, the "
            f"label in one of the cohorts, or too few have it in the internal one: {', '.join(tested.not_evaluable)}."
        )
    if tested.n_patients < evaluated.small_group:
        lines.append(f"{tested.n_patients} {many} are too few for a validation.")
    if overlap:
        lines.append(f"The audit found {overlap:,} of its scans in the internal cohort: they are no external test.")
    if tested.folds > 1:
        lines.append(
            f"The models of the {tested.folds} folds are scored one by one, and their metrics averaged: an ensemble of "
            "them would score higher than the internal test, in which one model scores each scan."
        )
    return [*lines, *_leading(macro)]


def _leading(macro: pd.DataFrame) -> list[str]:
    """Return a sentence on the arm that leads on the internal test set at the largest fraction."""
    shown = macro[(macro["metric"] == "auroc") & macro["drop"].notna()]
    if shown.empty:
        return []
    best = shown.sort_values(["fraction", "internal"]).iloc[-1]
    certain = best["drop_low"] > 0 or best["drop_high"] < 0
    return [
        f"{best['arm']}, which leads on the internal test set: AUROC {number(best['internal'])} internally, "
        f"{number(best['external'])} here; drop {number(best['drop'], sign=True)} "
        f"{pair(best['drop_low'], best['drop_high'], sign=True)}, an interval that "
        f"{'excludes' if certain else 'contains'} 0."
    ]


def external_limits(external: External | None) -> list[str]:
    """Return what the limitations add; empty without an external cohort."""
    if external is None:
        return []
    return [
        "Scores under External validation are from other cohorts: what their patients, devices and graders each "
        "contribute to a drop cannot be told apart, and a cohort with few patients shows little."
    ]


def external_methods(external: External | None) -> list[str]:
    """Return the paragraph of the methods text; empty without an external cohort."""
    if external is None:
        return []
    tested = [
        f"{one.name} ({one.tested.n_labeled:,} scans of {one.tested.n_patients:,} {unit(one.tested.patients).many}; "
        f"{mapping_words(one.tested)})"
        for one in external.cohorts
    ]
    return [
        f"The same classifiers were tested on {len(tested)} external {'cohort' if len(tested) == 1 else 'cohorts'} "
        f"that no training or selection used: {', '.join(tested)}. Images were prepared as the internal ones; "
        "temperatures and thresholds were those of the internal validation set. Intervals of a drop in performance are "
        "from two independent bootstraps, one per cohort."
    ]


def external_part(external: External | None) -> list[Part]:
    """Return the part of the data card; empty without an external cohort."""
    if external is None:
        return []
    heads = ["cohort", "scans", "labeled scans", "patients or images", "labels tested", "not tested"]
    rows = [
        [one.name, f"{one.tested.n_scans:,}", f"{one.tested.n_labeled:,}", f"{one.tested.n_patients:,}",
         mapping_words(one.tested), ", ".join(one.tested.left_out) or NOTHING]
        for one in external.cohorts
    ]  # fmt: skip
    return [Part("External cohorts", ["Used for testing only; their own splits are not used."], heads, rows)]
