"""The sentences: as sure as the intervals and no surer."""

import pandas as pd
import pytest

from octdino.report.answer import beside_clinical, headline, number, p_text, verdicts
from octdino.report.rows import duration

REFERENCE = "scratch-finetune"


def tables(differences: dict[float, tuple[float, float, float]], clinical: bool = False) -> tuple[pd.DataFrame, ...]:
    """One arm, dino-linear, with a difference and its interval at each fraction; the reference stands at 0.7."""
    common = {"backbone": "resnet18", "fold": "0", "seed": 0, "label": "macro", "metric": "auroc"}
    metrics, comparison = [], []
    for fraction, (difference, low, high) in differences.items():
        for arm, value in ((REFERENCE, 0.7), ("dino-linear", 0.7 + difference)):
            metrics.append(
                {**common, "arm": arm, "fraction": fraction, "value": value, "low": value - 0.05, "high": value + 0.05}
            )
        pair = {"difference": difference, "low": low, "high": high, "p": 0.01, "p_adjusted": 0.01}
        for reference in (REFERENCE, "clinical") if clinical else (REFERENCE,):
            row = {**common, "arm": "dino-linear", "reference": reference, "fraction": fraction}
            comparison.append({**row, **pair})
        if clinical:
            control = {**common, "arm": "clinical", "backbone": "none", "fraction": fraction}
            metrics.append({**control, "value": 0.99, "low": 0.98, "high": 1.0})
    return pd.DataFrame(metrics), pd.DataFrame(comparison)


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ({0.1: (0.2, 0.1, 0.3), 1.0: (0.1, 0.01, 0.2)}, "dino-linear beats training from scratch at every fraction."),
        (
            {0.1: (0.2, 0.1, 0.3), 1.0: (0.02, -0.05, 0.1)},
            "dino-linear beats training from scratch at 10 % of the labelled patients; elsewhere this is not shown.",
        ),
        ({1.0: (0.2, 0.1, 0.3)}, "dino-linear beats training from scratch at 100 % of the labelled patients."),
        ({0.1: (0.02, -0.05, 0.1)}, "Not shown: no arm's lead over training from scratch is clear of chance"),
        ({0.1: (-0.1, -0.2, 0.02)}, "Not shown"),
        ({0.1: (-0.1, -0.2, -0.02)}, "No: at 10 % of the labels, training from scratch scores above every other arm."),
    ],
)
def test_headline(differences: dict[float, tuple[float, float, float]], expected: str) -> None:
    assert expected in headline(verdicts(*tables(differences), REFERENCE), REFERENCE)


def test_an_interval_that_includes_zero_is_called_open() -> None:
    (verdict,) = verdicts(*tables({0.1: (0.02, -0.05, 0.1)}), REFERENCE)
    assert verdict.outcome == "open"
    assert "the interval includes 0" in verdict.text
    assert "not shown to differ" in verdict.text


def test_the_reference_may_lead() -> None:
    (verdict,) = verdicts(*tables({0.1: (-0.1, -0.2, -0.05)}), REFERENCE)
    assert (verdict.outcome, verdict.arm) == ("worse", REFERENCE)
    assert "no arm scores above scratch-finetune" in verdict.text


def test_the_control_is_never_the_best_arm() -> None:
    metrics, comparison = tables({0.1: (0.1, 0.05, 0.2)}, clinical=True)
    (verdict,) = verdicts(metrics, comparison, REFERENCE)
    assert verdict.arm == "dino-linear"
    comparison.loc[comparison["reference"] == "clinical", ["difference", "low", "high"]] = [-0.01, -0.04, 0.02]
    (sentence,) = beside_clinical(metrics, comparison, [verdict])
    assert "the control reaches 0.990" in sentence
    assert "the image is not shown to add anything" in sentence


def test_random_features_are_not_called_training() -> None:
    metrics, comparison = tables({0.1: (0.2, 0.1, 0.3)})
    swap = {REFERENCE: "scratch-linear"}
    found = verdicts(metrics.replace(swap), comparison.replace(swap), "scratch-linear")
    assert headline(found, "scratch-linear").startswith("Here, yes: dino-linear beats random features at 10 %")


def two_backbones() -> tuple[pd.DataFrame, pd.DataFrame]:
    """On resnet18 (reference at 0.7) dino leads; on vit, whose reference scores highest of all, it trails."""
    metrics, comparison = tables({1.0: (0.1, 0.05, 0.2)}, clinical=True)
    others, differences = tables({1.0: (-0.2, -0.3, -0.1)}, clinical=True)
    others = others[others["arm"] != "clinical"].assign(backbone="vit", value=lambda table: table["value"] + 0.25)
    return pd.concat([metrics, others]), pd.concat([comparison, differences.assign(backbone="vit")])


def test_each_backbone_has_its_own_answer() -> None:
    metrics, comparison = two_backbones()
    found = verdicts(metrics, comparison, REFERENCE)
    assert [(v.backbone, v.arm, v.outcome) for v in found] == [
        ("resnet18", "dino-linear", "better"),
        ("vit", REFERENCE, "worse"),
    ]
    assert headline(found, REFERENCE) == (
        "On resnet18, yes: dino-linear beats training from scratch at 100 % of the labelled patients. "
        "On vit, no: at 100 % of the labels, training from scratch scores above every other arm."
    )
    of_resnet, of_vit = beside_clinical(metrics, comparison, found)
    assert "dino-linear (resnet18) differs from it by +0.100" in of_resnet
    assert "dino-linear" not in of_vit, "of vit the reference is best"


def test_a_backbone_without_the_reference_is_not_compared() -> None:
    metrics, comparison = two_backbones()
    metrics = metrics[(metrics["backbone"] != "vit") | (metrics["arm"] != REFERENCE)]
    comparison = comparison[comparison["backbone"] != "vit"]
    found = verdicts(metrics, comparison, REFERENCE)
    assert found[1].outcome == "alone"
    assert headline(found, REFERENCE).endswith("On vit, not shown: there is nothing to compare.")


def test_the_mean_over_seeds_speaks_where_there_are_several() -> None:
    metrics, comparison = tables({0.1: (0.1, 0.05, 0.2)})
    more = [metrics.assign(seed=seed, value=metrics["value"] + shift) for seed, shift in ((1, 0.2), (None, 0.1))]
    metrics = pd.concat([metrics, *more]).astype({"seed": "Int64"})
    (verdict,) = verdicts(metrics, comparison, REFERENCE)
    assert verdict.value == pytest.approx(0.9)


def test_nothing_to_compare() -> None:
    metrics, comparison = tables({0.1: (0.1, 0.05, 0.2)})
    alone = metrics[metrics["arm"] == REFERENCE]
    found = verdicts(alone, comparison.iloc[:0], REFERENCE)
    assert "nothing to compare" in headline(found, REFERENCE)
    assert "cannot answer" in headline(verdicts(metrics.assign(value=float("nan")), comparison, REFERENCE), REFERENCE)


def test_numbers_as_they_are_read() -> None:
    assert number(-0.0512, sign=True) == "\N{MINUS SIGN}0.051"
    assert number(0.0512, sign=True) == "+0.051"
    assert number(float("nan")) == "\N{EN DASH}"
    assert p_text(0.0004) == "p < 0.001"
    assert [duration(s) for s in (3.21, 42, 200, 7500)] == ["3.2 s", "42 s", "3 min 20 s", "2 h 5 min"]
