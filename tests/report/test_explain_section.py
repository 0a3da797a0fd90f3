"""The page's section on what networks look at, from the files that the explain stage writes."""

import base64
import io
import shutil
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from octdino.config import ExplainSettings, ModelSettings, ReportSettings
from octdino.report import write_report
from octdino.report.explain_section import BUDGET, explained
from tests.embedded import explain_network
from tests.report.test_report import Page
from tests.small import write_small_cohort

QUICK = ExplainSettings(resamples=100, scans=20, retrieval_gallery=40, neighbors=[1, 5], examples=2)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort with two networks looked into, and nothing classified."""
    root = tmp_path_factory.mktemp("results")
    store = write_small_cohort(root / "cohort")
    for seed in (0, 1):
        explain_network(
            "scratch", QUICK, store=store, backbone="vit", model=ModelSettings(timm="test_vit"), pretrained=None,
            classifiers=[], masks_root=None, seed=seed, out=root / f"explain/scratch/vit/fold0-seed{seed}",
        )  # fmt: skip
    return root


def page_of(root: Path) -> tuple[str, Page]:
    write_report(ReportSettings(), root, {}, root / "report.html")
    text = (root / "report.html").read_text()
    return text, Page(text)


def test_a_cohort_without_arms_has_a_page(results: Path) -> None:
    text, page = page_of(results)
    assert "No classifier was trained; this page shows attention and saliency maps." in page.text
    assert {"explain", "run", "limits"} <= set(page.ids)
    assert not {"comparison", "labels", "clinical"} & set(page.ids)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert page.images_without_words == 0
    assert len(page.sources) == 6  # maps, neighbours and points of each
    for source in page.sources:
        kind, data = source.split(",")
        assert kind == "data:image/jpeg;base64"
        assert Image.open(io.BytesIO(base64.b64decode(data))).width > 200
    assert "12 scans (test) of 4 patients" in page.text
    assert len(text) < 500_000


def test_tables_say_how_many_and_how_sure(results: Path) -> None:
    found = explained(results)
    assert found is not None
    (table,) = found.tables  # no masks: retrieval alone
    assert table.heads[:4] == ["weights", "backbone", "precision at 1", "precision at 5"]
    row = dict(zip(table.heads, table.rows[0], strict=True))
    written = pd.read_csv(results / "explain/scratch/vit/fold0-seed0/retrieval.csv")
    expected = written[(written["label"] == "macro") & (written["metric"] == "precision@5")].iloc[0]
    assert row["precision at 5"].sort == pytest.approx(expected["value"])
    assert row["precision at 5"].small.startswith("[")
    assert row["chance"].sort == pytest.approx(expected["chance"])
    assert row["scans / patients"].text == f"{expected['n_scans']} / {expected['n_patients']}"


def test_figures_beyond_the_budget_are_given_by_path(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert BUDGET < 3_000_000
    monkeypatch.setattr("octdino.report.explain_section.BUDGET", 1)
    root = tmp_path / "results"
    shutil.copytree(results, root)
    _, page = page_of(root)
    assert len(page.sources) == 1
    assert "Not included, to keep this page small: explain/scratch/vit/fold0-seed1/maps.png" in page.text


def test_nothing_explained_is_no_section(tmp_path: Path) -> None:
    assert explained(tmp_path) is None
