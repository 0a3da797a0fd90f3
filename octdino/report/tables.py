"""Tables of the page as rows of cells: the text to show, and a number to sort by."""

import math
from typing import Any, NamedTuple

import pandas as pd

from octdino.config.families import family_of, family_rank
from octdino.config.names import CLINICAL, has_own_backbone
from octdino.data.schemas.csv_schemas import REASONS, SPLIT_NAMES
from octdino.report.conclusions import NOTHING, number, outcome_of, pair, percent
from octdino.report.results_reader import Results

SHORT = {
    "accuracy": "accuracy",
    "auroc": "AUROC",
    "average_precision": "AP",
    "f1": "F1",
    "balanced_accuracy": "balanced accuracy",
}


class Cell(NamedTuple):
    """One cell: text, a second line, sort key, a mark (better, worse or best).

    `group`, of a row's first cell, is the heading above the first row that has it.
    """

    text: str
    small: str = ""
    sort: float | str = ""
    mark: str = ""
    group: str = ""


def _shown(results: Results) -> dict[str, str]:
    """Return the macro metrics of these results by name, the leading one first."""
    present = set(results.metrics["metric"])
    return {metric: words for metric, words in SHORT.items() if metric in present}


def backbone_tables(results: Results, reference: str, confidence: float = 0.95) -> list[dict[str, Any]]:
    """Return one table per fraction where there are several backbones: one row per arm, two columns per backbone.

    The columns are the leading metric and its difference to the reference arm, see
    `octdino.config.names.reference_backbone`; a dash where the arm was not run. Arms are grouped by family; the
    reference is the first of its own.
    """
    tables = results.tables
    if not tables.several_backbones:
        return []
    macro = tables.leading[tables.leading["arm"] != CLINICAL]
    paired = tables.paired[tables.paired["reference"] == reference]
    nothing = Cell(NOTHING, sort=-math.inf)
    found = []
    for fraction in sorted(set(macro["fraction"])):
        scores = macro[macro["fraction"] == fraction].set_index(["arm", "backbone"])
        gaps = paired[paired["fraction"] == fraction].set_index(["arm", "backbone"])
        rows = []
        arms = set(scores.index.get_level_values("arm"))
        for arm in sorted(arms, key=lambda arm: (family_rank(arm, results.pretrained), arm != reference, arm)):
            row = [Cell(str(arm), sort=str(arm), group=family_of(arm, results.pretrained))]
            for key in [(arm, backbone) for backbone in tables.backbones]:
                row.append(_score(scores.loc[key]) if key in scores.index else nothing)
                alone = Cell("reference", sort=-math.inf) if arm == reference and key in scores.index else nothing
                row.append(_difference(gaps.loc[key], confidence) if key in gaps.index else alone)
            rows.append(row)
        heads = ["arm", *[SHORT[tables.metric], f"minus {reference}"] * len(tables.backbones)]
        found.append({"fraction": percent(fraction), "groups": tables.backbones, "heads": heads, "rows": rows})
    return found


def is_on_own_backbone(results: Results, reference: str) -> bool:
    """Return whether the reference arm was run on a backbone of its own only, so that no other arm can share it."""
    leading = results.tables.leading
    known = leading.loc[leading["arm"] == reference, "backbone"]
    return bool(len(known)) and all(has_own_backbone(reference, backbone) for backbone in known)


def comparison_heads(results: Results, reference: str) -> list[str]:
    """Return the heads of `comparison_rows`."""
    if results.metrics.empty:
        return []
    backbone = ["backbone"] if results.tables.several_backbones else []
    first, *others = _shown(results).values()
    differences = [f"{first} minus {other}" for other in (reference, CLINICAL)]
    return ["labels", "arm", *backbone, first, *differences, *others]


def comparison_rows(results: Results, reference: str, confidence: float = 0.95) -> list[list[Cell]]:
    """Return fraction, arm, backbone if there are several, leading metric, its differences, the other macro metrics.

    Rows are grouped by fraction and family, in a group the best first.
    """
    macro, paired = results.tables.macro, results.tables.paired
    rows = []
    keys = ["fraction", "arm", "backbone"]
    for fraction, arm, backbone in macro[keys].drop_duplicates().sort_values(keys).itertuples(index=False):
        scores = macro[(macro["fraction"] == fraction) & (macro["arm"] == arm) & (macro["backbone"] == backbone)]
        family, rank = family_of(arm, results.pretrained), family_rank(arm, results.pretrained)
        group = f"{family}, {percent(fraction)} of the labels" if len(set(macro["fraction"])) > 1 else family
        row = [Cell(percent(fraction), sort=fraction, group=group), Cell(str(arm), sort=str(arm))]
        if results.tables.several_backbones:
            row.append(Cell(NOTHING if backbone == "none" else str(backbone), sort=str(backbone)))
        first, *others = [_score(scores[scores["metric"] == metric].iloc[0]) for metric in _shown(results)]
        of_arm = paired[(paired["fraction"] == fraction) & (paired["arm"] == arm) & (paired["backbone"] == backbone)]
        differences = []
        for other in (reference, CLINICAL):
            against = of_arm[of_arm["reference"] == other]
            nothing = Cell(NOTHING, sort=-math.inf)
            differences.append(_difference(against.iloc[0], confidence) if len(against) else nothing)
        rows.append((fraction, rank, -float(first.sort), [*row, first, *differences, *others]))
    return [row for *_, row in sorted(rows, key=lambda found: found[:3])]


def _score(row: pd.Series) -> Cell:
    if pd.isna(row["value"]):
        return Cell("n/e", sort=-math.inf)
    return Cell(number(row["value"]), pair(row["low"], row["high"]), float(row["value"]))


def _difference(row: pd.Series, confidence: float) -> Cell:
    """Return a cell that is marked better or worse by the adjusted p."""
    p = row["p_adjusted"]
    small = f"{pair(row['low'], row['high'], sign=True)}, p {NOTHING if pd.isna(p) else f'{p:.3f}'}"
    mark = outcome_of(row, confidence)
    return Cell(number(row["difference"], sign=True), small, float(row["difference"]), mark if mark != "open" else "")


def label_tables(results: Results) -> list[dict[str, Any]]:
    """Return one table per fraction: label, tier, positive test patients (or images), prevalence, AUROC of each arm."""
    metrics = results.tables.scores
    metrics = metrics[metrics["label"] != "macro"]
    tables = []
    for fraction in sorted(set(metrics["fraction"])):
        part = metrics[metrics["fraction"] == fraction]
        several = len(set(part["backbone"]) - {"none"}) > 1
        arms = sorted(
            set(zip(part["arm"], part["backbone"], strict=True)),
            key=lambda arm: (family_rank(arm[0], results.pretrained), arm),
        )
        rows = []
        for label in results.cohort.labels:
            of_label = part[part["label"] == label]
            auroc = of_label[of_label["metric"] == "auroc"].set_index(["arm", "backbone"])
            if auroc.empty:
                continue
            first = auroc.iloc[0]
            scans = int(first["n_scans"])
            share = first["n_positive"] / scans if scans else float("nan")
            row = [
                Cell(label, sort=label),
                Cell(str(first["tier"]), sort=str(first["tier"])),
                Cell(
                    f"{first['n_positive_patients']} of {first['n_patients']}", sort=float(first["n_positive_patients"])
                ),
                Cell(
                    NOTHING if math.isnan(share) else f"{100 * share:.0f} %", f"{first['n_positive']} of {scans}", share
                ),
            ]
            best = auroc["value"].max()
            for arm in arms:
                if arm not in auroc.index:  # metrics.csv has no such row
                    row.append(Cell(NOTHING, sort=-math.inf))
                    continue
                cell = _score(auroc.loc[arm])
                row.append(cell._replace(mark="best") if auroc.loc[arm]["value"] == best else cell)
            rows.append(row)
        names = [f"{arm} · {backbone}" if several and backbone != "none" else arm for arm, backbone in arms]
        tables.append({"fraction": percent(fraction), "arms": names, "rows": rows})
    return tables


def cohort_counts(results: Results) -> list[tuple[str, str]]:
    """Return name and number of scans (or images), patients, eyes, visits and refused rows."""
    manifest = results.cohort.manifest
    labeled = (
        manifest[manifest[results.cohort.labels].notna().any(axis=1)] if results.cohort.labels else manifest.iloc[:0]
    )
    counts = [(results.cohort.words.scans, len(manifest)), ("of them labeled", len(labeled))]
    if results.cohort.unit.patients:
        counts.append(("patients", manifest["patient"].nunique()))
        counts.append(("labeled patients", labeled["patient"].nunique()))
    for name in ("eye", "visit") if results.cohort.unit.patients else ():
        known = manifest[manifest[name].fillna("") != ""]
        keys = ["eye", "visit"] if name == "visit" else ["eye"]
        if len(known):
            counts.append((f"{name}s", len(known.drop_duplicates(keys))))
    counts.append(("refused files or rows", len(results.quarantine)))
    return [(name, f"{count:,}") for name, count in counts]


def crossval_counts(results: Results) -> tuple[int, int]:
    """Return the number of folds per repeat and of repeats, by splits.csv; (1, 1) for one split.

    In each repeat of a cross-validation every patient is tested once.
    """
    splits = results.cohort.splits
    if splits.empty:
        return 1, 1
    tested = splits[splits["split"] == "test"].groupby("patient")["fold"].nunique()
    repeats = int(tested.max()) if len(tested) else 1
    return max(1, splits["fold"].nunique() // repeats), repeats


def split_heads(results: Results) -> list[str]:
    """Return the heads of `split_rows`."""
    return [
        "split",
        *(["patients", "of them labeled"] if results.cohort.unit.patients else []),
        results.cohort.words.scans,
        "of them labeled",
    ]


def split_rows(results: Results) -> list[list[str]]:
    """Return split, scans and labeled scans in fold 0; before them (labeled) patients where they are known."""
    manifest = results.cohort.manifest
    known = (
        manifest[results.cohort.labels].notna().any(axis=1)
        if results.cohort.labels
        else pd.Series(False, index=manifest.index)
    )
    rows = []
    for split in SPLIT_NAMES:
        part, labeled = manifest[manifest["split"] == split], manifest[(manifest["split"] == split) & known]
        counts = [len(part), len(labeled)]
        if results.cohort.unit.patients:
            counts = [part["patient"].nunique(), labeled["patient"].nunique(), *counts]
        rows.append([split, *(f"{count:,}" for count in counts)])
    return rows


def prevalence_heads(results: Results) -> list[str]:
    """Return the heads of `prevalence_rows`."""
    patients = ["positive patients"] if results.cohort.unit.patients else []
    words = results.cohort.words
    return [words.label, f"positive {words.scans}", "prevalence", *patients, "not graded"]


def prevalence_rows(results: Results) -> list[list[Cell]]:
    """Return label, positive scans, prevalence, positive patients if known, labeled scans without this label."""
    manifest, rows = results.cohort.manifest, []
    labeled = manifest[manifest[results.cohort.labels].notna().any(axis=1)] if results.cohort.labels else manifest
    for label in results.cohort.labels:
        positive = labeled[labeled[label].eq(1).fillna(False).astype(bool)]
        known = int(labeled[label].notna().sum())
        share = len(positive) / known if known else 0.0
        patients = positive["patient"].nunique()
        rows.append(
            [
                Cell(label, sort=label),
                Cell(f"{len(positive):,}", sort=len(positive)),
                Cell(f"{100 * share:.1f} %", sort=share),
                *([Cell(f"{patients}", sort=patients)] if results.cohort.unit.patients else []),
                Cell(f"{len(labeled) - known}", sort=len(labeled) - known),
            ]
        )
    return rows


def quarantine_rows(results: Results) -> list[list[str]]:
    """Return reason, number of rows, meaning, an example."""
    rows = []
    for reason, part in results.quarantine.groupby("reason", sort=True):
        first = part.iloc[0]
        example = f"{first['path']}: {first['detail']}"
        rows.append([str(reason), f"{len(part):,}", REASONS.get(str(reason), ""), example])
    return rows


def benchmark_rows(results: Results) -> list[list[Cell]]:
    """Return rule, jobs, total and longest time, peak memory."""
    rows = []
    for rule, part in results.benchmarks.groupby("rule", sort=False):
        peak = part["max_rss"].max()
        rows.append(
            [
                Cell(str(rule), sort=str(rule)),
                Cell(str(len(part)), sort=len(part)),
                Cell(duration(part["s"].sum()), sort=float(part["s"].sum())),
                Cell(duration(part["s"].max()), sort=float(part["s"].max())),
                Cell(NOTHING if pd.isna(peak) else f"{peak:,.0f} MiB", sort=-1.0 if pd.isna(peak) else float(peak)),
            ]
        )
    return rows


def duration(seconds: float) -> str:
    """Return "12 s", "3 min 20 s" or "2 h 5 min"."""
    if math.isnan(seconds):
        return NOTHING
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds) // 60
    return f"{minutes} min {round(seconds) % 60} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
