"""The answer in sentences, computed from the tables, no surer than the intervals allow."""

import math
from dataclasses import dataclass, replace

import pandas as pd

from octdino.tables import leading_metric

CLINICAL = "clinical"
NOTHING = "\N{EN DASH}"
FLOORS = {"scratch-finetune": "training from scratch", "scratch-linear": "random features"}


@dataclass(frozen=True)
class Verdict:
    """What can be said about one fraction, on one backbone.

    Attributes:
        fraction: share of the labelled training patients.
        outcome: better, worse, open (the interval includes 0) or alone (nothing to compare with).
        arm, value, low, high: the best arm and its macro AUROC (or accuracy); empty and NaN where nothing is evaluable.
        text: one or two sentences.
        backbone: whose arms were compared; empty where there is only one.
    """

    fraction: float
    outcome: str
    arm: str
    value: float
    low: float
    high: float
    text: str
    backbone: str = ""


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
    """The best arm at each fraction against the reference on the same backbone, by the leading metric.

    Backbones come one after the other; fractions ascend.
    """
    metric, words = leading_metric(metrics)
    macro = one_seed(metrics[(metrics["label"] == "macro") & (metrics["metric"] == metric)])
    macro = macro[macro["arm"] != CLINICAL]
    paired = one_seed(comparison[(comparison["label"] == "macro") & (comparison["metric"] == metric)], ("reference",))
    paired = paired[paired["reference"] == reference]
    backbones = sorted(set(macro["backbone"]))
    found = []
    for backbone in backbones:
        arms, pairs = macro[macro["backbone"] == backbone], paired[paired["backbone"] == backbone]
        for fraction in sorted(set(arms["fraction"])):
            scored = arms[(arms["fraction"] == fraction) & arms["value"].notna()]
            verdict = _verdict(float(fraction), words, scored, pairs[pairs["fraction"] == fraction], reference)
            found.append(replace(verdict, backbone=str(backbone)) if len(backbones) > 1 else verdict)
    return found


def _verdict(fraction: float, words: str, arms: pd.DataFrame, pairs: pd.DataFrame, reference: str) -> Verdict:
    if arms.empty:
        nan = float("nan")
        text = "no label has enough positive patients for a number."
        return Verdict(fraction, "alone", "", nan, nan, nan, text)
    best = arms.sort_values(["value", "arm"], ascending=[False, True]).iloc[0]
    name = str(best["arm"])
    scored = f"{words} {number(best['value'])} (interval {span(best['low'], best['high'])})"
    pair = pairs[pairs["arm"] == name]
    if name == reference:
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


def headline(found: list[Verdict], reference: str) -> str:
    """What stands on top of the page: one sentence, or one a backbone where there are several."""
    if not found or all(not verdict.arm for verdict in found):
        return "This cohort cannot answer: no label has enough positive patients."
    if all(verdict.outcome == "alone" for verdict in found):
        return "There is nothing to compare: only one arm was run."
    sentences = []
    for backbone in dict.fromkeys(verdict.backbone for verdict in found):
        short, rest = _short([verdict for verdict in found if verdict.backbone == backbone], reference)
        opening = f"On {backbone}, {short}" if backbone else {"yes": "Here, yes"}.get(short, short.capitalize())
        sentences.append(f"{opening}: {rest}.")
    return " ".join(sentences)


def _short(found: list[Verdict], reference: str) -> tuple[str, str]:
    """Yes, no or not shown, and on what ground; of one backbone."""
    better = [verdict for verdict in found if verdict.outcome == "better"]
    first = found[0]
    floor = FLOORS.get(reference, reference)
    if not better:
        if first.outcome == "worse":
            return "no", f"at {percent(first.fraction)} of the labels, {floor} scores above every other arm"
        if all(verdict.outcome == "alone" for verdict in found):
            return "not shown", "there is nothing to compare"
        return "not shown", f"no arm's lead over {floor} is clear of chance at any fraction"
    if len(better) == len(found):
        where = "at every fraction" if len(found) > 1 else f"at {percent(first.fraction)} of the labelled patients"
    else:
        where = "at " + " and ".join(percent(verdict.fraction) for verdict in better) + " of the labelled patients"
    arms = list(dict.fromkeys(verdict.arm for verdict in better))
    who = arms[0] if len(arms) == 1 else ", ".join(arms[:-1]) + " and " + arms[-1]
    tail = "" if len(better) == len(found) else "; elsewhere this is not shown"
    return "yes", f"{who} beat{'s' if len(arms) == 1 else ''} {floor} {where}{tail}"


def beside_clinical(metrics: pd.DataFrame, comparison: pd.DataFrame, found: list[Verdict]) -> list[str]:
    """Does the image add to what thickness, acuity, slice and visit say? A sentence a fraction and backbone."""
    metric, _ = leading_metric(metrics)
    macro = one_seed(metrics[(metrics["label"] == "macro") & (metrics["metric"] == metric)])
    control = macro[(macro["arm"] == CLINICAL) & macro["value"].notna()]
    paired = one_seed(comparison[(comparison["label"] == "macro") & (comparison["metric"] == metric)], ("reference",))
    paired = paired[paired["reference"] == CLINICAL]
    sentences = []
    for verdict in found:
        at = control[control["fraction"] == verdict.fraction]
        if at.empty or not verdict.arm:
            continue
        one = at.iloc[0]
        where = f"At {percent(verdict.fraction)} of the labels"
        text = f"{where} the control reaches {number(one['value'])} ({span(one['low'], one['high'])})"
        rows = paired[(paired["fraction"] == verdict.fraction) & (paired["arm"] == verdict.arm)]
        if verdict.backbone:
            rows = rows[rows["backbone"] == verdict.backbone]
        if len(rows):
            row = rows.iloc[0]
            clear = row["low"] > 0 or row["high"] < 0
            end = "" if clear else ", which includes 0: the image is not shown to add anything"
            gap = number(row["difference"], sign=True)
            name = f"{verdict.arm} ({verdict.backbone})" if verdict.backbone else verdict.arm
            text += f"; {name} differs from it by {gap} ({span(row['low'], row['high'], sign=True)}){end}"
        sentences.append(text + ".")
    return sentences
