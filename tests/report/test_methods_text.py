"""The methods text says what the files say, and cites what is in the bibliography."""

import json
import re
import shutil
from pathlib import Path
from typing import get_args

import h5py
import pandas as pd
import pytest
import yaml

from octdino.config import METHODS as KNOWN_METHODS
from octdino.config import ReportSettings
from octdino.config.cohort import COHORTS, UNPUBLISHED
from octdino.data.csv_io import write_table
from octdino.data.schemas.csv_schemas import SPLITS
from octdino.report import write_report
from octdino.report.pretraining_text import positives_text
from octdino.report.references import bibliography, cited, entries, references_of
from tests.report.test_report import CONFIG
from tests.results import make_results, write_cohort, write_pretraining

REPOSITORY = Path(__file__).parents[2]


def parsed(text: str) -> dict[str, dict[str, str]]:
    """BibTeX entries by key; every brace has its other half, and nothing stands between entries."""
    found: dict[str, dict[str, str]] = {}
    while text := text.strip():
        head = re.match(r"@(\w+)\{([a-z0-9]+),\s*", text)
        assert head, text[:60]
        depth, end = 1, head.end()
        while depth:
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        body, text = text[head.end() : end - 1], text[end:]
        fields = dict(re.findall(r"(\w+) = \{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}", body))
        left = re.sub(r"\w+ = \{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\},?\s*", "", body)
        assert not left.strip(), left
        assert head[2] not in found, head[2]
        found[head[2]] = {"type": head[1].lower(), **fields}
    return found


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_results(tmp_path_factory.mktemp("results") / "phantom", ("scratch-finetune", "dino-linear", "clinical"))
    method = {"method": "supcon", "positives": ["cst"], "optimizer": "adamw", "lr": 0.001}
    augment = {"global_size": 64, "local_views": 2, "local_size": 32}
    settings = {"epochs": 20, "batch_size": 64, "augment": augment}
    path = write_pretraining(root / "pretrain", "supcon_cst") / "backbone.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "method": method, "settings": settings}))
    write_report(ReportSettings(examples=0), root, CONFIG, root / "report" / "report.html")
    return root


def test_every_citation_is_in_the_bibliography_and_nothing_else(results: Path) -> None:
    text = (results / "report" / "methods.md").read_text()
    found = parsed((results / "report" / "references.bib").read_text())
    assert cited(text) == list(found)
    assert {"caron2021emerging", "chen2020simple", "khosla2020supervised", "octdino", "molder2021sustainable"} <= set(
        found
    )
    assert {"wightman2019timm", "ansel2024pytorch", "holm1979simple", "he2016deep"} <= set(found)
    assert "bardes2022vicreg" not in found, "it was not run"


def test_license_of_weights_that_a_pretraining_continued_from_is_named(tmp_path: Path) -> None:
    root = make_results(tmp_path / "phantom", ("scratch-finetune", "dino-linear"), figures=False)
    start = {"from": "mirage", "sha256": "a" * 64, "layout": "mirage", "license": "CC BY-NC-ND 4.0"}
    for path in root.glob("pretrain/*/*/*/backbone.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "start": start}))
    write_report(ReportSettings(examples=0), root, CONFIG, root / "report" / "report.html")
    said = (
        "dino continues from published weights in the layout of MIRAGE, trained on retinal OCT and SLO, SHA-256 "
        "aaaaaaaaaaaa…; license: CC BY-NC-ND 4.0, which binds what is made of them, too."
    )
    for name in ("methods.md", "model_card.md"):
        assert (root / "report" / name).read_text().count(said) == 1


def test_every_entry_has_what_a_reference_needs() -> None:
    found = parsed(bibliography(entries()))
    assert (
        len(found)
        == len(entries())
        == len(re.findall(r"^@", (REPOSITORY / "octdino/report/references.bib").read_text(), re.M))
    )
    for key, fields in found.items():
        assert {"author", "title"} <= set(fields), key
        assert re.fullmatch(r"\d{4}", fields.get("year", "")) or key == "octdino", key
        where = {"article": "journal", "inproceedings": "booktitle", "techreport": "institution"}.get(fields["type"])
        assert where is None or fields.get(where), key
        assert {"doi", "eprint", "url", "pages"} & set(fields) or key == "octdino", key
        assert re.fullmatch(r"10\.\d{4,5}/\S+", fields.get("doi", "10.0000/x")), key
        assert re.fullmatch(r"\d{4}\.\d{5}", fields.get("eprint", "0000.00000")), key


def test_every_method_and_published_cohort_has_an_entry() -> None:
    assert set(references_of("method")) == set(KNOWN_METHODS)
    assert set(references_of("cohort")) == set(get_args(COHORTS)) - set(UNPUBLISHED)
    assert not [text for text in entries().values() if "octdino = {" in text]


@pytest.mark.parametrize(
    ("kind", "method", "words"),
    [
        ("simclr", {"positives": []}, ""),
        (
            "dino",
            {"positives": ["eye"], "positives_weeks": 12.0, "positives_visits": 3},
            " with another visit of the same eye at most 12 weeks or 3 visits apart as the second view "
            "[@holland2024metadata]",
        ),
        (
            "supcon",
            {"positives": ["cst"], "soft": True},
            " with near cst as positives [@kokilepersaud2023clinically], weighted by how near they are "
            "[@dufumier2021contrastive]",
        ),
        (
            "supcon",
            {"positives": ["bcva", "eye"], "positives_visits": 2},
            " with equal bcva and eye as positives [@kokilepersaud2023clinically], visits of an eye at most 2 visits "
            "apart [@holland2024metadata]",
        ),
    ],
)
def test_positives_are_told_with_their_references(kind: str, method: dict[str, object], words: str) -> None:
    assert positives_text(kind, method) == words
    assert bibliography(cited(words)).count("@") == words.count("@")


def test_arxiv_numbers_are_those_of_the_documentation() -> None:
    told = (REPOSITORY / "docs" / "methods.md").read_text()
    found = parsed(bibliography(key for _, keys in references_of("method").values() for key in keys))
    assert {fields["eprint"] for fields in found.values()} <= set(re.findall(r"arxiv\.org/abs/(\d{4}\.\d{5})", told))


def test_octdino_is_cited_as_its_citation_file_says() -> None:
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    entry = parsed(bibliography(["octdino"]))["octdino"]
    assert entry["title"].replace("{", "").replace("}", "") == citation["title"]
    assert entry["version"] == citation["version"]
    assert entry["author"].strip("{}") == citation["authors"][0]["name"]
    assert entry["license"] == citation["license"]


def test_the_text_has_the_numbers_of_the_files(results: Path) -> None:
    text = (results / "report" / "methods.md").read_text()
    for words in (
        "The cohort phantom, synthetic scans generated by octdino, has 360 scans of 60 patients.",
        "360 scans of 60 patients were labeled with 4 biomarkers (IRF, DRT/ME, FAVF, VMT).",
        "3 files or rows were excluded.", "30 (train), 10 (val), 20 (test); all of a patient",
        "pretrained without labels by DINO [@caron2021emerging] (self-distillation) and SimCLR [@chen2020simple] "
        "(metric learning), each on 240 scans of training patients only: 20 epochs",
        "with equal cst as positives [@kokilepersaud2023clinically]",
        "batches of 64, two global views of 64 px and 2 local views of 32 px per image",
        "dino-linear and scratch-finetune, each trained with 30 % and 100 % of the labeled training patients",
        "macro AUROC on 20 test patients", "from 1,000 resamples of patients", "below 0.05",
        "PyTorch 2.9.0 [@ansel2024pytorch]", "trained on CPU, 2 thread(s)", "summed over 3 jobs: 3 min 32 s",
    ):  # fmt: skip
        assert words in text, words


def test_images_without_patients_are_called_images(results: Path, tmp_path: Path) -> None:
    root = tmp_path / "imagenette"
    shutil.copytree(results, root)
    with h5py.File(root / "cohort" / "scans.h5", "a") as file:
        file.attrs["patients"] = "none"
    write_report(ReportSettings(examples=0), root, {}, root / "report" / "report.html")
    text = (root / "report" / "methods.md").read_text()
    assert "60 patients" not in text
    assert "360 images were labeled" in text
    assert "chosen on validation images; test images were used for no choice" in text


@pytest.mark.parametrize(
    ("folds", "repeats", "methods", "card"),
    [
        (
            3, 1, "a cross-validation by patient with 3 folds (30 (train), 10 (val), 20 (test) in the first); all of a",
            "Protocol crossval: every patient is tested once by models that never saw it; 3 folds.",
        ),
        (
            3, 2,
            "a cross-validation by patient with 3 folds (30 (train), 10 (val), 20 (test) in the first), repeated with "
            "2 random partitions, over which scores are averaged; all of a",
            "Protocol crossval: every patient is tested once per repeat by models that never saw it; 3 folds in each "
            "of 2 repeats, every one a random partition of its own; scores are their mean.",
        ),
    ],
)  # fmt: skip
def test_a_repeated_cross_validation_has_the_folds_of_one_repeat(
    folds: int, repeats: int, methods: str, card: str, tmp_path: Path
) -> None:
    write_cohort(tmp_path / "cohort", folds=folds)
    path = tmp_path / "cohort" / "splits.csv"
    first = pd.read_csv(path, dtype={"patient": "string", "group": "string"})
    parts = [first.assign(fold=first["fold"] + folds * repeat) for repeat in range(repeats)]
    write_table(path, pd.concat(parts, ignore_index=True).astype({"rank": "Int64"}), SPLITS)
    write_pretraining(tmp_path / "pretrain", "dino")
    config = {"cohort": {"split": {"protocol": "crossval", "folds": folds, "repeats": repeats}}}
    write_report(ReportSettings(), tmp_path, config, tmp_path / "report" / "report.html")
    assert methods in (tmp_path / "report" / "methods.md").read_text()
    assert card in (tmp_path / "report" / "data_card.md").read_text()


@pytest.mark.parametrize("features", [["cst"], []])
def test_a_clinical_baseline_without_values_is_said(results: Path, tmp_path: Path, features: list[str]) -> None:
    root = tmp_path / "phantom"
    shutil.copytree(results, root)
    for path in root.glob("classify/clinical/*/*/*/classifier.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "features": features}))
    write_report(ReportSettings(examples=0), root, {}, root / "report" / "report.html")
    text = (root / "report" / "methods.md").read_text()
    assert ("A clinical baseline was trained on tabular values" in text) == bool(features)
    assert ("The clinical baseline had no values and predicts the share of each biomarker." in text) != bool(features)
