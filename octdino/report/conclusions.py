"""Conclusions in sentences, from the tables; a difference is stated as shown only where the adjusted p allows it."""

import math
from dataclasses import dataclass, replace

import pandas as pd

from octdino.config import Arm
from octdino.config.names import CLINICAL, has_own_backbone
from octdino.data.sampling_units import PATIENT, Unit
from octdino.report.prepared_tables import PreparedTables, beside_reference
from octdino.stats.significance import Outcome, alpha, outcome

NOTHING = "\N{EN DASH}"
FLOORS = {"scratch-finetune": "training from scratch", "scratch-linear": "random features"}


@dataclass(frozen=True)
class Verdict:
    """The conclusion at one fraction, on one backbone.

    Attributes:
        fraction: share of the labeled training patients.
        outcome: better (an arm beats the reference by its adjusted p), worse (every arm is beaten by it), open, or
            alone (nothing to compare with).
        arm, value, low, high: the best arm and its macro AUROC (or accuracy); empty and NaN where nothing is evaluable.
        text: one or two sentences.
        backbone: whose arms were compared; empty where there is only one.
        winner: the best-scoring of the arms that beat the reference; empty where none does.
        shown: all arms that beat the reference by their adjusted p, the largest difference first.
        gap: an arm and its difference to the reference in words: of the winner, or else of the nearest arm.
        published: the arms that start from published weights, each on a backbone of its own.
        network: the backbone of the best arm, which may be another than that of the reference.
        name: the best arm in sentences, with its backbone where the arm is compared on several. `winner`, `shown` and
            `gap` have such names.
    """

    fraction: float
    outcome: str
    arm: str
    value: float
    low: float
    high: float
    text: str
    backbone: str = ""
    winner: str = ""
    shown: tuple[str, ...] = ()
    gap: tuple[str, str] = ("", "")
    published: tuple[str, ...] = ()
    network: str = ""
    name: str = ""

    def is_pretrained(self, name: str) -> bool:
        """Return whether an arm starts from a pretraining of this run: neither from random nor from others' weights."""
        arm = name.split(" ")[0]
        return arm not in self.published and Arm.named(arm).init not in ("scratch", "imagenet", CLINICAL)


def number(value: float, sign: bool = False) -> str:
    """Return 0.123 or +0.045, with a true minus sign."""
    if math.isnan(value):
        return NOTHING
    text = f"{value:+.3f}" if sign else f"{value:.3f}"
    return text.replace("-", "\N{MINUS SIGN}")


def span(low: float, high: float, sign: bool = False) -> str:
    """Return "0.101 to 0.145"."""
    return f"{number(low, sign)} to {number(high, sign)}"


def pair(low: float, high: float, sign: bool = False) -> str:
    """Return "[0.101, 0.145]"."""
    return f"[{number(low, sign)}, {number(high, sign)}]"


def p_text(p: float) -> str:
    """Return "p = 0.012", or "p < 0.001"."""
    return f"p {NOTHING}" if math.isnan(p) else "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def percent(fraction: float) -> str:
    """Return "10 %"."""
    return f"{100 * fraction:g} %"


def grounds(row: pd.Series, confidence: float) -> str:
    """Return how interval and adjusted p of a difference agree; empty where both say that it is shown."""
    clear, shown = row["low"] > 0 or row["high"] < 0, outcome_of(row, confidence) != "open"
    level = f"{alpha(confidence):g}"
    if shown:
        return "" if clear else f"the interval includes 0, but the adjusted p is below {level}, which decides"
    p = f"the adjusted p is not below {level}" if not math.isnan(row["p_adjusted"]) else "there is no p"
    return f"the interval excludes 0, but {p}, which decides" if clear else f"the interval includes 0 and {p}"


def outcome_of(row: pd.Series, confidence: float) -> Outcome:
    """Return better, worse or open for a row of comparison.csv."""
    return outcome(row["difference"], row["p_adjusted"], confidence)


def verdicts(
    tables: PreparedTables, reference: str, confidence: float = 0.95, unit: Unit = PATIENT
) -> list[Verdict]:  # fmt: skip
    """Return the best arm per fraction against the reference, by the leading metric.

    The reference is that on the same backbone, or that of `octdino.config.names.reference_backbone`.

    The adjusted p decides: below 1 - `confidence` a difference is shown. Sorted by backbone, then fraction.
    """
    leading = tables.leading[tables.leading["arm"] != CLINICAL]
    known = set(leading.loc[leading["arm"] == reference, "backbone"])
    paired = tables.paired[tables.paired["reference"] == reference]
    compared = set(zip(paired["arm"], paired["backbone"], strict=True))
    macro, paired = (beside_reference(table, reference, known, compared) for table in (leading, paired))
    rows = zip(leading["arm"], leading["backbone"], strict=True)
    published = tuple(sorted({arm for arm, backbone in rows if has_own_backbone(arm, backbone)}))
    backbones = sorted(set(macro["backbone"]))
    found = []
    for backbone in backbones:
        arms, pairs = macro[macro["backbone"] == backbone], paired[paired["backbone"] == backbone]
        for fraction in sorted(set(arms["fraction"])):
            scored = arms[(arms["fraction"] == fraction) & arms["value"].notna()]
            of_fraction = pairs[pairs["fraction"] == fraction]
            verdict = _verdict(float(fraction), tables.metric_name, scored, of_fraction, reference, confidence, unit)
            verdict = replace(verdict, published=published)
            found.append(replace(verdict, backbone=str(backbone)) if len(backbones) > 1 else verdict)
    return found


def _verdict(
    fraction: float, words: str, arms: pd.DataFrame, pairs: pd.DataFrame, reference: str, confidence: float, unit: Unit
) -> Verdict:  # fmt: skip
    if arms.empty:
        nan = float("nan")
        text = f"no label has enough positive {unit.many} for a number."
        return Verdict(fraction, "alone", "", nan, nan, nan, text)
    best = arms.sort_values(["value", "name"], ascending=[False, True]).iloc[0]
    name = str(best["name"])
    scored = f"{words} {number(best['value'])} (interval {span(best['low'], best['high'])})"
    winner = ""
    if name == reference:
        result, text = _reference_leads(pairs, reference, scored, confidence)
    elif name not in set(pairs["name"]):
        result, text = "alone", f"{name} scores best, {scored}; {reference} was not run, so there is no comparison."
    else:
        winner, text = _arm_leads(name, pairs, reference, scored, confidence)
        result = "better" if winner else "open"
    ranked = pairs.sort_values("difference", ascending=False)
    better = tuple(str(row["name"]) for _, row in ranked.iterrows() if outcome_of(row, confidence) == "better")
    nearest = pairs[pairs["name"] == winner] if winner else ranked
    gap = (str(nearest.iloc[0]["name"]), _difference(nearest.iloc[0])) if len(nearest) else ("", "")
    return Verdict(
        fraction, result, str(best["arm"]), best["value"], best["low"], best["high"], text, winner=winner, shown=better,
        gap=gap, network=str(best["network"]), name=name,
    )  # fmt: skip


def _difference(row: pd.Series) -> str:
    """+0.050 (interval +0.010 to +0.090, adjusted p = 0.012)."""
    sure = f"interval {span(row['low'], row['high'], sign=True)}, adjusted {p_text(row['p_adjusted'])}"
    return f"{number(row['difference'], sign=True)} ({sure})"


def _arm_leads(
    name: str, pairs: pd.DataFrame, reference: str, scored: str, confidence: float
) -> tuple[str, str]:  # fmt: skip
    """Return the arm that beats the reference (empty if none does) and the text about the best-scoring arm `name`."""
    row = pairs[pairs["name"] == name].iloc[0]
    against, why = f"{_difference(row)} against {reference}", grounds(row, confidence)
    if outcome_of(row, confidence) == "better":
        return name, f"{name} is best, {scored}: {against}{f'; {why}' if why else ''}."
    text = f"{name} scores highest, {scored}: {against}; {why}: not shown to differ."
    order = pairs.sort_values("difference", ascending=False)
    better = [one for _, one in order.iterrows() if outcome_of(one, confidence) == "better"]
    if not better:
        return "", text
    return str(better[0]["name"]), f"{text} Shown to be better is {better[0]['name']}: {_difference(better[0])}."


def _reference_leads(pairs: pd.DataFrame, reference: str, scored: str, confidence: float) -> tuple[str, str]:
    if pairs.empty:
        return "alone", f"only {reference} was run, {scored}."
    order = pairs.sort_values("difference", ascending=False)
    nearest, worse = order.iloc[0], [outcome_of(row, confidence) == "worse" for _, row in order.iterrows()]
    text = (
        f"no arm scores above {reference}, {scored}. The nearest, {nearest['name']}, differs by {_difference(nearest)}"
    )
    why = grounds(nearest, confidence)
    text += f"; {why}." if why else "."
    if any(worse) and not all(worse):
        names = ", ".join(str(arm) for arm, below in zip(order["name"], worse, strict=True) if below)
        text += f" Shown to score below {reference}: {names}."
    return "worse" if all(worse) else "open", text


def headline(found: list[Verdict], reference: str, unit: Unit = PATIENT) -> str:
    """Return the headline of the page: one sentence, or one per answer where backbones have different ones."""
    if not found or all(not verdict.arm for verdict in found):
        return f"This cohort cannot answer: no label has enough positive {unit.many}."
    if all(verdict.outcome == "alone" for verdict in found):
        return "There is nothing to compare: only one arm was run."
    answers: dict[tuple[str, str], list[str]] = {}
    for backbone in dict.fromkeys(verdict.backbone for verdict in found):
        answer = _short([verdict for verdict in found if verdict.backbone == backbone], reference, unit)
        answers.setdefault(answer, []).append(backbone)
    sentences = []
    for (short, rest), backbones in answers.items():
        alone = {"yes": "Here, yes"}.get(short, short[:1].upper() + short[1:])
        opening = f"On {_joined(backbones)}, {short}" if all(backbones) else alone
        sentences.append(f"{opening}: {rest}.")
    return " ".join(sentences)


def _short(found: list[Verdict], reference: str, unit: Unit) -> tuple[str, str]:
    """Return yes, no or not shown, and the reason; of one backbone."""
    better = [verdict for verdict in found if verdict.outcome == "better"]
    first = found[0]
    floor = FLOORS.get(reference, reference)
    if not better:
        if first.outcome == "worse":
            return "no", f"at {percent(first.fraction)} of the labels, {floor} scores above every other arm"
        if all(verdict.outcome == "alone" for verdict in found):
            return "not shown", "there is nothing to compare"
        return "not shown", f"no arm is shown to score above {floor} at any fraction"
    if len(better) == len(found):
        where = "at every fraction" if len(found) > 1 else f"at {percent(first.fraction)} of the labeled {unit.many}"
    else:
        where = "at " + " and ".join(percent(verdict.fraction) for verdict in better) + f" of the labeled {unit.many}"
    arms = list(dict.fromkeys(verdict.winner for verdict in better))
    tail = "" if len(better) == len(found) else "; elsewhere this is not shown"
    beats = f"{_joined(arms)} beat{'s' if len(arms) == 1 else ''} {floor} {where}{tail}"
    if any(first.is_pretrained(arm) for arm in arms):
        return "yes", beats
    others = list(dict.fromkeys(arm for verdict in better for arm in verdict.shown if first.is_pretrained(arm)))
    if others:
        return "yes, though another arm leads", f"{beats}; of pretraining here, {_joined(others)} is shown to as well"
    return "not by self-supervised pretraining", f"{beats}; no arm that was pretrained here is shown to"


def _joined(names: list[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def margins(found: list[Verdict], reference: str, metric: str) -> list[str]:
    """Return per backbone a sentence with the difference that the headline rests on, with its interval."""
    sentences = []
    for backbone in dict.fromkeys(verdict.backbone for verdict in found):
        own = [verdict for verdict in found if verdict.backbone == backbone and verdict.gap[0]]
        if not own:
            continue
        gaps = "; ".join(f"{verdict.gap[0]} {verdict.gap[1]} at {percent(verdict.fraction)}" for verdict in own)
        where = f" on {backbone}" if backbone else ""
        sentences.append(f"Difference to {reference} in {metric}{where}: {gaps}.")
    return sentences


def against_clinical_baseline(tables: PreparedTables, found: list[Verdict], confidence: float = 0.95) -> list[str]:
    """Return one sentence per fraction and backbone: the best arm against the clinical baseline (no image)."""
    leading = tables.leading
    baseline = leading[(leading["arm"] == CLINICAL) & leading["value"].notna()]
    paired = tables.paired[tables.paired["reference"] == CLINICAL]
    sentences = []
    for verdict in found:
        of_fraction = baseline[baseline["fraction"] == verdict.fraction]
        if of_fraction.empty or not verdict.arm:
            continue
        one = of_fraction.iloc[0]
        where = f"At {percent(verdict.fraction)} of the labels"
        text = f"{where} the clinical baseline reaches {number(one['value'])} ({span(one['low'], one['high'])})"
        rows = paired[(paired["fraction"] == verdict.fraction) & (paired["arm"] == verdict.arm)]
        rows = rows[rows["backbone"] == verdict.network]
        if len(rows):
            row = rows.iloc[0]
            means = {
                "better": "", "worse": ": the clinical baseline is better",
                "open": ": the image is not shown to add anything",
            }[outcome_of(row, confidence)]  # fmt: skip
            why = grounds(row, confidence)
            name = f"{verdict.arm} ({verdict.network})" if verdict.backbone else verdict.name
            text += f"; {name} differs from it by {_difference(row)}{f'; {why}' if why else ''}{means}"
        sentences.append(text + ".")
    return sentences
