"""The page's tables as plain rows: text to show, and a number to sort by where they differ."""

import math
from typing import Any, NamedTuple

import pandas as pd

from octdino.data.csv_io import leading_metric
from octdino.data.schemas.csv_schemas import REASONS, SPLIT_NAMES
from octdino.report.conclusions import CLINICAL, NOTHING, number, one_seed, outcome_of, pair, percent
from octdino.report.results_reader import Results

SHORT = {
    "accuracy": "accuracy",
    "auroc": "AUROC",
    "average_precision": "AP",
    "f1": "F1",
    "balanced_accuracy": "balanced accuracy",
}


class Cell(NamedTuple):
    """What a cell shows, a second line, and what it is sorted by."""

    text: str
    small: str = ""
    sort: float | str = ""
    mark: str = ""


def _several(results: Results) -> bool:
    return len(set(results.metrics["backbone"]) - {"none"}) > 1


def _shown(results: Results) -> dict[str, str]:
    """The macro metrics that there are, by name; the leading one is the first."""
    there = set(results.metrics["metric"])
    return {metric: words for metric, words in SHORT.items() if metric in there}


def _paired(results: Results) -> pd.DataFrame:
    """Differences of the leading metric at macro, of one seed or the mean over seeds."""
    table, (metric, _) = results.comparison, leading_metric(results.metrics)
    return one_seed(table[(table["label"] == "macro") & (table["metric"] == metric)], ("reference",))


def backbone_tables(results: Results, reference: str, confidence: float = 0.95) -> list[dict[str, Any]]:
    """Where there are several backbones: a table a fraction, a row an arm, two columns a backbone.

    The columns are the leading metric and its difference to the reference arm on the same backbone; a dash where the
    arm was not run. The reference comes first.
    """
    if not _several(results):
        return []
    macro, (metric, _) = one_seed(results.metrics), leading_metric(results.metrics)
    macro = macro[(macro["label"] == "macro") & (macro["metric"] == metric) & (macro["arm"] != CLINICAL)]
    paired = _paired(results)
    paired = paired[paired["reference"] == reference]
    backbones = sorted(set(macro["backbone"]))
    nothing = Cell(NOTHING, sort=-math.inf)
    tables = []
    for fraction in sorted(set(macro["fraction"])):
        scores = macro[macro["fraction"] == fraction].set_index(["arm", "backbone"])
        gaps = paired[paired["fraction"] == fraction].set_index(["arm", "backbone"])
        rows = []
        for arm in sorted(set(scores.index.get_level_values("arm")), key=lambda arm: (arm != reference, arm)):
            row = [Cell(str(arm), sort=str(arm))]
            for key in [(arm, backbone) for backbone in backbones]:
                row.append(_score(scores.loc[key]) if key in scores.index else nothing)
                alone = Cell("reference", sort=-math.inf) if arm == reference and key in scores.index else nothing
                row.append(_difference(gaps.loc[key], confidence) if key in gaps.index else alone)
            rows.append(row)
        heads = ["arm", *[SHORT[metric], f"minus {reference}"] * len(backbones)]
        tables.append({"fraction": percent(fraction), "groups": backbones, "heads": heads, "rows": rows})
    return tables


def comparison_heads(results: Results, reference: str) -> list[str]:
    """The heads of `comparison_rows`."""
    if results.metrics.empty:
        return []
    backbone = ["backbone"] if _several(results) else []
    first, *others = _shown(results).values()
    differences = [f"{first} minus {other}" for other in (reference, CLINICAL)]
    return ["labels", "arm", *backbone, first, *differences, *others]


def comparison_rows(results: Results, reference: str, confidence: float = 0.95) -> list[list[Cell]]:
    """Fraction, arm, backbone if there are several, the leading metric, its differences, the other macro metrics."""
    macro = one_seed(results.metrics[results.metrics["label"] == "macro"])
    paired = _paired(results)
    rows = []
    keys = ["fraction", "arm", "backbone"]
    for fraction, arm, backbone in macro[keys].drop_duplicates().sort_values(keys).itertuples(index=False):
        scores = macro[(macro["fraction"] == fraction) & (macro["arm"] == arm) & (macro["backbone"] == backbone)]
        row = [Cell(percent(fraction), sort=fraction), Cell(str(arm), sort=str(arm))]
        if _several(results):
            row.append(Cell(NOTHING if backbone == "none" else str(backbone), sort=str(backbone)))
        first, *others = [_score(scores[scores["metric"] == metric].iloc[0]) for metric in _shown(results)]
        mine = paired[(paired["fraction"] == fraction) & (paired["arm"] == arm) & (paired["backbone"] == backbone)]
        differences = []
        for other in (reference, CLINICAL):
            against = mine[mine["reference"] == other]
            nothing = Cell(NOTHING, sort=-math.inf)
            differences.append(_difference(against.iloc[0], confidence) if len(against) else nothing)
        rows.append((fraction, first.sort, [*row, first, *differences, *others]))
    return [row for *_, row in sorted(rows, key=lambda found: (found[0], -float(found[1])))]


def _score(row: pd.Series) -> Cell:
    if pd.isna(row["value"]):
        return Cell("n/e", sort=-math.inf)
    return Cell(number(row["value"]), pair(row["low"], row["high"]), float(row["value"]))


def _difference(row: pd.Series, confidence: float) -> Cell:
    """Marked better or worse by its adjusted p."""
    p = row["p_adjusted"]
    small = f"{pair(row['low'], row['high'], sign=True)}, p {NOTHING if pd.isna(p) else f'{p:.3f}'}"
    mark = outcome_of(row, confidence)
    return Cell(number(row["difference"], sign=True), small, float(row["difference"]), mark if mark != "open" else "")


def label_tables(results: Results) -> list[dict[str, Any]]:
    """A table a fraction: label, tier, positive test patients (or images), prevalence, then AUROC of each arm."""
    metrics = one_seed(results.metrics[results.metrics["label"] != "macro"])
    tables = []
    for fraction in sorted(set(metrics["fraction"])):
        part = metrics[metrics["fraction"] == fraction]
        several = len(set(part["backbone"]) - {"none"}) > 1
        arms = sorted(set(zip(part["arm"], part["backbone"], strict=True)), key=lambda a: (a[0] == CLINICAL, a))
        rows = []
        for label in results.labels:
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
                cell = _score(auroc.loc[arm])
                row.append(cell._replace(mark="best") if auroc.loc[arm]["value"] == best else cell)
            rows.append(row)
        names = [f"{arm} · {backbone}" if several and backbone != "none" else arm for arm, backbone in arms]
        tables.append({"fraction": percent(fraction), "arms": names, "rows": rows})
    return tables


def cohort_counts(results: Results) -> list[tuple[str, str]]:
    """Name and number."""
    manifest = results.manifest
    labelled = manifest[manifest[results.labels].notna().any(axis=1)] if results.labels else manifest.iloc[:0]
    counts = [("scans", len(manifest)), ("of them labelled", len(labelled))]
    if results.unit.patients:
        counts.append(("patients", manifest["patient"].nunique()))
        counts.append(("labelled patients", labelled["patient"].nunique()))
    for name in ("eye", "visit") if results.unit.patients else ():
        known = manifest[manifest[name].fillna("") != ""]
        keys = ["eye", "visit"] if name == "visit" else ["eye"]
        if len(known):
            counts.append((f"{name}s", len(known.drop_duplicates(keys))))
    counts.append(("refused files or rows", len(results.quarantine)))
    return [(name, f"{count:,}") for name, count in counts]


def split_heads(results: Results) -> list[str]:
    """The heads of `split_rows`."""
    return ["split", *(["patients", "of them labelled"] if results.unit.patients else []), "scans", "of them labelled"]


def split_rows(results: Results) -> list[list[str]]:
    """Split, scans and labelled scans in fold 0; before them patients and labelled patients where they are known."""
    manifest = results.manifest
    known = manifest[results.labels].notna().any(axis=1) if results.labels else pd.Series(False, index=manifest.index)
    rows = []
    for split in SPLIT_NAMES:
        part, labelled = manifest[manifest["split"] == split], manifest[(manifest["split"] == split) & known]
        counts = [len(part), len(labelled)]
        if results.unit.patients:
            counts = [part["patient"].nunique(), labelled["patient"].nunique(), *counts]
        rows.append([split, *(f"{count:,}" for count in counts)])
    return rows


def prevalence_heads(results: Results) -> list[str]:
    """The heads of `prevalence_rows`."""
    people = ["positive patients"] if results.unit.patients else []
    return ["label", "positive scans", "prevalence", *people, "not graded"]


def prevalence_rows(results: Results) -> list[list[Cell]]:
    """Label, positive scans, prevalence, positive patients if known, scans without this label though labelled."""
    manifest, rows = results.manifest, []
    labelled = manifest[manifest[results.labels].notna().any(axis=1)] if results.labels else manifest
    for label in results.labels:
        positive = labelled[labelled[label].eq(1).fillna(False).astype(bool)]
        known = int(labelled[label].notna().sum())
        share = len(positive) / known if known else 0.0
        people = positive["patient"].nunique()
        rows.append(
            [
                Cell(label, sort=label),
                Cell(f"{len(positive):,}", sort=len(positive)),
                Cell(f"{100 * share:.1f} %", sort=share),
                *([Cell(f"{people}", sort=people)] if results.unit.patients else []),
                Cell(f"{len(labelled) - known}", sort=len(labelled) - known),
            ]
        )
    return rows


def quarantine_rows(results: Results) -> list[list[str]]:
    """Reason, how many, what it means, an example."""
    rows = []
    for reason, part in results.quarantine.groupby("reason", sort=True):
        first = part.iloc[0]
        example = f"{first['path']}: {first['detail']}"
        rows.append([str(reason), f"{len(part):,}", REASONS.get(str(reason), ""), example])
    return rows


def benchmark_rows(results: Results) -> list[list[Cell]]:
    """Rule, jobs, total and longest time, peak memory."""
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
    """12 s, 3 min 20 s, 2 h 5 min."""
    if math.isnan(seconds):
        return NOTHING
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds) // 60
    return f"{minutes} min {round(seconds) % 60} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
