"""The page of a comparison of methods: several backbones in one table, the curves, and runs that collapsed."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from octdino.config import EvaluateSettings
from octdino.evaluate import evaluate  # only tests may join two stages
from octdino.figures import POOL, looks
from octdino.report.answer import NOTHING
from octdino.report.read import read_results
from octdino.report.rows import backbone_tables
from octdino.report.training import training_figure
from tests.report.test_report import render
from tests.results import write_arm, write_cohort, write_pretraining, write_store

ARMS = {"scratch-linear": ("resnet18", "vit"), "simclr-linear": ("resnet18", "vit"), "dinov2-linear": ("vit",)}
ALARM = "collapsed to uniform: remedy"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("methods") / "phantom"
    write_store(root / "cohort", write_cohort(root / "cohort"))
    folders = [
        write_arm(root / "classify", root / "cohort", arm, backbone=backbone, skill=0.4 if "scratch" in arm else 1.5)
        for arm, backbones in ARMS.items()
        for backbone in backbones
    ]
    write_pretraining(root / "pretrain", "simclr", "resnet18", start=None, skipped_steps=2, exported_epoch=20)
    start = {"from": "results/x", "name": "simclr", "scope": "all"}
    write_pretraining(root / "pretrain", "simclr", "vit", start=start)
    write_pretraining(root / "pretrain", "dinov2", "vit", alarms=[ALARM], start={"from": "imagenet", "sha256": None})
    settings = EvaluateSettings(resamples=100, reference="scratch-linear")
    evaluate(settings, root / "cohort" / "manifest.csv", folders, root / "evaluate")
    return root


def test_all_arms_and_backbones_stand_in_one_table_with_intervals(root: Path) -> None:
    (table,) = backbone_tables(read_results(root), "scratch-linear")
    assert table["heads"] == ["arm", "resnet18: AUROC", "minus scratch-linear", "vit: AUROC", "minus scratch-linear"]
    rows = {row[0].text: row[1:] for row in table["rows"]}
    assert list(rows) == ["scratch-linear", "dinov2-linear", "simclr-linear"]
    assert [cell.text for cell in rows["dinov2-linear"][:2]] == [NOTHING, NOTHING]
    metrics = pd.read_csv(root / "evaluate/metrics.csv")
    chosen = (metrics["arm"] == "simclr-linear") & (metrics["backbone"] == "vit") & (metrics["label"] == "macro")
    one = metrics[chosen & (metrics["metric"] == "auroc")].iloc[0]
    score, gap = rows["simclr-linear"][2:]
    assert score.text == f"{one['value']:.3f}"
    assert score.small == f"[{one['low']:.3f}, {one['high']:.3f}]"
    assert gap.mark == "better"
    assert rows["scratch-linear"][1].text == NOTHING, "the reference has no difference to itself"


def test_one_backbone_needs_no_such_table(tmp_path: Path) -> None:
    write_cohort(tmp_path / "cohort")
    folders = [
        write_arm(tmp_path / "classify", tmp_path / "cohort", arm) for arm in ("scratch-finetune", "dino-linear")
    ]
    evaluate(EvaluateSettings(resamples=100), tmp_path / "cohort" / "manifest.csv", folders, tmp_path / "evaluate")
    assert backbone_tables(read_results(tmp_path), "scratch-finetune") == []


def test_a_collapsed_run_is_told_on_top_and_beside_its_curves(root: Path) -> None:
    _, page = render(root)
    assert "1 pretraining run collapsed." in page.text[: page.text.index("The arms compared")]
    assert f"dinov2 · vit · fold0-seed0: {ALARM}" in page.text[page.text.index("learning, or collapsing") :]


def test_where_runs_started_and_what_they_skipped(root: Path) -> None:
    _, page = render(root)
    assert "simclr resnet18 fold0-seed0 random" in page.text
    assert "simclr vit fold0-seed0 simclr (scope all)" in page.text
    assert "dinov2 vit fold0-seed0 imagenet" in page.text


def test_a_healthy_page_warns_of_nothing(root: Path, tmp_path: Path) -> None:
    healthy = tmp_path / "phantom"
    healthy.mkdir()
    for name in ("cohort", "evaluate", "classify"):
        (healthy / name).symlink_to(root / name)
    write_pretraining(healthy / "pretrain", "simclr", alarms=[])
    write_pretraining(healthy / "pretrain", "dino")  # an old card, without the key
    _, page = render(healthy)
    assert "collapsed." not in page.text


def test_each_backbone_has_its_own_column_of_curves(root: Path) -> None:
    text, meanings = training_figure(read_results(root).pretraining)
    names = [name for name, _ in meanings]
    for backbone in ("resnet18", "vit"):
        assert f"kNN macro AUROC, {backbone}" in text
    assert names[0] == "kNN macro AUROC"


def test_entropy_and_divergence_lie_side_by_side(tmp_path: Path) -> None:
    """Figure 7 of Caron et al. 2021, from the runs of config/collapse.yaml."""
    write_cohort(tmp_path / "cohort")
    folders = [write_arm(tmp_path / "classify", tmp_path / "cohort", arm) for arm in ("scratch-linear", "dino-linear")]
    settings = EvaluateSettings(resamples=100, reference="scratch-linear")
    evaluate(settings, tmp_path / "cohort" / "manifest.csv", folders, tmp_path / "evaluate")
    for method in ("centring_only", "neither"):
        folder = write_pretraining(tmp_path / "pretrain", method)
        history = pd.read_csv(folder / "history.csv")
        history.assign(teacher_entropy=5.0, kl=0.1, ln_k=np.log(256)).to_csv(folder / "history.csv", index=False)
    _, meanings = training_figure(read_results(tmp_path).pretraining)
    names = [name for name, _ in meanings]
    place = names.index("teacher entropy")
    assert place % 2 == 0
    assert names[place + 1] == "KL teacher to student"


def luminance(color: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("color", POOL)
def test_colours_read_on_a_light_and_on_a_dark_page(color: str) -> None:
    for page in ("#fdfdfc", "#15181b"):
        light, dark = sorted((luminance(color), luminance(page)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 3


def test_twelve_methods_have_twelve_colours() -> None:
    found = looks([f"method{index}-linear" for index in range(12)])
    assert len({look.color for look in found.values()}) == 12
