"""The page of a comparison of methods: several backbones in one table, the curves, and runs that collapsed."""

import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from octdino.config import ReportSettings
from octdino.plotting import FIXED, POOL, arm_styles
from octdino.report import training_section, write_report
from octdino.report.conclusions import NOTHING
from octdino.report.results_reader import Pretraining, _pretraining, read_results
from octdino.report.tables import backbone_tables
from octdino.report.training_section import _line, _line_styles, training_figures, training_table
from tests.report.test_report import Page
from tests.results import write_arm, write_cohort, write_pretraining, write_store, write_tables

ARMS = {"scratch-linear": ("resnet18", "vit"), "simclr-linear": ("resnet18", "vit"), "dinov2-linear": ("vit",)}
OTHER = "collapsed to a point: another remedy"
ALARM = "collapsed to uniform: the remedy"


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
    start = {"from": "old/pretrain/simclr/vit/fold0-seed0", "name": "simclr", "scope": "all"}
    write_pretraining(root / "pretrain", "simclr", "vit", start=start)
    imagenet = {"from": "imagenet", "sha256": None}
    write_pretraining(root / "pretrain", "dinov2", "vit", alarms=[ALARM, OTHER], start=imagenet, epochs=[10, 20])
    write_tables(root, folders, resamples=200, reference="scratch-linear")  # three arms: with 100 no p can pass
    return root


def render(root: Path) -> tuple[str, Page]:
    out = root / "report.html"
    write_report(ReportSettings(), root, {"evaluate": {"reference": "scratch-linear"}}, out)
    text = out.read_text(encoding="utf-8")
    return text, Page(text)


@pytest.fixture(scope="module")
def rendered(root: Path) -> tuple[str, Page]:
    return render(root)


def test_all_arms_and_backbones_stand_in_one_table_with_intervals(root: Path, rendered: tuple[str, Page]) -> None:
    (table,) = backbone_tables(read_results(root), "scratch-linear")
    assert table["groups"] == ["resnet18", "vit"]
    assert table["heads"] == ["arm", *["AUROC", "minus scratch-linear"] * 2]
    rows = {row[0].text: row[1:] for row in table["rows"]}
    assert list(rows) == ["scratch-linear", "simclr-linear", "dinov2-linear"]
    assert [row[0].group for row in table["rows"]] == ["supervised", "metric learning", "self-distillation"]
    assert [cell.text for cell in rows["dinov2-linear"][:2]] == [NOTHING, NOTHING]
    metrics = pd.read_csv(root / "evaluate/metrics.csv")
    chosen = (metrics["arm"] == "simclr-linear") & (metrics["backbone"] == "vit") & (metrics["label"] == "macro")
    one = metrics[chosen & (metrics["metric"] == "auroc")].iloc[0]
    pairs = pd.read_csv(root / "evaluate/comparison.csv")
    chosen = (pairs["arm"] == "simclr-linear") & (pairs["backbone"] == "vit") & (pairs["label"] == "macro")
    pair = pairs[chosen & (pairs["metric"] == "auroc") & (pairs["reference"] == "scratch-linear")].iloc[0]
    score, gap = rows["simclr-linear"][2:]
    assert score.text == f"{one['value']:.3f}"
    assert score.small == f"[{one['low']:.3f}, {one['high']:.3f}]"
    assert gap.mark == "better"
    assert gap.text == f"{pair['difference']:+.3f}"
    assert gap.small.startswith(f"[{pair['low']:+.3f}, {pair['high']:+.3f}]")
    assert [cell.text for cell in rows["scratch-linear"][1::2]] == ["reference"] * 2
    text, page = rendered
    assert text.count('scope="colgroup" colspan="2"') == 2
    assert "resnet18 vit arm AUROC minus scratch-linear" in page.text


def test_one_backbone_needs_no_such_table(tmp_path: Path) -> None:
    write_cohort(tmp_path / "cohort")
    folders = [
        write_arm(tmp_path / "classify", tmp_path / "cohort", arm) for arm in ("scratch-finetune", "dino-linear")
    ]
    write_tables(tmp_path, folders)
    assert backbone_tables(read_results(tmp_path), "scratch-finetune") == []


def test_the_top_of_the_page_names_the_backbones(rendered: tuple[str, Page]) -> None:
    _, page = rendered
    top = page.text[: page.text.index("The arms compared")]
    assert "On resnet18, yes: simclr-linear beats random features" in top
    assert "On vit, yes: " in top
    assert "100 % of labeled patients, vit" in top
    assert "(classify/" in page.text, "examples of one backbone's arm"


def test_training_figures_are_files_beside_the_page(root: Path, tmp_path: Path) -> None:
    (tmp_path / "training_gone.svg").write_text("of a measure that no run has any more")
    write_report(ReportSettings(), root, {}, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    written = {path.name: path.read_text() for path in tmp_path.glob("*.svg")}
    assert set(written) == {"training_learning.svg", "training_features.svg"}
    assert all(text in page and ElementTree.fromstring(text).tag.endswith("svg") for text in written.values())


def test_a_collapsed_run_is_told_on_top_and_beside_its_curves(rendered: tuple[str, Page]) -> None:
    _, page = rendered
    top = page.text[: page.text.index("The arms compared")]
    assert "1 pretraining run collapsed." in top, "two alarms, one run"
    assert "dinov2 · vit · fold0-seed0: collapsed to uniform, collapsed to a point" in top
    assert f"dinov2 · vit · fold0-seed0 {ALARM} {OTHER}" in page.text[page.text.index("Training curves and collapse") :]


def test_an_alarm_is_told_without_a_history(root: Path, tmp_path: Path) -> None:
    bare = linked(root, tmp_path)
    (write_pretraining(bare / "pretrain", "simclr", alarms=[ALARM]) / "history.csv").unlink()
    _, page = render(bare)
    assert "training" in page.ids
    assert f"simclr · resnet18 · fold0-seed0 {ALARM}" in page.text


def test_where_runs_started_and_what_they_skipped(root: Path, rendered: tuple[str, Page]) -> None:
    heads, rows = training_table(read_results(root).pretraining)
    table = {(row[0].text, row[1].text): dict(zip(heads, row, strict=True)) for row in rows}
    first, vit, dinov2 = table["simclr", "resnet18"], table["simclr", "vit"], table["dinov2", "vit"]
    assert [run["starts from"].text for run in (first, vit, dinov2)] == ["random", "simclr", "imagenet"]
    assert vit["starts from"].small == "simclr/vit/fold0-seed0, scope all"
    assert [run["skipped steps"].text for run in (first, vit)] == ["2", NOTHING]
    assert [first[name].text for name in ("images/s", "data wait", "MFU")] == ["410", "0.4 %", "61.0 %"]
    assert [run["exported epoch"].text for run in (first, vit)] == ["20", NOTHING]
    assert (dinov2["epochs"].text, dinov2["epochs"].small) == ("20", "extended after 10")
    _, page = rendered
    assert "simclr metric learning vit fold0-seed0 simclr simclr/vit/fold0-seed0, scope all" in page.text


def linked(root: Path, tmp_path: Path) -> Path:
    """The same results without the pretraining runs."""
    found = tmp_path / "phantom"
    found.mkdir()
    for name in ("cohort", "evaluate", "classify"):
        (found / name).symlink_to(root / name)
    return found


def test_a_healthy_page_warns_of_nothing(root: Path, tmp_path: Path) -> None:
    healthy = linked(root, tmp_path)
    write_pretraining(healthy / "pretrain", "simclr", alarms=[], skipped_steps=0)
    write_pretraining(healthy / "pretrain", "dino")  # an old card, without the key
    _, page = render(healthy)
    assert "collapsed." not in page.text
    assert "skipped steps" not in page.text


def history(folder: Path, **columns: object) -> Path:
    """Change columns of a run's history."""
    pd.read_csv(folder / "history.csv").assign(**columns).to_csv(folder / "history.csv", index=False)
    return folder


def runs(root: Path) -> list[Pretraining]:
    return [_pretraining(path) for path in sorted(root.glob("*/*/*/backbone.json"))]


def test_each_backbone_has_its_own_panels(root: Path) -> None:
    learning, features = training_figures(read_results(root).pretraining)
    for figure, measures in ((learning, ("kNN macro AUROC", "loss")), (features, ("feature spread", "RankMe"))):
        assert [name for name, _ in figure.meanings] == list(measures)
        for measure in measures:
            assert len(re.findall(rf">\s*{measure}\s*<", figure.svg)) == 2
        assert figure.svg.count(">resnet18<") == figure.svg.count(">vit<") == 2
        assert ">dinov2<" in figure.svg


@pytest.mark.parametrize("watched", [1, 2])
def test_the_teacher_leads_where_two_runs_can_be_compared(
    tmp_path: Path, watched: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Figure 7 of Caron et al. 2021, from the runs of config/collapse.yaml."""
    monkeypatch.setattr(training_section, "_plot_figure", lambda *_: "")  # which figures, not how they look
    for method in ("centring_only", "neither")[:watched]:
        columns = {"teacher_entropy": 5.0, "kl": 0.1, "mean_entropy": 5.1, "ln_k": np.log(256)}
        history(write_pretraining(tmp_path, method), **columns)
    write_pretraining(tmp_path, "simclr")
    names = [[name for name, _ in figure.meanings] for figure in training_figures(runs(tmp_path))]
    place = 0 if watched > 1 else 2
    assert names[place] == ["teacher entropy / ln K", "KL teacher to student", "entropy of the mean / ln K"]
    assert names[1 - (place == 2)] == ["kNN macro AUROC", "loss"]


def test_entropies_are_shares_of_each_runs_own_maximum(tmp_path: Path) -> None:
    for method, prototypes in (("a", 256), ("b", 65536)):
        history(write_pretraining(tmp_path, method), teacher_entropy=np.log(prototypes), ln_k=np.log(prototypes))
    a, b = runs(tmp_path)
    assert set(_line(a, "teacher_entropy")) == set(_line(b, "teacher_entropy")) == {1.0}
    assert training_figures([a, b])[0].svg.count(">ln K<") == 1


def test_seeds_share_a_thinner_line_and_methods_keep_their_colour(tmp_path: Path) -> None:
    first = write_pretraining(tmp_path, "simclr")
    write_pretraining(tmp_path, "byol")
    alone = _line_styles(runs(tmp_path), ["scratch-linear", "simclr-linear"])
    shutil.copytree(first, first.with_name("fold0-seed1"))
    both = _line_styles(runs(tmp_path), ["scratch-linear", "simclr-linear"])
    assert both["simclr"]["linewidth"] < alone["simclr"]["linewidth"] == both["byol"]["linewidth"]
    assert both["simclr"]["color"] == arm_styles(["scratch-linear", "simclr-linear"])["simclr-linear"].color
    assert both["byol"]["color"] not in (both["simclr"]["color"], FIXED["scratch"])


def luminance(color: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("color", [*POOL, *FIXED.values()])
def test_colours_read_on_a_light_and_on_a_dark_page(color: str) -> None:
    for page in ("#fdfdfc", "#15181b"):
        light, dark = sorted((luminance(color), luminance(page)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 3
