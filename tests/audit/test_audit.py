"""A clean cohort is passed in silence; each of seven leaks, planted one at a time, is found."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from octdino.audit.audit_verdict import verdict
from octdino.audit.leakage_audit import audit
from octdino.audit.near_duplicates import copies, textures
from octdino.cli import main
from octdino.config import AuditSettings, PretrainSettings
from octdino.data.csv_io import read_table, write_table
from octdino.data.file_hash import sha256_of
from octdino.data.predictions import write_predictions
from octdino.data.schemas.csv_schemas import FINDINGS, MANIFEST, SPLITS
from octdino.data.store import image_moments, read_header, read_images, statistics
from octdino.data.weights_file import write_weights
from octdino.errors import UserError
from octdino.pretrain import pretrain
from octdino.stats.thresholds import choose_threshold
from tests.pretrain.small_runs import MODELS, SETTINGS
from tests.small import INPUT, LABELS, write_small_cohort

HOW = "youden"


@pytest.fixture
def store(tmp_path):
    """Scans of 64 px with a texture of their own, and three visits an eye with values of their own."""
    path = write_small_cohort(tmp_path / "cohort", size=64, scans=6)
    table = pd.read_csv(path.with_name("manifest.csv"))
    rng = np.random.default_rng(0)
    table["visit"] = [f"V{1 + index % 6 // 2}" for index in range(len(table))]
    table["laterality"] = "OD"
    for name, low, high in (("bcva", 40, 90), ("cst", 200, 600)):
        table[name] = rng.integers(low, high, len(table) // 2).repeat(2)
    table.to_csv(path.with_name("manifest.csv"), index=False)
    return path


def edit(store, **columns):
    """Change columns of the manifest."""
    path = store.with_name("manifest.csv")
    table = pd.read_csv(path)
    for name, change in columns.items():
        table[name] = change(table)
    table.to_csv(path, index=False)


def put(store, row, image):
    """Another image in the store's row."""
    with h5py.File(store, "r+") as file:
        file["images"][row] = image
        file["moments"][row] = image_moments(image)


def rows_of(store):
    """The first training scan's and the first test scan's row."""
    split = pd.read_csv(store.with_name("manifest.csv"))["split"]
    return int((split == "train").idxmax()), int((split == "test").idxmax())


def classifier(store, out, chosen_on="val", mean=None):
    """A classifier's files; its thresholds are chosen on the split `chosen_on`."""
    manifest = pd.read_csv(store.with_name("manifest.csv"))
    kept = manifest[manifest["split"].isin(["val", "test"]) & manifest[LABELS[0]].notna()].reset_index(drop=True)
    rng = np.random.default_rng(1)
    p = np.clip(0.5 * kept[LABELS].to_numpy() + rng.random((len(kept), 2)) * 0.6, 0, 1)
    rows = (kept["split"] == chosen_on).to_numpy()
    thresholds = {
        label: choose_threshold(kept.loc[rows, label].to_numpy(), p[rows, i], HOW) for i, label in enumerate(LABELS)
    }
    moments = read_header(store).moments
    own_mean, own_std = statistics(moments[(manifest["split"] == "train").to_numpy()])
    metadata = {
        "arm": "scratch-linear", "backbone": "b", "fraction": 1.0, "fold": 0, "seed": 0, "thresholds": thresholds,
        "exclusive": False,
        "thresholds_from": "val", "settings": {"threshold": HOW},
        "input": {**INPUT, "mean": mean or own_mean, "std": own_std},
        "weights_sha256": write_weights(out / "classifier.safetensors", {"head.bias": torch.zeros(2)}),
    }  # fmt: skip
    write_predictions(out, kept, LABELS, p, metadata)
    return out


def found(store, *runs, **settings):
    """The checks that found something."""
    out = store.parent.parent / "audit"
    audit(AuditSettings(**settings), store, list(runs), out)
    return read_table(out / "findings.csv", FINDINGS)["check"].tolist()


def test_a_clean_cohort_with_its_runs_is_passed_in_silence(store, tmp_path):
    folder = tmp_path / "dino"
    settings = SETTINGS.model_copy(update={"epochs": 1})
    pretrain("dino", settings, store=store, backbone="b", model=MODELS["resnet"], fold=0, seed=0, out=folder)
    assert isinstance(settings, PretrainSettings)
    assert found(store, folder, classifier(store, tmp_path / "linear")) == []
    verdict(tmp_path / "audit" / "findings.csv")


def test_a_classifier_that_started_from_other_weights_than_those_of_the_audited_run(store, tmp_path):
    folder = tmp_path / "dino"
    settings = SETTINGS.model_copy(update={"epochs": 1})
    pretrain("dino", settings, store=store, backbone="b", model=MODELS["resnet"], fold=0, seed=0, out=folder)
    arm = classifier(store, tmp_path / "linear")
    metadata = json.loads((arm / "classifier.json").read_text())
    for sha256, expected in ((sha256_of(folder / "backbone.safetensors"), []), ("0" * 64, ["weights"])):
        (arm / "classifier.json").write_text(json.dumps({**metadata, "arm": "dino-linear", "pretrained": sha256}))
        assert found(store, folder, arm) == expected


def test_1_a_patient_in_two_splits(store):
    """Under one name: no stage reads such a manifest. Under two, joined by identical pixels: a finding."""
    train, test = rows_of(store)
    patients = read_table(store.with_name("manifest.csv"), MANIFEST)["patient"]
    edit(store, group=lambda t: t["group"].replace(patients[test], patients[train]))
    splits = read_table(store.with_name("splits.csv"), SPLITS)
    splits["group"] = splits["group"].replace(patients[test], patients[train])
    write_table(store.with_name("splits.csv"), splits, SPLITS)
    assert found(store) == ["patient"]
    edit(store, patient=lambda t: t["patient"].where(t.index != test, t["patient"][train]))
    with pytest.raises(UserError, match=r"manifest\.csv: row 98: scan p16-0 of patient p0 is in test; .* in train"):
        found(store)


def test_2_a_copied_scan(store):
    train, test = rows_of(store)
    put(store, test, read_images(store)[train])
    assert found(store) == ["copy"]


def test_3_a_mirrored_copy_brightened_and_compressed(store, tmp_path):
    train, test = rows_of(store)
    image = np.clip(read_images(store)[train][0, :, ::-1] * 1.2 + 5, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=60)
    put(store, test, np.asarray(Image.open(buffer))[None])
    assert found(store) == ["copy"]
    detail = read_table(tmp_path / "audit/findings.csv", FINDINGS)["detail"][0]
    assert "(test and train) are near-duplicates: mirrored" in detail


def test_4_one_eye_under_two_ids(store):
    """The same visits with the same acuity and thickness; the scans are of other slices."""
    train, test = rows_of(store)
    table = pd.read_csv(store.with_name("manifest.csv"))
    one, other = table["patient"][train], table["patient"][test]
    for name in ("bcva", "cst"):
        values = table.loc[table["patient"] == one, name].to_numpy()
        edit(store, **{name: lambda t, n=name, v=values: t[n].mask(t["patient"] == other, np.resize(v, len(t)))})
    assert found(store) == ["eye"]


def test_4_one_eye_id_of_two_patients(store):
    train, test = rows_of(store)
    edit(store, eye=lambda t: t["eye"].mask(t["eye"] == t["eye"][test], t["eye"][train]))
    assert {"eye", "volume"} <= set(found(store))


def test_5_test_scans_in_the_statistics(store, tmp_path):
    everyone = statistics(read_header(store).moments)[0]
    assert found(store, classifier(store, tmp_path / "linear", mean=everyone)) == ["statistics"]


def test_6_test_scans_in_a_pretraining_that_says_otherwise(store, tmp_path):
    folder = tmp_path / "dino"
    settings = SETTINGS.model_copy(update={"epochs": 1})
    pretrain("dino", settings, store=store, backbone="b", model=MODELS["resnet"], fold=None, seed=0, out=folder)
    assert found(store, folder) == [], "scope all says so itself"
    metadata = json.loads((folder / "backbone.json").read_text())
    (folder / "backbone.json").write_text(json.dumps({**metadata, "scope": "train_patients", "fold": 0}))
    assert found(store, folder) == ["exposure"]


def test_7_thresholds_from_test_patients(store, tmp_path):
    assert found(store, classifier(store, tmp_path / "linear", chosen_on="test")) == ["threshold"]


def test_a_finding_fails_with_one_line_unless_it_is_acknowledged(store, tmp_path):
    train, test = rows_of(store)
    put(store, test, read_images(store)[train])
    found(store)
    with pytest.raises(UserError, match=r"findings\.csv: copy, fold 0: .* are near-duplicates.*audit\.acknowledged"):
        verdict(tmp_path / "audit/findings.csv")
    assert found(store, acknowledged=["copy"]) == ["copy"], "it is still shown"
    verdict(tmp_path / "audit/findings.csv")


@pytest.mark.parametrize(("state", "why"), [("unknown", "patients are unknown"), ("none", "there are no patients")])
def test_unknown_patients_are_not_checkable_and_the_verdict_says_so(store, tmp_path, caplog, state, why):
    with h5py.File(store, "r+") as file:
        file.attrs["patients"] = state
    assert found(store) == ["patient", "eye", "volume"]
    table = read_table(tmp_path / "audit/findings.csv", FINDINGS)
    assert set(table["state"]) == {"not checkable"}
    assert set(table["count"]) == {0}
    metadata = json.loads((tmp_path / "audit/audit.json").read_text())
    assert metadata["patients"] == state
    assert list(metadata["not_checkable"]) == ["patient", "eye", "volume"]
    assert all(why in text for text in metadata["not_checkable"].values())
    assert f"not checkable: patient, eye, volume ({why}" in caplog.text
    line = verdict(tmp_path / "audit/findings.csv")
    assert line.startswith(f"passed: no finding is open; not checkable: patient, eye, volume ({why}")


def test_what_is_found_fails_though_patients_are_unknown(store, tmp_path):
    with h5py.File(store, "r+") as file:
        file.attrs["patients"] = "unknown"
    train, test = rows_of(store)
    put(store, test, read_images(store)[train])
    assert found(store) == ["copy", "patient", "eye", "volume"]
    with pytest.raises(UserError, match=r"copy, fold 0: .* are near-duplicates: correlation [0-9.]+; correct it"):
        verdict(tmp_path / "audit/findings.csv")
    found(store, acknowledged=["copy", "patient"])
    states = read_table(tmp_path / "audit/findings.csv", FINDINGS)["state"].tolist()
    assert states == ["acknowledged", *["not checkable"] * 3], "what was not checked cannot be acknowledged"


def test_without_names_of_eyes_or_visits_they_are_not_checkable(store, tmp_path):
    edit(store, visit=lambda t: None)
    assert found(store) == ["volume"]
    edit(store, eye=lambda t: None)
    assert found(store) == ["eye", "volume"]
    assert "not checkable: eye (no eye is named); volume (" in verdict(tmp_path / "audit/findings.csv")


def test_the_command_prints_the_verdict(store, tmp_path, capsys):
    found(store)
    assert main(["verdict", str(tmp_path / "audit/findings.csv")]) == 0
    assert capsys.readouterr().out == "passed: no finding is open\n"


def test_a_folder_that_is_no_run_is_one_clear_line(store, tmp_path):
    with pytest.raises(UserError, match=r"neither backbone\.json nor classifier\.json"):
        found(store, tmp_path)


def test_pairs_are_those_of_a_naive_loop():
    torch.manual_seed(0)
    images = torch.randint(0, 256, (30, 1, 60, 70), dtype=torch.uint8)
    images[7], images[20] = images[3], images[11].flip(-1)
    detail, splits = textures(images), torch.arange(30) % 4 - 1
    expected = set()
    for i in range(30):
        for j in range(30):
            if splits[i] > splits[j] >= 0:
                for mirrored in (False, True):
                    view = detail[i].flip(-1) if mirrored else detail[i]
                    if (view * detail[j]).sum() >= 0.1:
                        expected.add((i, j, mirrored))
    got = {(pair.one, pair.other, pair.mirrored) for pair in copies(detail, splits, 0.1)}
    assert got == expected


@pytest.mark.skipif("OCTDINO_SHARED_DATA" not in os.environ, reason="OCTDINO_SHARED_DATA is not set: no real scans")
def test_real_scans_of_other_patients_are_not_taken_for_copies():
    root = Path(os.environ["OCTDINO_SHARED_DATA"]) / "oct_kermany"
    table = pd.read_csv(root / "scans.csv")
    paths = sorted(root.rglob("*.jp*g"))[:300]
    images = [np.asarray(Image.open(path).convert("L").resize((224, 224))) for path in paths]
    patients, _ = pd.factorize(np.array([path.stem.rsplit("-", 1)[0] for path in paths]))
    detail = textures(torch.from_numpy(np.stack(images))[:, None])
    product = detail.flatten(1) @ detail.flatten(1).T
    other = torch.from_numpy(patients[:, None] != patients[None])
    assert len(table) >= len(paths)
    assert product[other].max() < AuditSettings().similarity


def test_the_verdict_imports_neither_torch_nor_other_large_packages() -> None:
    large = ("torch", "timm", "monai", "sklearn", "scipy", "matplotlib", "h5py")
    code = f"import sys, octdino.audit.audit_verdict; print([name for name in {large!r} if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
