"""The page of `octdino compare`, and the CSV beside it: settings that differ, scores and differences of equal arms."""

from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from octdino.cli.side_by_side.differences import Compared, difference_table, matched
from octdino.cli.side_by_side.finished_runs import FinishedRun, read_finished_runs
from octdino.cli.side_by_side.setting_differences import only_in, setting_differences
from octdino.config import EvaluateSettings
from octdino.data.atomic_files import replacing
from octdino.data.csv_io import leading_metric, write_table
from octdino.data.schemas.evaluate_schemas import SIDE_BY_SIDE
from octdino.html_template import page_environment
from octdino.report.conclusions import NOTHING, number, outcome_of, pair, percent
from octdino.report.tables import SHORT, Cell
from octdino.stats.significance import alpha, least_adjusted_p

REPORT = Path(__file__).parents[2] / "report"


def compare_runs(settings: EvaluateSettings, folders: list[Path], page: Path) -> str:
    """Write the page and, beside it, a CSV of the same name with every difference; return what was found, in words.

    Raises:
        UserError: see `read_finished_runs`.
    """
    runs = matched(settings, read_finished_runs(settings, folders))
    table = difference_table(runs)
    shown = content(settings, runs, table, page.with_suffix(".csv").name)
    text = page_environment("cli", "report").get_template("compare.html.j2").render(**shown)
    write_table(page.with_suffix(".csv"), table, SIDE_BY_SIDE)
    with replacing(page) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return "\n".join([*shown["matches"], *shown["cautions"], *shown["conclusions"]])


def content(settings: EvaluateSettings, runs: list[Compared], table: pd.DataFrame, csv: str) -> dict[str, Any]:
    """Return all variables of the template."""
    folders = [one.run for one in runs]
    metric, lead = leading_metric(table)
    words = folders[0].results.cohort.words
    return {
        "css": Markup((REPORT / "page.css").read_text(encoding="utf-8")),
        "js": Markup((REPORT / "page.js").read_text(encoding="utf-8")),
        "title": " and ".join(run.name for run in folders) if len(folders) < 4 else f"{len(folders)} runs",
        "names": [run.name for run in folders],
        "unit": words.unit,
        "words": words,
        "lead": lead,
        "conclusions": conclusions(runs, table, metric, lead, settings.confidence),
        "matches": [_match(runs[0], one) for one in runs[1:]],
        "cautions": _cautions(settings, runs, table, metric),
        "unpaired": [_match(runs[0], one) for one in runs[1:] if not one.paired],
        "facts": [["", *(run.name for run in folders)], *_facts(folders)],
        "differences": [[one.key, *one.shown] for one in setting_differences(folders)],
        "only": only_in(folders),
        "heads": _heads(runs, lead),
        "rows": _rows(runs, table, metric, settings.confidence),
        "others": [
            (words, _heads(runs, words), _rows(runs, table, name, settings.confidence))
            for name, words in SHORT.items()
            if name != metric and (table["metric"] == name).any()
        ],
        "confidence": percent(settings.confidence),
        "alpha": f"{alpha(settings.confidence):g}",
        "resamples": settings.resamples,
        "csv": csv,
        "phantom": any(run.results.cohort.kind == "phantom" for run in folders),
    }


def _match(first: Compared, one: Compared) -> str:
    """Return whether differences of one run to the first are paired, and why not."""
    unit, words, tested = first.test.unit, first.test.words, first.test
    if one.paired:
        return (
            f"{one.run.name} and {first.run.name}: the same {tested.patients} test {unit.many} with the same "
            f"{len(tested.truth)} {words.scans} and labels; differences are paired."
        )
    return (
        f"{one.run.name} and {first.run.name}: differences are not paired, because {one.reason}. The two test sets "
        f"({one.test.patients} and {tested.patients} {unit.many}) are resampled independently: intervals are wider, "
        f"and other {unit.many} may explain a difference as well as other settings."
    )


def _cautions(settings: EvaluateSettings, runs: list[Compared], table: pd.DataFrame, metric: str) -> list[str]:
    """Return what weakens the answer: resamples with which nothing could be shown, numbers of seeds that differ."""
    found = []
    macro = table[(table["label"] == "macro") & (table["metric"] == metric)]
    most = int(macro.groupby(["run", "fraction"])["arm"].size().max()) if len(macro) else 0
    least = least_adjusted_p(most, settings.resamples)
    if most and least >= alpha(settings.confidence):
        found.append(
            f"Too few resamples: with {settings.resamples} of them and {most} arms no adjusted p is below {least:.2g}, "
            "so nothing could be shown to differ; set --resamples higher."
        )
    for one in runs[1:]:
        other = macro[(macro["run"] == one.run.name) & (macro["n_seeds"] != macro["n_reference_seeds"])]
        if len(other):
            found.append(
                f"{one.run.name} and {runs[0].run.name} have different numbers of seeds ({other['n_seeds'].iloc[0]} "
                f"and {other['n_reference_seeds'].iloc[0]}); with one seed, its variation is in no interval."
            )
    return found


def _facts(folders: list[FinishedRun]) -> list[list[str]]:
    """Return what the runs were: cohort, counts, seeds and folds."""
    cohorts = [run.results.cohort for run in folders]
    keys = [[one.key for one in run.classifiers] for run in folders]
    cards = [[card for _, card in run.results.classifiers] for run in folders]
    return [
        ["folder", *(str(run.results.root) for run in folders)],
        ["cohort", *(cohort.name for cohort in cohorts)],
        ["labeled scans", *(f"{int(cohort.labeled.sum()):,}" for cohort in cohorts)],
        ["test scans", *(f"{len(run.test.truth):,}" for run in folders)],
        [f"test {folders[0].test.unit.many}", *(f"{run.test.patients:,}" for run in folders)],
        ["arms", *(str(len({key.arm for key in own})) for own in keys)],
        ["fractions", *(", ".join(percent(value) for value in sorted({key.fraction for key in own})) for own in keys)],
        ["seeds", *(str(len({key.seed for key in own})) for own in keys)],
        ["folds", *(str(len({card["fold"] for card in own})) for own in cards)],
    ]


def conclusions(
    runs: list[Compared], table: pd.DataFrame, metric: str, lead: str, confidence: float
) -> list[str]:  # fmt: skip
    """Return one sentence per run on the arms that are shown to differ from the first run, by the adjusted p."""
    sentences = []
    macro = table[(table["label"] == "macro") & (table["metric"] == metric)]
    for one in runs[1:]:
        rows = macro[macro["run"] == one.run.name]
        against = f"{one.run.name} against {runs[0].run.name}"
        if rows.empty:
            sentences.append(f"{against}: no arm has a score at the same fraction in both.")
            continue
        told = []
        for which in ("better", "worse"):
            shown = [row for _, row in rows.iterrows() if outcome_of(row, confidence) == which]
            if shown:
                named = ", ".join(_named(row, rows) for row in shown)
                told.append(f"{which}: {named}")
        found = "; ".join(told) if told else "no arm is shown to differ"
        sentences.append(f"{against}, {lead} of {len(rows)} classifiers: {found}.")
    return sentences


def _named(row: pd.Series, rows: pd.DataFrame) -> str:
    where = f" on {row['backbone']}" if _several(rows) and row["backbone"] != "none" else ""
    gap = f"{number(row['difference'], sign=True)} {pair(row['low'], row['high'], sign=True)}"
    return f"{row['arm']}{where} at {percent(row['fraction'])} ({gap})"


def _several(table: pd.DataFrame) -> bool:
    return len(set(table["backbone"]) - {"none"}) > 1


def _heads(runs: list[Compared], words: str) -> list[str]:
    """Return labels, arm, backbone, the score in each run, and its difference to the first."""
    names = [one.run.name for one in runs]
    scores = [f"{words}, {name}" for name in names]
    return ["labels", "arm", "backbone", *scores, *(f"{name} minus {names[0]}" for name in names[1:])]


def _rows(runs: list[Compared], table: pd.DataFrame, metric: str, confidence: float) -> list[list[Cell]]:
    """Return the rows of one metric, macro: a dash where a run lacks the arm or has no value."""
    macro = table[(table["label"] == "macro") & (table["metric"] == metric)]
    nothing, rows = Cell(NOTHING, sort=float("-inf")), []
    for (fraction, arm, backbone), part in macro.groupby(["fraction", "arm", "backbone"]):
        of_run = {str(row["run"]): row for _, row in part.iterrows()}
        base = part.iloc[0]
        first = Cell(
            number(base["reference_value"]), pair(base["reference_low"], base["reference_high"]),
            float(base["reference_value"]),
        )  # fmt: skip
        scores, gaps = [first], []
        for one in runs[1:]:
            if one.run.name not in of_run:
                scores.append(nothing)
                gaps.append(nothing)
                continue
            row = of_run[one.run.name]
            scores.append(Cell(number(row["value"]), pair(row["value_low"], row["value_high"]), float(row["value"])))
            mark = outcome_of(row, confidence)
            kind = "" if one.paired else ", unpaired"
            small = f"{pair(row['low'], row['high'], sign=True)}, p {row['p_adjusted']:.3f}{kind}"
            gap = number(row["difference"], sign=True)
            gaps.append(Cell(gap, small, float(row["difference"]), "" if mark == "open" else mark))
        shown = Cell(NOTHING if backbone == "none" else str(backbone), sort=str(backbone))
        share = float(str(fraction))
        rows.append([Cell(percent(share), sort=share), Cell(str(arm), sort=str(arm)), shown, *scores, *gaps])
    return rows
