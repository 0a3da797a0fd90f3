"""JSON cards are read by their schemas: impossible values, and weights that are not the card's, are refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from octdino.cli import main
from octdino.config import AugmentSettings, ClassifySettings, ModelSettings
from octdino.data.csv_io import read_table
from octdino.data.file_hash import sha256_of
from octdino.data.predictions import read_predictions
from octdino.data.schemas.csv_schemas import FINDINGS
from octdino.data.schemas.metadata import (
    AuditMetadata,
    BackboneMetadata,
    BackboneSpec,
    ExplainMetadata,
    read_metadata,
    write_metadata,
)
from octdino.errors import UserError
from octdino.explain.classifier import read_classifier
from octdino.models.backbones import create_backbone, load_backbone, save_backbone
from octdino.report.results_reader import read_results
from tests.embedded import train_arm, write_embedded
from tests.results import write_arm, write_cohort, write_pretraining
from tests.small import BACKBONE_CARD, write_small_cohort

MODEL = ModelSettings(timm="resnet18", args={"channels": [8, 8, 16, 16]})
NAN = float("nan")


def edit(path: Path, **values: Any) -> None:
    """Other values in a card; NaN is written as Python writes it."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.fixture(scope="module")
def arms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("results")
    write_cohort(root / "cohort")
    write_arm(root / "classify", root / "cohort", "dino-linear")
    write_pretraining(root / "pretrain", "dino")
    return root


IMPOSSIBLE: list[tuple[dict[str, Any], str]] = [
    ({"calibration": {"temperature": 0}}, "calibration.temperature: 0 is not allowed"),
    ({"calibration": {"temperature": -1.5}}, "calibration.temperature: -1.5 is not allowed"),
    ({"calibration": {"temperature": NAN}}, "NaN is no number"),
    ({"calibration": {"temperature": float("inf")}}, "Infinity is no number"),
    ({"calibration": {"temperature": "2"}}, "calibration.temperature: '2' is not allowed"),
    ({"thresholds": {"IRF": 1.5, "DRT/ME": 0.5, "FAVF": 0.5, "VMT": None}}, "thresholds.IRF: 1.5 is not allowed"),
    ({"thresholds": {"IRF": 0.5}}, "thresholds: DRT/ME, FAVF, VMT; expected one per label"),
    ({"labels": ["IRF", "IRF"]}, "labels: IRF, IRF; expected each once"),
    ({"labels": []}, "labels: [] is not allowed"),
    ({"fraction": 0}, "fraction: 0 is not allowed"),
    ({"fraction": "1"}, "fraction: '1' is not allowed"),
    ({"fold": -1}, "fold: -1 is not allowed"),
    ({"fold": 0.5}, "fold: 0.5 is not allowed"),
    ({"seed": True}, "seed: True is not allowed"),
    ({"exclusive": "no"}, "exclusive: 'no' is not allowed"),
    ({"n_train_patients": -3}, "n_train_patients: -3 is not allowed"),
    ({"input": {"size": 32}}, "input.image: missing"),
    ({"input": {"image": {}, "size": 0, "mean": [0.1], "std": [0.1]}}, "input.size: 0 is not allowed"),
    ({"input": {"image": {}, "size": 9, "mean": [0.1], "std": [0.0]}}, "input.std.0: 0.0 is not allowed"),
    ({"input": {"image": {}, "size": 9, "mean": [0.1] * 3, "std": [0.1]}}, "input.mean: 3 values for 1 channel(s)"),
]


@pytest.mark.parametrize(("values", "line"), IMPOSSIBLE, ids=[line for _, line in IMPOSSIBLE])
def test_impossible_values_of_a_classifiers_card(arms: Path, tmp_path: Path, values: dict, line: str) -> None:
    folder = write_arm(tmp_path, arms / "cohort", "dino-linear")
    edit(folder / "classifier.json", **values)
    with pytest.raises(UserError) as error:
        read_predictions(folder)
    assert "classifier.json: " in str(error.value)
    assert line in str(error.value)


def test_evaluate_and_report_refuse_an_impossible_temperature(
    arms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cohort = tmp_path / "cohort"
    write_cohort(cohort)
    folder = write_arm(tmp_path / "classify", cohort, "dino-linear")
    edit(folder / "classifier.json", calibration={"temperature": 0})
    where = ["--manifest", str(cohort / "manifest.csv"), "--out", str(tmp_path / "out")]
    assert main(["evaluate", str(folder), *where]) == 2
    assert main(["report", "--results", str(tmp_path), "--out", str(tmp_path / "out/report.html")]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(lines) == 2
    assert all("calibration.temperature: 0 is not allowed" in line for line in lines)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"scope": "everything"}, "scope: 'everything' is not allowed"),
        ({"fold": "0"}, "fold: '0' is not allowed"),
        ({"spec": {"timm": "resnet18"}}, "spec.args: missing"),
        ({"weights_sha256": "abc"}, "weights_sha256: 'abc' is not allowed"),
        ({"start": {"scope": 1}}, "start.scope: 1 is not allowed"),
        ({"input": None}, "input: None is not allowed"),
    ],
)
def test_impossible_values_of_a_backbones_card(tmp_path: Path, values: dict[str, Any], line: str) -> None:
    folder = write_pretraining(tmp_path, "dino")
    edit(folder / "backbone.json", **values)
    with pytest.raises(UserError) as error:
        read_metadata(folder / "backbone.json", BackboneMetadata, "pretrain")
    assert line in str(error.value)


@pytest.mark.parametrize("kind", [AuditMetadata, ExplainMetadata, BackboneMetadata])
@pytest.mark.parametrize("text", ["", "{", "[]", "null", "7", '{"a": NaN}', "{}", "[" * 100_000, "\x00"])
def test_a_file_that_is_no_metadata_is_refused_in_one_line(tmp_path: Path, kind: type, text: str) -> None:
    (tmp_path / "card.json").write_text(text)
    with pytest.raises(UserError, match=r"card\.json"):
        read_metadata(tmp_path / "card.json", kind, "verb")


def test_written_metadata_keeps_all_values_and_no_defaults(tmp_path: Path) -> None:
    values = {"asked": {"patient": "?"}, "patients": "known", "not_checkable": {}, "scans": 3, "runs": 1, "extra": [1]}
    write_metadata(tmp_path / "audit.json", AuditMetadata.parse(values, "audit.json"))
    assert (tmp_path / "audit.json").read_text() == json.dumps(values, indent=2) + "\n"
    assert read_metadata(tmp_path / "audit.json", AuditMetadata, "audit").plain() == values


@pytest.fixture
def backbone(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    spec = BackboneSpec(timm=MODEL.timm, args=MODEL.args, in_chans=1, size=32)
    save_backbone(tmp_path / "run", create_backbone(MODEL, 1, 32), spec, BACKBONE_CARD)
    return tmp_path / "run"


def other_numbers(path: Path) -> None:
    """Weights of the same names and shapes."""
    save_file({name: value + 1 for name, value in load_file(path).items()}, path)


def not_finite(path: Path) -> None:
    """NaN in weights that the card honestly names."""
    tensors = load_file(path)
    next(value for value in tensors.values() if value.is_floating_point()).view(-1)[0] = NAN
    save_file(tensors, path)
    edit(path.with_suffix(".json"), weights_sha256=sha256_of(path))


def cut(path: Path) -> None:
    """Half a file that the card honestly names."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    edit(path.with_suffix(".json"), weights_sha256=sha256_of(path))


DAMAGE = [(other_numbers, "not the run's weights"), (not_finite, "not finite"), (cut, "not a safetensors file")]


@pytest.mark.parametrize(("damage", "line"), DAMAGE)
def test_weights_that_are_not_the_cards_are_refused_on_every_load(
    backbone: Path, tmp_path: Path, damage: Callable[[Path], None], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    load_backbone(backbone)
    store = write_small_cohort(tmp_path / "cohort", patients=10, scans=4)
    run = {"store": store, "backbone": "b", "model": MODEL, "pretrained": backbone}
    embeddings = write_embedded("dino", 32, out=tmp_path / "embed", **run)
    damage(backbone / "backbone.safetensors")
    with pytest.raises(UserError, match=line):
        load_backbone(backbone)
    model = json.dumps(MODEL.model_dump(mode="json", exclude={"weights"}))
    flags = ["--store", str(store), "--backbone", "b", "--model", model, "--out", str(tmp_path / "out")]
    start = ["--pretrained", str(backbone)]
    verbs = [
        ["classify", "dino-finetune", *flags, *start],
        ["explain", "dino", *flags, *start, "--embeddings", str(embeddings)], ["embed", "dino", *flags, *start],
        ["pretrain", "dino", *flags, "--dino.init", str(backbone)],
    ]  # fmt: skip
    for verb in verbs:
        assert main(verb) == 2, verb
        errors = [text for text in capsys.readouterr().err.splitlines() if "error:" in text]
        assert len(errors) == 1
        assert "backbone.safetensors: " in errors[0]
        assert line in errors[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("damage", "line"), DAMAGE)
def test_explained_classifiers_are_their_cards(tmp_path: Path, damage: Callable[[Path], None], line: str) -> None:
    store = write_small_cohort(tmp_path / "cohort", patients=10, scans=4)
    settings = ClassifySettings(augment=AugmentSettings(global_size=32, global_scale=(0.6, 1.0)))
    where = {"store": store, "backbone": "b", "model": MODEL, "pretrained": None, "out": tmp_path / "arm"}
    train_arm("scratch-linear", settings, fraction=1.0, fold=0, seed=0, **where)
    network = create_backbone(MODEL, 1, 32)
    read_classifier(tmp_path / "arm", "scratch", network)
    damage(tmp_path / "arm" / "classifier.safetensors")
    with pytest.raises(UserError, match=line):
        read_classifier(tmp_path / "arm", "scratch", network)


@pytest.mark.parametrize("damage", [other_numbers, Path.unlink])
def test_the_audit_finds_weights_that_are_not_the_cards(
    backbone: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    store = write_small_cohort(tmp_path / "cohort", patients=10, scans=4)
    audit = ["audit", str(backbone), "--store", str(store), "--out", str(tmp_path / "audit")]
    for expected in (False, True):
        if expected:
            damage(backbone / "backbone.safetensors")
        assert main(audit) == 0
        findings = read_table(tmp_path / "audit" / "findings.csv", FINDINGS)
        assert ("weights" in findings["check"].tolist()) == expected
    assert main(["verdict", str(tmp_path / "audit" / "findings.csv")]) == 2


def test_the_report_reads_a_card_as_it_was_written(arms: Path) -> None:
    (arms / "evaluate").mkdir(exist_ok=True)
    with pytest.raises(UserError, match=r"metrics\.csv: no such table"):
        read_results(arms)
    path = next(arms.glob("pretrain/*/*/*/backbone.json"))
    assert read_metadata(path, BackboneMetadata, "pretrain").plain() == json.loads(path.read_text())
    found = read_predictions(next(arms.glob("classify/*/*/*/*")))
    assert found.metadata.plain() == json.loads((found.folder / "classifier.json").read_text())
    assert np.isfinite(found.temperature() or NAN)
