"""The answer in sentences, computed from the tables, no surer than the intervals allow."""

import math
from dataclasses import dataclass

import pandas as pd

CLINICAL = "clinical"
NOTHING = "\N{EN DASH}"


@dataclass(frozen=True)
class Verdict:
    """What can be said about one fraction.

    Attributes:
        fraction: share of the labelled training patients.
        outcome: better, worse, open (the interval includes 0) or alone (nothing to compare with).
        arm, value, low, high: the best arm and its macro AUROC; empty and NaN where nothing is evaluable.
        text: one or two sentences.
    """

    fraction: float
    outcome: str
    arm: str
    value: float
    low: float
    high: float
    text: str


def one_seed(table: pd.DataFrame, extra: tuple[str, ...] = ()) -> pd.DataFrame:
    """Of each classifier the mean over seeds where there are several, else its only seed."""
    keys = ["fraction", "arm", "backbone", "label", "metric", *extra]
    return table.sort_values("seed", na_position="first").groupby(keys, as_index=False, sort=True).head(1)


def number(value: float, sign: bool = False) -> str:
    """0.123, +0.045, with a true minus sign."""
    if math.isnan(value):
        return NOTHING
    text = f"{value:+.3f}" if sign else f"{value:.3f}"
    return text.replace("-", "\N{MINUS SIGN}")


def span(low: float, high: float, sign: bool = False) -> str:
    """0.101 to 0.145."""
    return f"{number(low, sign)} to {number(high, sign)}"


def pair(low: float, high: float, sign: bool = False) -> str:
    """[0.101, 0.145]: the same where space is short."""
    return f"[{number(low, sign)}, {number(high, sign)}]"


def p_text(p: float) -> str:
    """p = 0.012, or p < 0.001."""
    return f"p {NOTHING}" if math.isnan(p) else "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def percent(fraction: float) -> str:
    """10 %."""
    return f"{100 * fraction:g} %"


def verdicts(metrics: pd.DataFrame, comparison: pd.DataFrame, reference: str) -> list[Verdict]:
    """The best arm at each fraction against the reference, by macro AUROC; fractions ascend."""
    macro = one_seed(metrics[(metrics["label"] == "macro") & (metrics["metric"] == "auroc")])
    paired = one_seed(comparison[(comparison["label"] == "macro") & (comparison["metric"] == "auroc")], ("reference",))
    found = []
    for fraction in sorted(set(macro["fraction"])):
        arms = macro[(macro["fraction"] == fraction) & (macro["arm"] != CLINICAL) & macro["value"].notna()]
        pairs = paired[(paired["fraction"] == fraction) & (paired["reference"] == reference)]
        found.append(_verdict(float(fraction), arms, pairs, reference))
    return found


def _verdict(fraction: float, arms: pd.DataFrame, pairs: pd.DataFrame, reference: str) -> Verdict:
    if arms.empty:
        nan = float("nan")
        text = "no label has enough positive patients for a number."
        return Verdict(fraction, "alone", "", nan, nan, nan, text)
    best = arms.sort_values(["value", "arm", "backbone"], ascending=[False, True, True]).iloc[0]
    name = named(best, arms)
    scored = f"macro AUROC {number(best['value'])} (interval {span(best['low'], best['high'])})"
    pair = pairs[(pairs["arm"] == best["arm"]) & (pairs["backbone"] == best["backbone"])]
    if best["arm"] == reference:
        outcome, text = _reference_leads(pairs, reference, scored)
    elif pair.empty:
        outcome, text = "alone", f"{name} scores best, {scored}; {reference} was not run, so there is no comparison."
    else:
        row = pair.iloc[0]
        gap = f"{number(row['difference'], sign=True)} against {reference}"
        sure = f"interval {span(row['low'], row['high'], sign=True)}, adjusted {p_text(row['p_adjusted'])}"
        if row["low"] > 0:
            outcome, text = "better", f"{name} is best, {scored}: {gap} ({sure})."
        else:
            outcome = "open"
            text = f"{name} scores highest, {scored}: {gap}, but the interval includes 0 ({sure}): not shown to differ."
    return Verdict(fraction, outcome, name, best["value"], best["low"], best["high"], text)


def _reference_leads(pairs: pd.DataFrame, reference: str, scored: str) -> tuple[str, str]:
    text = f"no arm scores above {reference}, {scored}."
    if pairs.empty:
        return "alone", f"only {reference} was run, {scored}."
    nearest = pairs.sort_values("difference", ascending=False).iloc[0]
    where = f"{nearest['arm']}, differs by {number(nearest['difference'], sign=True)}"
    outcome = "worse" if nearest["high"] < 0 else "open"
    return outcome, f"{text} The nearest, {where} (interval {span(nearest['low'], nearest['high'], sign=True)})."


def named(row: pd.Series, among: pd.DataFrame) -> str:
    """The arm, with its backbone where there are several."""
    several = len(set(among["backbone"]) - {"none"}) > 1
    return f"{row['arm']} ({row['backbone']})" if several and row["backbone"] != "none" else str(row["arm"])


def headline(found: list[Verdict], reference: str) -> str:
    """The one sentence on top of the page."""
    if not found or all(not verdict.arm for verdict in found):
        return "This cohort cannot answer: no label has enough positive patients."
    better = [verdict for verdict in found if verdict.outcome == "better"]
    first = found[0]
    scratch = "training from scratch" if reference.startswith("scratch") else reference
    if not better:
        if any(verdict.outcome == "worse" for verdict in found) and first.outcome == "worse":
            return f"No: at {percent(first.fraction)} of the labels, {scratch} scores above every other arm."
        if all(verdict.outcome == "alone" for verdict in found):
            return "There is nothing to compare: only one arm was run."
        return f"Not shown: no arm's lead over {scratch} is clear of chance at any fraction."
    if len(better) == len(found):
        where = "at every fraction" if len(found) > 1 else f"at {percent(first.fraction)} of the labelled patients"
    else:
        where = "at " + " and ".join(percent(verdict.fraction) for verdict in better) + " of the labelled patients"
    arms = list(dict.fromkeys(verdict.arm for verdict in better))
    who = arms[0] if len(arms) == 1 else ", ".join(arms[:-1]) + " and " + arms[-1]
    tail = "" if len(better) == len(found) else ", and not shown elsewhere"
    return f"Here, yes: {who} beat{'s' if len(arms) == 1 else ''} {scratch} {where}{tail}."


def beside_clinical(metrics: pd.DataFrame, comparison: pd.DataFrame, found: list[Verdict]) -> list[str]:
    """Does the image add to what thickness, acuity, slice and visit say? A sentence a fraction."""
    macro = one_seed(metrics[(metrics["label"] == "macro") & (metrics["metric"] == "auroc")])
    control = macro[(macro["arm"] == CLINICAL) & macro["value"].notna()]
    paired = one_seed(comparison[(comparison["label"] == "macro") & (comparison["metric"] == "auroc")], ("reference",))
    paired = paired[paired["reference"] == CLINICAL]
    sentences = []
    for verdict in found:
        at = control[control["fraction"] == verdict.fraction]
        if at.empty or not verdict.arm:
            continue
        one = at.iloc[0]
        where = f"At {percent(verdict.fraction)} of the labels"
        text = f"{where} the control reaches {number(one['value'])} ({span(one['low'], one['high'])})"
        rows = paired[paired["fraction"] == verdict.fraction]
        rows = rows[[named(row, rows) == verdict.arm for _, row in rows.iterrows()]]
        if len(rows):
            row = rows.iloc[0]
            clear = row["low"] > 0 or row["high"] < 0
            end = "" if clear else ", which includes 0: the image is not shown to add anything"
            gap = number(row["difference"], sign=True)
            text += f"; {verdict.arm} differs from it by {gap} ({span(row['low'], row['high'], sign=True)}){end}"
        sentences.append(text + ".")
    return sentences
