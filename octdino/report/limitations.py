"""What the numbers do not say: only what applies to these results."""

import pandas as pd

from octdino.report.results_reader import Results

PUBLISHED = (
    "The test patients are those of the papers on OLIVES, and the AUROC named weighted is over the five labels chosen "
    "here as there. What differs: some of the papers' training patients validate here, where they had no validation "
    "set; AUROC is of scores, where parts of their code round them first; every test scan is used, where "
    "single-label tests there were balanced to half positive; pictures, backbones and epochs are those of this run. "
    "So numbers can be laid beside theirs, not subtracted."
)


def limits(results: Results, reference: str, protocol: str = "holdout") -> list[str]:
    """Sentences for the page, most serious first; `protocol` is cohort.split.protocol."""
    found = []
    metrics, unit = results.metrics, results.cohort.unit
    many = unit.many
    if unit.state == "unknown":
        found.append(unit.warning)
    if results.cohort.kind == "phantom":
        found.append(
            "The phantom is synthetic. It shows that the pipeline works and how methods differ on these pictures; "
            "it is no clinical evidence."
        )
    found.append("Nothing here is a medical device or a diagnosis. Labels are what graders saw, errors included.")
    if metrics.empty:
        return found
    if protocol.startswith("published"):
        found.append(PUBLISHED)
    if any(run.metadata.get("scope") == "all" for run in results.pretraining):
        found.append(
            f"Scope all: pretraining saw the scans of test {many}, without their labels. The pretrained arms may "
            "profit from that; with scope train_patients they could not."
        )
    tested = metrics.loc[metrics["label"] == "macro", "n_patients"]
    if len(tested):
        found.append(
            f"All scores come from {int(tested.max())} test {many} of one cohort. Intervals say how they would vary "
            f"with other {many} like these; other devices, clinics or diseases are another question."
        )
    seeds = metrics["seed"].dropna().nunique()
    found.append(
        "One seed was run: how much scores vary from one training to the next is not in the intervals."
        if seeds < 2
        else f"{seeds} seeds were run and averaged; the intervals vary {many} and seeds. From so few seeds, how "
        "trainings differ is seen roughly only."
    )
    if set(metrics["fold"]) == {"pooled"}:
        found.append("Scores of several folds are pooled: they come from several models, whose scales may differ.")
    tiers = results.tables.tiers
    found += _weak_labels(tiers, many)
    arms = metrics.loc[metrics["arm"] != "clinical", "arm"].nunique()
    labels = int((tiers == "primary").sum() + (tiers == "exploratory").sum())
    found.append(
        f"{arms} arms, {metrics['fraction'].nunique()} fractions and {labels} labels were compared. Holm's correction "
        f"covers the arms of all backbones within a label, metric and fraction, against {reference} and "
        "against the control apart; it does not cover all of them together. "
        f"The arm called best was picked on the test {many}, so its score flatters it."
    )
    found.append(
        "Arms share a budget and one set of settings. An arm that lost may have wanted other ones; a difference "
        "belongs to these settings."
    )
    found.append(missing_values(results.cohort.manifest))
    return [sentence for sentence in found if sentence]


def _weak_labels(tiers: pd.Series, many: str) -> list[str]:
    """Which labels have too few positive patients (or images) for a number or for a conclusion."""
    found = []
    missing = [str(label) for label in tiers.index[tiers == "not evaluable"]]
    if missing:
        found.append(f"Too few positive {many} for any number: {', '.join(missing)}. They may be found or not.")
    weak = [str(label) for label in tiers.index[tiers == "exploratory"]]
    if weak:
        found.append(f"Exploratory, as few {many} have them: {', '.join(weak)}. Do not conclude from them alone.")
    return found


def missing_values(manifest: pd.DataFrame) -> str:
    """How many scans lack the clinical values that the control and the clinical positives rest on."""
    lacking = [f"{int(manifest[name].isna().sum())} lack {name.upper()}" for name in ("cst", "bcva")]
    if manifest["cst"].isna().all() and manifest["bcva"].isna().all():
        return "No scan has CST or BCVA, so the clinical control knows no more than slice, visit and trial."
    if manifest[["cst", "bcva"]].isna().any(axis=None):
        return f"Of {len(manifest)} scans {' and '.join(lacking)}; the control treats a missing value as such."
    return ""
