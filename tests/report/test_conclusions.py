"""The sentences: as sure as the adjusted p and no surer."""

import pandas as pd
import pytest

from octdino.report.conclusions import against_clinical_baseline, headline, margins, number, p_text, verdicts
from octdino.report.prepared_tables import prepare
from octdino.report.tables import _difference, duration

REFERENCE = "scratch-finetune"


def tables(differences: dict[float, tuple[float, ...]], clinical: bool = False) -> tuple[pd.DataFrame, ...]:
    """One arm, dino-linear, with a difference and its interval at each fraction; the reference stands at 0.7.

    A fourth number is the adjusted p; without it, it agrees with the interval: 0.01 where that excludes 0, else 0.5.
    """
    common = {"backbone": "resnet18", "fold": "0", "seed": 0, "label": "macro", "metric": "auroc", "tier": None}
    metrics, comparison = [], []
    for fraction, (difference, low, high, *given) in differences.items():
        for arm, value in ((REFERENCE, 0.7), ("dino-linear", 0.7 + difference)):
            metrics.append(
                {**common, "arm": arm, "fraction": fraction, "value": value, "low": value - 0.05, "high": value + 0.05}
            )
        p = given[0] if given else 0.01 if low > 0 or high < 0 else 0.5
        pair = {"difference": difference, "low": low, "high": high, "p": p / 2, "p_adjusted": p}
        for reference in (REFERENCE, "clinical") if clinical else (REFERENCE,):
            row = {**common, "arm": "dino-linear", "reference": reference, "fraction": fraction}
            comparison.append({**row, **pair})
        if clinical:
            baseline = {**common, "arm": "clinical", "backbone": "none", "fraction": fraction}
            metrics.append({**baseline, "value": 0.99, "low": 0.98, "high": 1.0})
    return pd.DataFrame(metrics), pd.DataFrame(comparison)


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ({0.1: (0.2, 0.1, 0.3), 1.0: (0.1, 0.01, 0.2)}, "dino-linear beats training from scratch at every fraction."),
        (
            {0.1: (0.2, 0.1, 0.3), 1.0: (0.02, -0.05, 0.1)},
            "dino-linear beats training from scratch at 10 % of the labeled patients; elsewhere this is not shown.",
        ),
        ({1.0: (0.2, 0.1, 0.3)}, "dino-linear beats training from scratch at 100 % of the labeled patients."),
        ({0.1: (0.02, -0.05, 0.1)}, "Not shown: no arm is shown to score above training from scratch"),
        ({0.1: (-0.1, -0.2, 0.02)}, "Not shown"),
        ({0.1: (-0.1, -0.2, -0.02)}, "No: at 10 % of the labels, training from scratch scores above every other arm."),
        # the adjusted p decides, not the interval
        ({1.0: (0.06, 0.01, 0.12, 0.058)}, "Not shown: no arm is shown to score above training from scratch"),
        ({1.0: (0.06, 0.01, 0.12, 0.05)}, "Not shown"),
        ({1.0: (0.06, 0.01, 0.12, float("nan"))}, "Not shown"),
        ({1.0: (0.06, -0.01, 0.12, 0.049)}, "Here, yes: dino-linear beats training from scratch at 100 %"),
        ({0.1: (-0.1, -0.2, -0.02, 0.058)}, "Not shown"),
        ({0.1: (-0.1, -0.2, 0.02, 0.049)}, "No: at 10 % of the labels"),
        (
            {0.1: (0.2, 0.1, 0.3), 1.0: (0.06, 0.01, 0.12, 0.058)},
            "dino-linear beats training from scratch at 10 % of the labeled patients; elsewhere this is not shown.",
        ),
    ],
)
def test_headline(differences: dict[float, tuple[float, ...]], expected: str) -> None:
    assert expected in headline(verdicts(prepare(*tables(differences)), REFERENCE), REFERENCE)


def test_an_interval_that_includes_zero_is_called_open() -> None:
    (verdict,) = verdicts(prepare(*tables({0.1: (0.02, -0.05, 0.1)})), REFERENCE)
    assert verdict.outcome == "open"
    assert "the interval includes 0" in verdict.text
    assert "not shown to differ" in verdict.text


@pytest.mark.parametrize(
    ("row", "outcome", "sentence"),
    [
        (
            (0.06, 0.01, 0.12, 0.058),
            "open",
            "the interval excludes 0, but the adjusted p is not below 0.05, which decides",
        ),
        (
            (0.06, -0.01, 0.12, 0.049),
            "better",
            "the interval includes 0, but the adjusted p is below 0.05, which decides",
        ),
        ((-0.06, -0.12, -0.01, 0.058), "open", "the interval excludes 0, but the adjusted p is not below 0.05"),
        ((-0.06, -0.12, 0.01, 0.049), "worse", "the interval includes 0, but the adjusted p is below 0.05"),
        ((0.06, 0.01, 0.12, 0.01), "better", ""),
        ((-0.06, -0.12, -0.01, 0.01), "worse", ""),
    ],
)
def test_a_verdict_says_where_interval_and_adjusted_p_disagree(
    row: tuple[float, ...], outcome: str, sentence: str
) -> None:
    (verdict,) = verdicts(prepare(*tables({0.1: row})), REFERENCE)
    assert verdict.outcome == outcome
    assert sentence in verdict.text
    assert ("which decides" in verdict.text) == bool(sentence)


def test_the_level_is_that_of_the_intervals() -> None:
    found = tables({0.1: (0.06, 0.01, 0.12, 0.03)})
    assert verdicts(prepare(*found), REFERENCE, confidence=0.95)[0].outcome == "better"
    strict = verdicts(prepare(*found), REFERENCE, confidence=0.99)[0]
    assert strict.outcome == "open"
    assert "the adjusted p is not below 0.01" in strict.text
    assert verdicts(prepare(*tables({0.1: (0.06, 0.01, 0.12, 0.08)})), REFERENCE, confidence=0.9)[0].outcome == "better"


def with_second_arm(first: tuple[float, ...], second: tuple[float, ...]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """dino-linear and simclr-linear with these differences."""
    metrics, comparison = tables({1.0: first})
    others, pairs = tables({1.0: second})
    swap = {"dino-linear": "simclr-linear"}
    others = others[others["arm"] == "dino-linear"].replace(swap)
    return pd.concat([metrics, others]), pd.concat([comparison, pairs.replace(swap)])


def test_an_arm_that_is_shown_to_lead_is_named_though_another_scores_higher() -> None:
    found = verdicts(prepare(*with_second_arm((0.08, -0.02, 0.2, 0.2), (0.06, 0.03, 0.09, 0.01))), REFERENCE)
    assert (found[0].arm, found[0].winner, found[0].outcome) == ("dino-linear", "simclr-linear", "better")
    assert (
        "Shown to be better is simclr-linear: +0.060 (interval +0.030 to +0.090, adjusted p = 0.010)" in found[0].text
    )
    assert headline(found, REFERENCE).startswith("Here, yes: simclr-linear beats training from scratch")


def test_the_reference_scores_above_every_arm_only_if_each_is_shown() -> None:
    below, unsure = (-0.06, -0.09, -0.03, 0.01), (-0.08, -0.2, 0.02, 0.2)
    (verdict,) = verdicts(prepare(*with_second_arm(below, unsure)), REFERENCE)
    assert verdict.outcome == "open"
    assert "Shown to score below scratch-finetune: dino-linear." in verdict.text
    assert verdicts(prepare(*with_second_arm(below, below)), REFERENCE)[0].outcome == "worse"


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (
            (0.06, 0.01, 0.12, 0.058),
            "excludes 0, but the adjusted p is not below 0.05, which decides: the image is not",
        ),
        ((0.06, -0.01, 0.12, 0.3), "includes 0 and the adjusted p is not below 0.05: the image is not shown to add"),
        ((-0.06, -0.12, -0.01, 0.01), "adjusted p = 0.010): the clinical baseline is better."),
        ((0.06, 0.01, 0.12, 0.01), "(interval +0.010 to +0.120, adjusted p = 0.010)."),
    ],
)
def test_the_sentence_on_the_clinical_baseline_follows_the_adjusted_p(row: tuple[float, ...], sentence: str) -> None:
    metrics, comparison = tables({0.1: (0.1, 0.05, 0.2)}, clinical=True)
    columns = ["difference", "low", "high", "p_adjusted"]
    comparison.loc[comparison["reference"] == "clinical", columns] = row
    (found,) = against_clinical_baseline(
        prepare(metrics, comparison), verdicts(prepare(metrics, comparison), REFERENCE)
    )
    assert sentence in found


def test_a_table_s_mark_follows_the_adjusted_p() -> None:
    marks = [
        _difference(tables({0.1: row})[1].iloc[0], 0.95).mark
        for row in ((0.06, 0.01, 0.12, 0.058), (0.06, -0.01, 0.12, 0.049), (-0.06, -0.12, 0.01, 0.049))
    ]
    assert marks == ["", "better", "worse"]


def test_the_reference_may_lead() -> None:
    (verdict,) = verdicts(prepare(*tables({0.1: (-0.1, -0.2, -0.05)})), REFERENCE)
    assert (verdict.outcome, verdict.arm) == ("worse", REFERENCE)
    assert "no arm scores above scratch-finetune" in verdict.text


def test_the_clinical_baseline_is_never_the_best_arm() -> None:
    metrics, comparison = tables({0.1: (0.1, 0.05, 0.2)}, clinical=True)
    (verdict,) = verdicts(prepare(metrics, comparison), REFERENCE)
    assert verdict.arm == "dino-linear"
    comparison.loc[comparison["reference"] == "clinical", ["difference", "low", "high", "p_adjusted"]] = [
        -0.01, -0.04, 0.02, 0.5
    ]  # fmt: skip
    (sentence,) = against_clinical_baseline(prepare(metrics, comparison), [verdict])
    assert "the clinical baseline reaches 0.990" in sentence
    assert "the image is not shown to add anything" in sentence


def test_random_features_are_not_called_training() -> None:
    metrics, comparison = tables({0.1: (0.2, 0.1, 0.3)})
    swap = {REFERENCE: "scratch-linear"}
    found = verdicts(prepare(metrics.replace(swap), comparison.replace(swap)), "scratch-linear")
    assert headline(found, "scratch-linear").startswith("Here, yes: dino-linear beats random features at 10 %")


def two_backbones() -> tuple[pd.DataFrame, pd.DataFrame]:
    """On resnet18 (reference at 0.7) dino leads; on vit, whose reference scores highest of all, it trails."""
    metrics, comparison = tables({1.0: (0.1, 0.05, 0.2)}, clinical=True)
    others, differences = tables({1.0: (-0.2, -0.3, -0.1)}, clinical=True)
    others = others[others["arm"] != "clinical"].assign(backbone="vit", value=lambda table: table["value"] + 0.25)
    return pd.concat([metrics, others]), pd.concat([comparison, differences.assign(backbone="vit")])


def test_each_backbone_has_its_own_answer() -> None:
    metrics, comparison = two_backbones()
    found = verdicts(prepare(metrics, comparison), REFERENCE)
    assert [(v.backbone, v.arm, v.outcome) for v in found] == [
        ("resnet18", "dino-linear", "better"),
        ("vit", REFERENCE, "worse"),
    ]
    assert headline(found, REFERENCE) == (
        "On resnet18, yes: dino-linear beats training from scratch at 100 % of the labeled patients. "
        "On vit, no: at 100 % of the labels, training from scratch scores above every other arm."
    )
    of_resnet, of_vit = against_clinical_baseline(prepare(metrics, comparison), found)
    assert "dino-linear (resnet18) differs from it by +0.100" in of_resnet
    assert "dino-linear" not in of_vit, "of vit the reference is best"


def test_backbones_of_one_answer_share_a_sentence() -> None:
    metrics, comparison = tables({1.0: (0.1, 0.05, 0.2)})
    metrics, comparison = (pd.concat([table, table.assign(backbone="vit")]) for table in (metrics, comparison))
    assert headline(verdicts(prepare(metrics, comparison), REFERENCE), REFERENCE) == (
        "On resnet18 and vit, yes: dino-linear beats training from scratch at 100 % of the labeled patients."
    )


def test_a_backbone_without_the_reference_is_not_compared() -> None:
    metrics, comparison = two_backbones()
    metrics = metrics[(metrics["backbone"] != "vit") | (metrics["arm"] != REFERENCE)]
    comparison = comparison[comparison["backbone"] != "vit"]
    found = verdicts(prepare(metrics, comparison), REFERENCE)
    assert found[1].outcome == "alone"
    assert headline(found, REFERENCE).endswith("On vit, not shown: there is nothing to compare.")


def test_the_mean_over_seeds_speaks_where_there_are_several() -> None:
    metrics, comparison = tables({0.1: (0.1, 0.05, 0.2)})
    more = [metrics.assign(seed=seed, value=metrics["value"] + shift) for seed, shift in ((1, 0.2), (None, 0.1))]
    metrics = pd.concat([metrics, *more]).astype({"seed": "Int64"})
    (verdict,) = verdicts(prepare(metrics, comparison), REFERENCE)
    assert verdict.value == pytest.approx(0.9)


def test_nothing_to_compare() -> None:
    metrics, comparison = tables({0.1: (0.1, 0.05, 0.2)})
    alone = metrics[metrics["arm"] == REFERENCE]
    found = verdicts(prepare(alone, comparison.iloc[:0]), REFERENCE)
    assert "nothing to compare" in headline(found, REFERENCE)
    assert "cannot answer" in headline(
        verdicts(prepare(metrics.assign(value=float("nan")), comparison), REFERENCE), REFERENCE
    )


def test_numbers_as_they_are_read() -> None:
    assert number(-0.0512, sign=True) == "\N{MINUS SIGN}0.051"
    assert number(0.0512, sign=True) == "+0.051"
    assert number(float("nan")) == "\N{EN DASH}"
    assert p_text(0.0004) == "p < 0.001"
    assert [duration(s) for s in (3.21, 42, 200, 7500)] == ["3.2 s", "42 s", "3 min 20 s", "2 h 5 min"]


def test_the_margin_of_the_winner_is_told_with_its_interval() -> None:
    found = verdicts(prepare(*tables({0.1: (0.2, 0.1, 0.3), 1.0: (0.02, -0.05, 0.1)})), REFERENCE)
    assert margins(found, REFERENCE, "macro AUROC") == [
        "Difference to scratch-finetune in macro AUROC: dino-linear +0.200 (interval +0.100 to +0.300, adjusted p = "
        "0.010) at 10 %; dino-linear +0.020 (interval \N{MINUS SIGN}0.050 to +0.100, adjusted p = 0.500) at 100 %."
    ]
    ahead = (0.08, 0.05, 0.2, 0.01)
    found = verdicts(prepare(*with_second_arm((0.1, -0.02, 0.2, 0.2), ahead)), REFERENCE)
    assert "simclr-linear +0.080" in margins(found, REFERENCE, "macro AUROC")[0], "the arm that is shown to lead"


def test_a_winner_that_was_not_pretrained_here_is_no_yes() -> None:
    metrics, comparison = tables({1.0: (0.2, 0.1, 0.3)})
    swap = {"dino-linear": "imagenet-linear"}
    found = verdicts(prepare(metrics.replace(swap), comparison.replace(swap)), REFERENCE)
    assert headline(found, REFERENCE) == (
        "Not by self-supervised pretraining: imagenet-linear beats training from scratch at 100 % of the labeled "
        "patients; no arm that was pretrained here is shown to."
    )


def test_an_arm_that_leads_without_pretraining_does_not_hide_one_that_was_pretrained() -> None:
    first, second = with_second_arm((0.1, 0.05, 0.2, 0.01), (0.2, 0.1, 0.3, 0.01))
    swap = {"simclr-linear": "imagenet-linear"}
    found = verdicts(prepare(first.replace(swap), second.replace(swap)), REFERENCE)
    assert headline(found, REFERENCE) == (
        "Yes, though another arm leads: imagenet-linear beats training from scratch at 100 % of the labeled patients; "
        "of pretraining here, dino-linear is shown to as well."
    )


def test_a_reference_with_its_own_backbone_is_compared_with_arms_of_all_backbones() -> None:
    metrics, comparison = two_backbones()
    own = {"arm": "retfound-linear", "backbone": "retfound", "value": 0.7, "low": 0.6, "high": 0.8}
    reference = metrics[metrics["arm"] == REFERENCE].iloc[:1].assign(**own)
    metrics = pd.concat([reference, metrics[~metrics["arm"].isin([REFERENCE, "clinical"])]])
    comparison = comparison[comparison["reference"] == REFERENCE].assign(reference="retfound-linear")
    tables_ = prepare(metrics, comparison)
    (verdict,) = verdicts(tables_, "retfound-linear")
    assert (verdict.arm, verdict.network, verdict.outcome) == ("dino-linear", "resnet18", "better")
    assert verdict.text.startswith("dino-linear on resnet18 is best, macro AUROC 0.800")
    assert "+0.100 (interval +0.050 to +0.200, adjusted p = 0.010) against retfound-linear" in verdict.text
    assert headline([verdict], "retfound-linear").startswith("Here, yes: dino-linear on resnet18 beats retfound-linear")
