"""Data card, and parts that it shares with the model card; from the run's files only.

They follow Gebru et al. 2021 (datasheets for datasets) and Mitchell et al. 2019 (model cards). A card is a list of
parts, shown on the page and written as Markdown beside it.
"""

from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from octdino.config.names import CLINICAL
from octdino.data.cohort_words import Words
from octdino.data.csv_io import one_seed
from octdino.data.intended_use import NOT_FOR, RESEARCH
from octdino.report.audit_section import Leaks
from octdino.report.conclusions import NOTHING, number, percent, span
from octdino.report.results_reader import Results
from octdino.report.tables import (
    cohort_counts,
    crossval_counts,
    prevalence_heads,
    prevalence_rows,
    quarantine_rows,
    split_heads,
    split_rows,
)

PROTOCOLS = {
    "holdout": "one part of the {many} is read once, at the end",
    "crossval": "every {one} is tested {once} by models that never saw it",
}


@dataclass(frozen=True)
class Part:
    """A heading with sentences, and a table where there is one."""

    heading: str
    lines: list[str]
    heads: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)


@dataclass(frozen=True)
class Card:
    """What is written to `name`.md."""

    name: str
    title: str
    parts: list[Part]


def markdown(card: Card) -> str:
    """Return the card as Markdown."""
    lines = [f"# {card.title}"]
    for part in card.parts:
        lines += ["", f"## {part.heading}", "", *(f"- {_one_line(line)}" for line in part.lines)]
        if part.rows:
            lines += [""] if part.lines else []
            lines += [_row(part.heads), _row(["---"] * len(part.heads)), *map(_row, part.rows)]
    return "\n".join(lines) + "\n"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(_one_line(cell).replace("|", "\\|") for cell in cells) + " |"


def data_card(results: Results, config: dict[str, Any], license_: str | None, leaks: Leaks | None) -> Card:
    """Return the data card of the cohort.

    Args:
        config: the settings of all stages; {} where they are unknown.
        license_: as the config gives it.
        leaks: the audit; None where there was none.
    """
    cohort, words = config.get("cohort") or {}, results.cohort.words
    synthetic = results.cohort.kind == "phantom"
    kind = "" if results.cohort.kind == results.cohort.name else f", of the kind {results.cohort.kind}"
    what = [
        f"Cohort {results.cohort.name}{kind}. "
        + (
            "Synthetic: generated and labeled by octdino; it has no real patients." if synthetic else "Images as given."
        ),
        f"License of the data: {license_ or 'not given'}.",
        "Counted: " + ", ".join(f"{count} {name}" for name, count in cohort_counts(results)) + ".",
    ]
    what += results.cohort.decisions
    what = [results.cohort.unit.warning, *what] if results.cohort.unit.warning else what
    image = cohort.get("image") or {}
    if {"size", "channels", "crop"} <= image.keys():  # a config given by hand may name some settings only
        height, width = image["size"]
        colors = "gray" if image["channels"] == 1 else "RGB"
        what.append(f"Stored as {height} x {width} px, {colors}; crop: {image['crop']}.")
    refused = [[reason, count, meaning] for reason, count, meaning, _ in quarantine_rows(results)]
    parts = [
        Part("What it is", what),
        Part("Intended use", [RESEARCH, NOT_FOR]),
        Part(
            words.labels.capitalize(),
            ["Whole cohort. Labels are those of the graders, errors included; who graded, and their agreement, is not "
              "in the files.", *_exclusive(results)],
             prevalence_heads(results),
            [[cell.text for cell in row] for row in prevalence_rows(results)],
        ),
        Part("Composition", _people(results.cohort.manifest, words)),
        Part("Refused", [] if refused else ["Nothing was refused."], ["reason", "number", "meaning"], refused),
        Part("Flagged, but kept", *_flags(results.cohort.manifest, words)),
        Part(
            "Division", _division(results, cohort.get("split") or {}, leaks),
            ["split of fold 0", *split_heads(results)[1:]], split_rows(results),
        ),
        Part(
            "Not known to octdino",
            ["Age, sex, ethnicity, treatment and dates, consent and ethics approval, and how patients were "
             "chosen: the files do not say which population the cohort represents.",
             "Names of patients and files are used as given; octdino does not de-identify them."],
        ),
    ]  # fmt: skip
    return Card("data_card", f"Data card: {results.cohort.name}", parts)


def _exclusive(results: Results) -> list[str]:
    """Return whether labels exclude each other, the reason, and the setting that changes it."""
    if results.cohort.exclusive_from is None or len(results.cohort.labels) < 2:
        return []
    exclusive, origin = results.cohort.exclusive_from
    if exclusive:
        why = {
            "setting": "of the setting cohort.exclusive",
            "cohort": "so the cohort is made",
            "table": "each labeled scan has exactly one positive label in the table; cohort.exclusive: false treats "
            "each label on its own",
        }[origin]
        return [f"Labels exclude each other, as classes: one softmax over all, and an accuracy. Taken because {why}."]
    why = {
        "setting": "of the setting cohort.exclusive",
        "cohort": "so the cohort is published",
        "table": "not every labeled scan has exactly one positive label in the table",
    }[origin]
    return [f"Labels are independent: a {results.cohort.words.scan} may have several or none. Taken because {why}."]


def _people(manifest: pd.DataFrame, words: Words) -> list[str]:
    """Return trials, laterality, acuity and thickness, with the numbers of missing values."""
    if words.unit.state == "none":
        return [f"{words.scans.capitalize()} as published; eyes, visits, acuity and thickness do not apply."]
    lines = []
    for name, heading in (("trial", "Trial or device"), ("laterality", "Side")):
        known = manifest[manifest[name].fillna("") != ""]
        counts = known.groupby(name)["patient"].nunique().sort_values(ascending=False)
        if len(counts):
            several = [f"{value}: {count}" for value, count in counts.head(8).items()]
            lines.append(
                f"{heading}, {words.unit.many}: {', '.join(several)}{', and others' if len(counts) > 8 else ''}."
            )
    for name, heading in (("cst", "Central thickness (CST, µm)"), ("bcva", "Acuity (BCVA, letters)")):
        values = manifest[name].astype("Float64")
        lacking = int(values.isna().sum())
        if lacking == len(values):
            lines.append(f"{heading}: unknown for all {words.scans}.")
            continue
        low, middle, high = (float(values.quantile(q)) for q in (0.25, 0.5, 0.75))
        lines.append(
            f"{heading}: median {middle:.0f} ({low:.0f} to {high:.0f}, quartiles), unknown for {lacking} {words.scans}."
        )
    return lines


def _flags(manifest: pd.DataFrame, words: Words) -> tuple[list[str], list[str], list[list[str]]]:
    flags = manifest["flags"].fillna("").str.split().explode().dropna()
    if flags.empty:
        return ["Nothing is flagged."], [], []
    return [], ["flag", words.scans], [[str(name), f"{count:,}"] for name, count in flags.value_counts().items()]


def _division(results: Results, split: dict[str, Any], leaks: Leaks | None) -> list[str]:
    protocol = str(split.get("protocol", "not given"))
    folds, repeats = crossval_counts(results)
    unit = results.cohort.unit
    told = PROTOCOLS.get(protocol, "a fixed list of test {many}").format(
        one=unit.one, many=unit.many, once="once per repeat" if repeats > 1 else "once"
    )
    divided = f"{folds} {'fold' if folds == 1 else 'folds'}"
    if repeats > 1:
        divided = (
            f"{divided} in each of {repeats} repeats, every one a random partition of its own; scores are their mean"
        )
    lines = [
        f"Protocol {protocol}: {told}; {divided}.",
        "By patient, always; patients that share identical images are one group."
        if unit.patients
        else f"By image, as {'patients are unknown' if unit.state == 'unknown' else 'there are no patients'}; "
        "identical images are one group.",
    ]
    if leaks is None:
        return [*lines, "No leakage audit was run."]
    count = leaks.findings
    found = "found nothing" if not count else f"has {count} findings" if count > 1 else "has 1 finding"
    unchecked = [f"Not checkable by the audit: {why}." for why in leaks.unchecked]
    return [*lines, *unchecked, f"The leakage audit {found}{' in what it could check' if unchecked else ''}."]


def comparison_part(results: Results, arm: str, fraction: float, backbone: str) -> Part:
    """Return the macro scores of the leading arm beside those of the clinical baseline."""
    unit = results.cohort.unit
    names = {
        "accuracy": "accuracy", "auroc": "AUROC", "average_precision": "average precision", "f1": "F1",
        "balanced_accuracy": "balanced accuracy", "brier": "Brier score", "ece": "calibration error",
        "patient_auroc": "patient-level AUROC",
    }  # fmt: skip
    if not unit.patients:
        del names["patient_auroc"]
    own = rows_of(results.metrics, arm, fraction, backbone)
    baseline = rows_of(results.metrics, CLINICAL, fraction, "none")
    rows = []
    for metric, words in names.items():
        for label in ("macro", "weighted"):
            found = own[(own["metric"] == metric) & (own["label"] == label) & own["value"].notna()]
            if len(found):
                beside = baseline[(baseline["metric"] == metric) & (baseline["label"] == label)]
                rows.append([f"{words}, {label}", _scored(found), _scored(beside), str(found["n_patients"].iloc[0])])
    return Part(
        "Scores",
        [f"On test {unit.many} that were used for no selection; intervals are over {unit.many}."],
        ["metric", arm, "clinical baseline", f"test {unit.many}"],
        rows,
    )


def rows_of(table: pd.DataFrame, arm: str, fraction: float, backbone: str) -> pd.DataFrame:
    """Return the rows of one arm: the mean over seeds where there are several, else its only seed."""
    own = table[(table["arm"] == arm) & (table["fraction"] == fraction) & (table["backbone"] == backbone)]
    return one_seed(own)


def _scored(found: pd.DataFrame) -> str:
    if found.empty or pd.isna(found["value"].iloc[0]):
        return NOTHING
    row = found.iloc[0]
    return f"{number(row['value'])} ({span(row['low'], row['high'])})"


def label_part(results: Results, arm: str, fraction: float, backbone: str) -> Part:
    """Return AUROC and average precision per label."""
    own, words = rows_of(results.metrics, arm, fraction, backbone), results.cohort.words
    rows = []
    for label in results.cohort.labels:
        of_label = own[own["label"] == label].drop_duplicates("metric").set_index("metric", drop=False)
        if of_label.empty:
            continue
        first = of_label.iloc[0]
        scores = [_scored(of_label[of_label["metric"] == metric]) for metric in ("auroc", "average_precision")]
        positive = f"{first['n_positive_patients']} of {first['n_patients']}"
        rows.append([label, str(first["tier"]), positive, *scores])
    return Part(
        f"Scores per {words.label}", [f"With {percent(fraction)} of the labeled training {results.cohort.unit.many}."],
        [words.label, "tier", f"positive test {results.cohort.unit.many}", "AUROC", "average precision"], rows,
    )  # fmt: skip
