"""Limitations of the results, as sentences; only those that apply."""

import pandas as pd

from octdino.config.names import CLINICAL
from octdino.data.cohort_words import SCAN_WORDS, Words
from octdino.report.results_reader import Results

PUBLISHED = (
    "The test patients are those of the papers on OLIVES, and the AUROC named weighted is over the five labels chosen "
    "here as there. What differs: some of the papers' training patients validate here, where they had no validation "
    "set; AUROC is of scores, where parts of their code round them first; every test scan is used, where "
    "single-label tests there were balanced to half positive; image sizes, backbones and epochs are those of this run. "
    "So numbers can be compared roughly, not subtracted."
)
PUBLISHED_OCT2017 = (
    "The test patients are those of the published split of OCT2017. Its training scans of these patients are left out, "
    "and some of its training patients validate here. So numbers cannot be compared with those of papers that trained "
    "on scans of test patients."
)


def limits(results: Results, reference: str, protocol: str = "holdout") -> list[str]:
    """Return sentences for the page, most serious first; `protocol` is cohort.split.protocol."""
    found = []
    metrics, words = results.metrics, results.cohort.words
    unit = words.unit
    many = unit.many
    elsewhere = "sources of images" if unit.state == "none" else "devices, clinics or diseases"
    if unit.state == "unknown":
        found.append(unit.warning)
    if results.cohort.kind == "phantom":
        found.append(
            "The phantom is synthetic. It exercises the whole pipeline and shows what a report looks like; it is no "
            "clinical evidence."
        )
    found.append("Nothing here is a medical device or a diagnosis. Labels are those of the graders, errors included.")
    if metrics.empty:
        return found
    if protocol.startswith("published"):
        found.append(PUBLISHED_OCT2017 if protocol == "published" else PUBLISHED)
    if any(run.metadata.get("scope") == "all" for run in results.pretraining):
        found.append(
            f"Scope all: pretraining used the {words.scans} of test {many}, without their labels. The "
            "pretrained arms may profit from that; scope train_patients excludes it."
        )
    tested = metrics.loc[metrics["label"] == "macro", "n_patients"]
    if len(tested):
        found.append(
            f"All scores come from {int(tested.max())} test {many} of one cohort. Intervals cover how they would vary "
            f"with other {many} like these, not with other {elsewhere}."
        )
    seeds = metrics["seed"].dropna().nunique()
    found.append(
        "One seed was run: the variation from one training to the next is not in the intervals."
        if seeds < 2
        else f"{seeds} seeds were run and averaged; the intervals resample {many} and seeds. So few seeds give only a "
        f"rough estimate of the variation between trainings.{_single_seeds(metrics)}"
    )
    if set(metrics["fold"]) == {"pooled"}:
        found.append(
            "Scores of several folds are pooled: they come from several models, whose scores may differ in scale."
        )
    tiers = results.tables.tiers
    found += _weak_labels(tiers, many)
    found.append(_comparisons(results, reference))
    found.append(
        "Arms share a budget and one set of settings. An arm may score higher with other settings; a difference "
        "holds for these settings."
    )
    found.append(missing_values(results.cohort.manifest, words))
    return [sentence for sentence in found if sentence]


def _single_seeds(metrics: pd.DataFrame) -> str:
    """Return a sentence on the arms that were run with one seed only, where others were run with several."""
    counts = metrics[metrics["arm"] != CLINICAL].groupby(["arm", "backbone"])["seed"].nunique()
    alone = list(dict.fromkeys(arm for arm, _ in counts.index[counts == 1]))
    return f" Run with one seed only, whose variation is in no interval: {', '.join(alone)}." if alone else ""


def _comparisons(results: Results, reference: str) -> str:
    """Return how many arms, fractions and labels were compared, and what the adjustment of p covers."""
    metrics, words, tiers = results.metrics, results.cohort.words, results.tables.tiers
    arms = metrics.loc[metrics["arm"] != CLINICAL, "arm"].nunique()
    labels = int((tiers == "primary").sum() + (tiers == "exploratory").sum())
    counted = f"{labels} {words.label if labels == 1 else words.labels}"
    return (
        f"{arms} arms, {metrics['fraction'].nunique()} fractions and {counted} were compared. Holm's correction "
        f"covers the arms of all backbones within a {words.label}, metric and fraction, against {reference} and "
        "against the clinical baseline separately; it does not cover all of them together. "
        f"The best arm is selected on the test {words.unit.many}, so its score is biased upwards."
    )


def _weak_labels(tiers: pd.Series, many: str) -> list[str]:
    """Return which labels have too few positive patients (or images) for a number or for a conclusion."""
    found = []
    missing = [str(label) for label in tiers.index[tiers == "not evaluable"]]
    if missing:
        found.append(f"Too few positive {many} for any number: {', '.join(missing)}.")
    weak = [str(label) for label in tiers.index[tiers == "exploratory"]]
    if weak:
        found.append(
            f"Exploratory, because few {many} are positive: {', '.join(weak)}. They alone allow no conclusion."
        )
    return found


def missing_values(manifest: pd.DataFrame, words: Words = SCAN_WORDS) -> str:
    """Return how many scans lack the clinical values that the clinical baseline and clinical positives need."""
    lacking = [f"{int(manifest[name].isna().sum())} lack {name.upper()}" for name in ("cst", "bcva")]
    if words.unit.state == "none":  # photographs: nobody expects clinical values
        return ""
    if manifest["cst"].isna().all() and manifest["bcva"].isna().all():
        return f"No {words.scan} has CST or BCVA, so the clinical baseline uses at most slice, visit and trial."
    if manifest[["cst", "bcva"]].isna().any(axis=None):
        counts = " and ".join(lacking)
        return f"Of {len(manifest)} {words.scans} {counts}; the clinical baseline gets these values as missing."
    return ""
