"""The cohort stage on real volumes and real tables, where shared data is there."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from octdino.cohort.ingest import build_cohort
from octdino.data.csv_io import read_table
from octdino.data.schemas.csv_schemas import MANIFEST, QUARANTINE, SPLITS
from octdino.data.store import read_header, read_images

from .trees import BIOMARKERS, PATH, OlivesTree, settings


def build(tree: OlivesTree, folder: Path, **changes: object) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Manifest, quarantine and splits of a small tree."""
    build_cohort(settings(tree.write(folder / "root"), **changes), folder / "out")
    return (
        read_table(folder / "out" / "manifest.csv", MANIFEST),
        read_table(folder / "out" / "quarantine.csv", QUARANTINE),
        read_table(folder / "out" / "splits.csv", SPLITS),
    )


def test_real_volumes_as_an_olives_tree(shared_data: Path, tmp_path: Path) -> None:
    """Two Spectralis volumes under four patients' names: the fundus pictures go, the 98 B-scans stay."""
    scans = pd.read_csv(shared_data / "oct_volumes" / "scans.csv")
    tree = OlivesTree()
    for number, (path, subject) in enumerate(zip(scans["path"], scans["subject"], strict=True)):
        patient = 201 + 2 * (subject != scans["subject"][0]) + number % 2
        name = f"/TREX DME/GILA/0{patient}GOD/V1/OD/{Path(path).stem}.tif"
        tree.pictures[name] = (shared_data / "oct_volumes" / path).read_bytes()
        values = {"Eye_ID": patient, "BCVA": 70, "CST": 300, "Patient_ID": patient}
        tree.clinical.append({"File_Path": name, **values})
        tree.labels.append({PATH: name, **{b: (number + i) % 2 for i, b in enumerate(BIOMARKERS)}, **values})
    manifest, quarantine, _ = build(tree, tmp_path, image={"size": (64, 64), "crop": "retina"})
    assert len(manifest) == 98
    assert Counter(quarantine["reason"]) == {"wrong_size": 2}
    store = read_header(tmp_path / "out" / "scans.h5")
    assert 0.1 < store.attributes["mean"][0] < 0.35
    assert (store.boxes[:, 3] == 512).all()


@pytest.mark.slow
def test_real_tables_with_stand_in_pixels(shared_data: Path, tmp_path: Path) -> None:
    """Both real tables; files for every labeled scan and 1,000 others, the rest is refused as missing."""
    root = tmp_path / "root"
    root.mkdir()
    tables = shared_data / "olives"
    labels = pd.read_csv(shutil.copy(tables / "Biomarker_Clinical_Data_Images.csv", root))
    clinical = pd.read_excel(
        shutil.copy(tables / "Training_Unlabeled_Clinical_Data.xlsx", root / "Clinical_Data_Images.xlsx")
    )
    others = sorted(set(clinical["File_Path"]) - set(labels[PATH]))[::60][:1000]
    for number, path in enumerate([*labels[PATH], *others]):
        file = root / "OLIVES" / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.zeros((496, 504), np.uint8)
        pixels[::8, ::8] = 40
        pixels[:136].reshape(17, 8, 504)[:, :, :] = (200 * (number >> np.arange(17) & 1))[:, None, None]
        Image.fromarray(pixels).save(file, **({"compression": "tiff_lzw"} if path.endswith("tif") else {}))
    build_cohort(settings(root), tmp_path / "out", workers=2)
    manifest = read_table(tmp_path / "out" / "manifest.csv", MANIFEST)
    quarantine = read_table(tmp_path / "out" / "quarantine.csv", QUARANTINE)
    assert Counter(quarantine["reason"]) == {"missing_file": 78_283 - 9_408 - len(others)}
    assert len(manifest) == 9_408 + len(others)
    assert manifest[BIOMARKERS].notna().any(axis=1).sum() == 9_408
    assert manifest["patient"].nunique() == 87
    assert manifest["eye"].nunique() == 96
    assert manifest[BIOMARKERS].isna().to_numpy().sum() == 19 + 16 * len(others)
    assert (manifest["flags"] == "laterality_clash").sum() == 98
    assert read_images(tmp_path / "out" / "scans.h5", np.arange(5)).shape == (5, 1, 32, 32)
