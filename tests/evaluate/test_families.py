"""Families of arms: one per arm, and the rows of forest plots below the headings of their families."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from octdino.config import METHODS, EvaluateSettings
from octdino.config.families import FAMILIES, family_of
from octdino.data.pretrained_methods import pretrained_methods
from octdino.errors import UserError
from octdino.evaluate import evaluate
from octdino.evaluate.leading_arms import HEADING, by_family, row_names
from tests.results import write_arm, write_cohort, write_pretraining

RUNS = {"dino": "dino", "near": "simclr", "supcon_cst": "supcon"}


@pytest.mark.parametrize(
    ("arm", "family"),
    [
        ("scratch-finetune", "supervised"),
        ("scratch-linear", "supervised"),
        ("imagenet-knn", "published weights"),
        ("retfound-linear", "published weights"),
        ("dino-finetune", "self-distillation"),
        ("near-mlp", "metric learning"),
        ("supcon_cst-linear", "metric learning"),
        ("vicreg-linear", "canonical correlation"),  # its run was not kept: by its name
        ("lejepa-linear", "joint-embedding prediction"),
        ("clinical", "clinical baseline"),
    ],
)
def test_each_arm_has_a_family(arm: str, family: str) -> None:
    assert family_of(arm, RUNS) == family


def test_every_method_has_one_of_the_families() -> None:
    assert {kind.family for kind in METHODS.values()} == set(FAMILIES[2:-1])


def test_rows_are_grouped_and_keep_their_order_within_a_family() -> None:
    order = [("clinical", "none"), ("near-linear", "a"), ("dino-linear", "b"), ("scratch-linear", "a"),
             ("supcon_cst-linear", "b"), ("near-linear", "b")]  # fmt: skip
    rows = by_family(order, RUNS)
    assert rows == [
        (HEADING, "supervised"), ("scratch-linear", "a"),
        (HEADING, "metric learning"), ("near-linear", "a"), ("supcon_cst-linear", "b"), ("near-linear", "b"),
        (HEADING, "self-distillation"), ("dino-linear", "b"),
        (HEADING, "clinical baseline"), ("clinical", "none"),
    ]  # fmt: skip
    names = row_names(rows)
    assert names[(HEADING, "metric learning")] == "metric learning"
    assert names[("near-linear", "a")] == "near-linear · a"
    one = row_names(by_family([("near-linear", "a"), ("scratch-linear", "a"), ("clinical", "none")], RUNS))
    assert one[("near-linear", "a")] == "near-linear", "headings are no second backbone"


def test_forest_plots_have_the_headings(tmp_path: Path) -> None:
    write_cohort(tmp_path / "cohort")
    arms = ("scratch-finetune", "near-linear", "dino-linear", "clinical")
    folders = [write_arm(tmp_path / "classify", tmp_path / "cohort", arm) for arm in arms]
    card = write_pretraining(tmp_path / "pretrain", "near") / "backbone.json"
    card.write_text(card.read_text().replace('{"method": "near"}', '{"method": "simclr"}'))
    evaluate(EvaluateSettings(resamples=100), tmp_path / "cohort" / "manifest.csv", folders, tmp_path / "evaluate")
    headings = ("supervised", "metric learning", "self-distillation", "clinical baseline")
    for name in ("comparison", "difference", "labels"):
        words = list(ElementTree.parse(tmp_path / f"evaluate/{name}.svg").getroot().itertext())
        order = [words.index(word) for word in (headings[0], arms[0], headings[1], arms[1], headings[2], arms[2])]
        assert order == sorted(order), name
    assert pretrained_methods(tmp_path) == {"near": "simclr"}


def test_damaged_metadata_of_a_pretraining_is_one_line(tmp_path: Path) -> None:
    path = write_pretraining(tmp_path / "pretrain", "near") / "backbone.json"
    path.write_text('{"method": {"method": 3}}')
    with pytest.raises(UserError, match=r"backbone\.json") as caught:
        pretrained_methods(tmp_path)
    assert "\n" not in str(caught.value)
