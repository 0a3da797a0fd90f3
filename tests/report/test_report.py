"""The page from a results folder: complete, self-contained, honest, and calm about what is missing."""

import base64
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from octdino.config import Config, ReportSettings
from octdino.data.csv_io import write_table
from octdino.data.schemas.csv_schemas import MANIFEST, QUARANTINE
from octdino.errors import UserError
from octdino.report import write_report
from octdino.report.conclusions import NOTHING
from octdino.report.example_scans import KINDS, examples
from octdino.report.results_reader import read_results
from octdino.report.tables import label_tables
from octdino.scans.pictures import data_uri, to_image
from tests.results import make_results, write_arm, write_cohort, write_pretraining, write_tables

CONFIG = Config().model_dump(mode="json")
VOID = {"meta", "link", "img", "br", "hr", "path", "use"}


class Page(HTMLParser):
    """Checks that tags close in order; keeps ids, links, sources and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.sources: list[str] = []
        self.images_without_words = 0
        self.words: list[str] = []
        self.feed(text)
        assert not self.stack, self.stack

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag not in VOID:
            self.stack.append(tag)
        if "id" in values:
            self.ids.append(str(values["id"]))
        self.links += [str(values[name]) for name in ("href", "xlink:href") if name in values]
        self.sources += [str(values[name]) for name in ("src", "srcset", "data", "action") if name in values]
        if tag == "img" and not values.get("alt"):
            self.images_without_words += 1

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.stack.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.stack.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if not self.stack or self.stack[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    arms = ("scratch-finetune", "dino-linear", "simclr-linear", "clinical")
    return make_results(tmp_path_factory.mktemp("results") / "phantom", arms)


def render(root: Path, **settings: object) -> tuple[str, Page]:
    out = root / "report" / "report.html"
    write_report(ReportSettings(**settings), root, CONFIG, out)
    text = out.read_text(encoding="utf-8")
    return text, Page(text)


@pytest.fixture(scope="module")
def rendered(results: Path) -> tuple[str, Page]:
    return render(results)


def test_the_page_has_every_part_and_needs_nothing_else(rendered: tuple[str, Page]) -> None:
    text, page = rendered
    assert set(page.ids) >= {"answer", "comparison", "labels", "clinical", "training", "examples", "run", "limits"}
    assert set(page.ids) >= {"calibration", "subgroups", "errors", "data-card", "model-card", "checklist", "methods"}
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert all(link.startswith(("#", "data:")) or not re.match(r"[a-z]+:|/", link) for link in page.links)
    assert len(page.sources) == 8 + text.count('<figure class="mistake">')
    assert all(source.startswith(("data:image/png;base64,", "data:image/jpeg;base64,")) for source in page.sources)
    assert page.images_without_words == 0
    asked = re.sub(r'<pre id="bibtex".*?</pre>', "", text, flags=re.DOTALL)  # addresses in it are text
    assert set(re.findall(r"https?://[^\"'\s<)]+", asked)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert "@import" not in text
    assert "url(http" not in text
    assert text.count("<svg") == 14  # eleven of evaluate's; curves of learning, features and collapse
    assert len(text) < 1_500_000


def test_ids_are_unique_within_the_page(rendered: tuple[str, Page]) -> None:
    _, page = rendered
    assert len(page.ids) == len(set(page.ids))


def test_the_answer_comes_first_and_says_how_sure(rendered: tuple[str, Page]) -> None:
    _, page = rendered
    answer = page.text.index("dino-linear beats training from scratch")
    assert answer < page.text.index("The arms compared")
    assert "interval" in page.text[answer : answer + 1200]
    assert "no clinical evidence" in page.text[: answer + 400]


def test_what_was_run_is_told(rendered: tuple[str, Page]) -> None:
    _, page = rendered
    for words in (
        "360 scans", "60 patients", "unreadable 2 the file is truncated", "missing_file 1", "3 min 20 s", "512 MiB",
        "CPU, 2 thread(s)", "torch", "VMT", "not evaluable", "Of 360 scans 6 lack CST",
        "One seed was run", "Too few positive patients for any number: VMT",
    ):  # fmt: skip
        assert words in page.text, words
    assert "reference: scratch-finetune" in page.text


def test_the_same_results_give_the_same_page(results: Path, rendered: tuple[str, Page], known_curves: dict) -> None:
    known_curves.clear()
    assert render(results)[0] == rendered[0]


def test_names_from_tables_cannot_break_the_page(tmp_path: Path, results: Path) -> None:
    root = tmp_path / "phantom"
    shutil.copytree(results, root)
    evil = "</script><script>alert(1)</script>"
    manifest = pd.read_csv(root / "cohort" / "manifest.csv", dtype=object)
    manifest["cohort"] = evil
    manifest.to_csv(root / "cohort" / "manifest.csv", index=False)
    refused = pd.DataFrame([{"path": evil, "reason": "unreadable", "detail": "<b>"}])
    write_table(root / "cohort" / "quarantine.csv", refused, QUARANTINE)
    text, page = render(root, title=evil)
    assert text.count("<script>") == 1
    assert page.text.count("alert(1)") >= 3


def test_everything_optional_may_be_missing(tmp_path: Path, results: Path) -> None:
    root = tmp_path / "phantom"
    shutil.copytree(results, root)
    for name in ("pretrain", "classify", "benchmarks"):
        shutil.rmtree(root / name)
    for path in [*root.glob("evaluate/*.svg"), root / "cohort" / "quarantine.csv"]:
        path.unlink()
    (root / "cohort" / "scans.h5").unlink()
    out = tmp_path / "report.html"
    write_report(ReportSettings(), root, {}, out)
    page = Page(out.read_text())
    assert {"answer", "comparison", "run", "limits"} <= set(page.ids)
    assert not {"training", "examples"} & set(page.ids)
    assert "Nothing was refused." in page.text


def test_one_fraction_no_clinical_baseline_and_no_clinical_values(tmp_path: Path) -> None:
    root = make_results(tmp_path / "folder", ("scratch-finetune", "dino-linear"), (1.0,), figures=False)
    manifest = pd.read_csv(root / "cohort" / "manifest.csv", dtype={c.name: c.dtype for c in MANIFEST})
    manifest[["cst", "bcva", "visit", "eye"]] = None
    write_table(root / "cohort" / "manifest.csv", manifest.assign(cohort="clinic"), MANIFEST)
    write_pretraining(root / "pretrain", "supcon_cst", scope="all")
    _, page = render(root, examples=0)
    assert "clinical" not in page.ids
    assert "examples" not in page.ids
    assert "No scan has CST or BCVA" in page.text
    assert "Scope all: pretraining used the scans of test patients" in page.text
    assert "Synthetic scans" not in page.text
    assert "The phantom is synthetic" not in page.text


def test_a_phantom_under_a_title_is_still_a_phantom(tmp_path: Path, results: Path) -> None:
    """The manifest holds the title; what kind of cohort it is stands in the store."""
    root = tmp_path / "phantom-2"
    shutil.copytree(results, root)
    manifest = pd.read_csv(root / "cohort" / "manifest.csv", dtype={c.name: c.dtype for c in MANIFEST})
    write_table(root / "cohort" / "manifest.csv", manifest.assign(cohort="phantom-2"), MANIFEST)
    with h5py.File(root / "cohort" / "scans.h5", "a") as file:
        settings = json.loads(file.attrs["settings"])
        file.attrs["settings"] = json.dumps({**settings, "name": "phantom", "title": "phantom-2"})
    _, page = render(root, examples=0)
    assert "The phantom is synthetic" in page.text
    assert "Synthetic scans." in page.text
    assert "Cohort phantom-2, of the kind phantom. Synthetic" in page.text


def test_a_published_protocol_says_how_it_differs(tmp_path: Path, results: Path, rendered: tuple[str, Page]) -> None:
    config = {**CONFIG, "cohort": {**CONFIG["cohort"], "split": {"protocol": "published2"}}}
    write_report(ReportSettings(examples=0), results, config, tmp_path / "report.html")
    assert "can be compared roughly, not subtracted" in Page((tmp_path / "report.html").read_text()).text
    config["cohort"]["split"]["protocol"] = "published"
    write_report(ReportSettings(examples=0), results, config, tmp_path / "report.html")
    text = Page((tmp_path / "report.html").read_text()).text
    assert "Its training scans of these patients are left out" in text
    assert "can be compared roughly" not in text
    assert "laid beside theirs" not in rendered[0]


def test_nothing_evaluable_is_an_answer_too(tmp_path: Path) -> None:
    root = tmp_path / "phantom"
    write_cohort(root / "cohort")
    folder = write_arm(root / "classify", root / "cohort", "scratch-finetune")
    write_tables(root, [folder], min_positive_patients=99)
    _, page = render(root)
    assert "This cohort cannot answer" in page.text
    assert "n/e" in page.text


def test_missing_tables_are_named(tmp_path: Path) -> None:
    write_cohort(tmp_path / "cohort")
    with pytest.raises(UserError, match=r"metrics.csv: no such table"):
        write_report(ReportSettings(), tmp_path, {}, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_histories_with_few_columns_or_none(tmp_path: Path, results: Path) -> None:
    root = tmp_path / "phantom"
    shutil.copytree(results, root)
    (root / "pretrain" / "dino" / "resnet18" / "fold0-seed0" / "history.csv").write_text("epoch\n1\n")
    (root / "pretrain" / "simclr" / "resnet18" / "fold0-seed0" / "history.csv").write_text("epoch,loss\n1,2.5\n")
    text, page = render(root)
    assert "training" in page.ids
    assert "simclr · resnet18 · fold0-seed0 has one epoch and no curve: loss 2.5." in page.text
    assert text.count("<svg") == 11, "a single point is no curve"
    for method in ("dino", "simclr"):
        (root / "pretrain" / method / "resnet18" / "fold0-seed0" / "history.csv").unlink()
    _, page = render(root)
    assert "training" not in page.ids


def test_examples_are_hits_and_misses_of_different_patients(results: Path) -> None:
    found, folder = examples(read_results(results), 8, "dino-linear", 0.3)
    assert folder is not None
    assert len(found) == 8
    assert {example.why[1] for example in found} >= set(KINDS[:3])
    assert len({example.patient for example in found}) == 8
    assert len({example.why for example in found}) == 8
    for example in found:
        row = next(row for row in example.rows if row["label"] == example.why[0])
        assert row["kind"] == example.why[1]
        assert (row["p"] >= row["threshold"]) == (row["kind"] in ("found", "false alarm"))
        assert row["truth"] == ("present" if row["kind"] in ("found", "missed") else "absent")
    assert [e.scan_id for e in found] == [e.scan_id for e in examples(read_results(results), 8, "dino-linear", 0.3)[0]]


def test_more_examples_than_there_are_is_no_trouble(results: Path) -> None:
    found, _ = examples(read_results(results), 500, "dino-linear", 1.0)
    assert 0 < len(found) <= 12  # three labels, four kinds


@pytest.mark.parametrize("channels", [1, 3])
def test_images_come_back_bit_for_bit(channels: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (channels, 8, 9), dtype=np.uint8)
    raw = base64.b64decode(data_uri(to_image(image), "PNG").split(",")[1])
    shown = np.asarray(Image.open(io.BytesIO(raw)))
    np.testing.assert_array_equal(shown if channels == 3 else shown[:, :, None], np.moveaxis(image, 0, -1))


def test_an_arm_without_a_row_in_metrics_has_an_empty_cell(tmp_path: Path) -> None:
    make_results(tmp_path, ("scratch-finetune", "dino-linear"), figures=False)
    path = tmp_path / "evaluate" / "metrics.csv"
    metrics = pd.read_csv(path, keep_default_na=False)
    label = metrics.loc[metrics["label"] != "macro", "label"].iloc[0]
    gone = (metrics["label"] == label) & (metrics["arm"] == "dino-linear") & (metrics["metric"] == "auroc")
    metrics[~gone].to_csv(path, index=False)
    table = label_tables(read_results(tmp_path))[0]
    (row,) = (row for row in table["rows"] if row[0].text == label)
    assert row[4 + table["arms"].index("dino-linear")].text == NOTHING
