"""Which classifier each one is compared with: backbone, fraction and seed of the reference arm."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.multitest import multipletests

from octdino.config.names import reference_backbone
from octdino.data.csv_io import one_seed, read_table
from octdino.data.schemas.csv_schemas import COMPARISON, METRICS
from octdino.data.schemas.evaluate_schemas import LABEL_EFFICIENCY
from octdino.evaluate import comparable_runs, evaluate
from octdino.evaluate.classifier_runs import Key
from octdino.evaluate.evaluation import comparison_table
from octdino.evaluate.reference_pairs import comparison_pairs, reference_of
from octdino.evaluate.resampled_scores import metric_names, score_columns
from octdino.plotting import notice_of
from tests.evaluate.evaluated import SETTINGS, one
from tests.results import drawing, write_arm, write_cohort

SHARED = {"resnet18", "vit"}


@pytest.mark.parametrize(
    ("arm", "backbone", "reference", "known", "expected"),
    [
        ("dino-linear", "vit", "scratch-finetune", SHARED, "vit"),
        ("retfound-linear", "retfound", "scratch-finetune", SHARED, "resnet18"),
        ("retfound-linear", "retfound", "dino-linear", SHARED, "resnet18"),
        ("retfound_more-linear", "retfound", "scratch-finetune", SHARED, "resnet18"),
        ("simclr-linear", "vit", "dino-linear", {"resnet18"}, "vit"),  # dino could have been run on it
        ("dino-linear", "vit", "retfound-linear", {"retfound"}, "retfound"),  # no arm can share its backbone
        ("mirage-linear", "mirage", "retfound-linear", {"retfound"}, "retfound"),
        ("dino-linear", "vit", "retfound-linear", set(), "vit"),
    ],
)
def test_backbone_of_the_reference(arm: str, backbone: str, reference: str, known: set[str], expected: str) -> None:
    assert reference_backbone(arm, backbone, reference, known) == expected


def test_a_reference_with_one_seed_is_compared_with_the_mean_of_arms_with_several() -> None:
    reference = Key("scratch-finetune", "resnet18", 1.0, 3)
    arms = [Key("dino-linear", "resnet18", 1.0, seed) for seed in (3, 4, None)]
    baseline = Key("clinical", "none", 1.0, 3)
    found = comparison_pairs("scratch-finetune", [*arms, reference, baseline])
    assert found == [pair for arm in arms for pair in ((arm, reference), (arm, baseline))] + [(reference, baseline)]


def test_the_same_seed_goes_before_the_mean_over_seeds() -> None:
    several = [Key("scratch-finetune", "resnet18", 1.0, seed) for seed in (0, 1, None)]
    for seed, expected in ((1, several[1]), (None, several[2]), (7, several[2])):
        assert reference_of(Key("dino-linear", "resnet18", 1.0, seed), "scratch-finetune", several) == expected
    assert reference_of(Key("dino-linear", "resnet18", 0.1, 0), "scratch-finetune", several) is None


def test_a_table_is_shown_by_its_means_or_only_seeds_in_its_own_order() -> None:
    table = pd.DataFrame(
        [("simclr-linear", 5, "b"), ("dino-linear", 0, "b"), ("dino-linear", 1, "b"), ("dino-linear", None, "b"),
         ("dino-linear", 0, "c"), ("dino-linear", None, "c")],
        columns=["arm", "seed", "cohort"],
    ).astype({"seed": "Int64"})  # fmt: skip
    assert one_seed(table).index.tolist() == [0, 3, 5]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two arms on resnet18 and one of published weights, on a backbone of its own, with one seed only."""
    root = tmp_path_factory.mktemp("results")
    write_cohort(root / "cohort", patients=90)
    runs = [("scratch-finetune", "resnet18", seed) for seed in (0, 1)]
    runs += [("dino-linear", "resnet18", seed) for seed in (0, 1)] + [("retfound-linear", "retfound", 0)]
    folders = [
        write_arm(root / "classify", root / "cohort", arm, fraction, seed=seed, backbone=backbone)
        for arm, backbone, seed in runs
        for fraction in (0.1, 0.4, 1.0)
    ]
    with drawing("plot_patients_needed"):
        evaluate(SETTINGS, root / "cohort/manifest.csv", folders, root / "evaluate")
    own = SETTINGS.model_copy(update={"reference": "retfound-linear"})
    whole = [folder for folder in folders if "/f1/" in str(folder)]
    with drawing():
        evaluate(own, root / "cohort/manifest.csv", whole, root / "own")
    return root


def test_label_efficiency_has_arms_of_published_weights_on_their_own_backbone(published: Path) -> None:
    table = read_table(published / "evaluate/label_efficiency.csv", LABEL_EFFICIENCY)
    own = table[table["arm"] == "retfound-linear"]
    assert own["fraction"].tolist() == [0.1, 0.4, 1.0]
    assert set(own["backbone"]) == {"retfound"}
    assert set(table["reference_backbone"]) == {"resnet18"}
    metrics = read_table(published / "evaluate/metrics.csv", METRICS)
    macro = metrics[(metrics["label"] == "macro") & (metrics["metric"] == "auroc")]
    score = one(macro, arm="retfound-linear", fraction=0.1)["value"]
    curve = macro[(macro["arm"] == "scratch-finetune") & (macro["seed"] == 0)].set_index("fraction")["value"]
    row = one(own, fraction=0.1)
    assert row["value"] == score
    numbers = {fraction: round(fraction * 45) for fraction in curve.index}
    below = [numbers[fraction] for fraction in sorted(numbers) if curve.cummax()[fraction] < score]
    assert row["reference_patients"] >= max(below, default=min(numbers.values()))
    figure = (published / "evaluate/patients_needed.svg").read_text()
    assert notice_of(figure) == ""
    assert "retfound-linear" in figure


def test_a_reference_with_its_own_backbone_is_compared_with_every_arm(published: Path) -> None:
    table = read_table(published / "own/comparison.csv", COMPARISON)
    shown = one_seed(table[(table["label"] == "macro") & (table["metric"] == "auroc")])
    assert set(zip(shown["arm"], shown["backbone"], strict=True)) == {
        ("scratch-finetune", "resnet18"),
        ("dino-linear", "resnet18"),
    }
    assert shown["seed"].isna().all(), "means over seeds, as their scores are shown"
    macro = one_seed(read_table(published / "own/metrics.csv", METRICS).query("label == 'macro' and metric == 'auroc'"))
    for _, row in shown.iterrows():
        scores = [
            one(macro, arm=arm, fraction=row["fraction"])["value"] for arm in (row["arm"], "retfound-linear")
        ]  # fmt: skip
        assert row["difference"] == pytest.approx(scores[0] - scores[1])


def test_the_only_seed_of_an_arm_is_adjusted_with_the_means_of_the_others() -> None:
    """Three comparisons are shown: the means of two arms over their seeds, and an arm with one seed."""
    rng = np.random.default_rng(0)
    test = comparable_runs.TestSet("0", ["a"], np.arange(40.0)[:, None] % 2, np.arange(40), [comparable_runs.PRIMARY])
    keys = [Key(arm, "b", 1.0, seed) for arm in ("dino-linear", "simclr-linear") for seed in (0, 1, None)]
    keys += [Key(arm, "b", 1.0, 0) for arm in ("byol-linear", "scratch-finetune")]
    width = 1 + SETTINGS.resamples
    shape = (len(metric_names(SETTINGS, exclusive=False)), width, len(score_columns(test.labels)))
    scores = {key: rng.normal(0.01 * place, 0.01, shape) for place, key in enumerate(keys)}
    table = comparison_table(SETTINGS, test, scores)
    table = table[(table["label"] == "macro") & (table["metric"] == "auroc")]
    shown = table[table["seed"].isna() | (table["arm"] == "byol-linear")]
    assert len(shown) == 3
    expected = multipletests(shown["p"], method="holm")[1]
    np.testing.assert_allclose(shown["p_adjusted"].to_numpy(float), expected)
    for _, single in table.drop(shown.index).groupby("seed"):
        np.testing.assert_allclose(single["p_adjusted"].to_numpy(float), multipletests(single["p"], method="holm")[1])
