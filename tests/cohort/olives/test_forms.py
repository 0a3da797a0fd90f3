"""One cohort however it is published: real tables over stand-in pictures, each form against the unpacked one."""

import hashlib
import pickle
import shutil
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

import octdino.cohort.file_index
from octdino.cohort.ingest import build_cohort
from octdino.cohort.olives import read_olives

from ..trees import BIOMARKERS, PATH, settings
from .forms import B, Real

WHO = ["patient", "eye", "trial"]


@pytest.fixture(scope="module")
def part(real: Real) -> Real:
    return real.part()


@pytest.fixture(scope="module")
def unpacked(part: Real, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    root = tmp_path_factory.mktemp("unpacked")
    part.write_tree(root)
    part.write_labels(root / "labels")
    return built(root)


def built(root: Path, workers: int = 1) -> pd.DataFrame:
    """The cohort's manifest with a hash of each stored picture."""
    out = root.parent / f"{root.name}-out"
    build_cohort(settings(root), out, workers)
    with h5py.File(out / "scans.h5") as store:
        pictures = [hashlib.sha256(image.tobytes()).hexdigest() for image in store["images"][:]]
    manifest = pd.read_csv(out / "manifest.csv", dtype={"patient": str, "eye": str, "slice": "Int64"})
    assert len(set(pictures)) == len(manifest)
    return manifest.assign(picture=pictures)


def quarantine(root: Path) -> Counter[str]:
    return Counter(pd.read_csv(root.parent / f"{root.name}-out" / "quarantine.csv")["reason"])


def test_the_part_has_the_real_tables_oddities(part: Real, unpacked: pd.DataFrame) -> None:
    assert 400 < len(unpacked) < 1500
    assert unpacked["patient"].nunique() >= 12
    assert unpacked["eye"].nunique() >= 18
    assert set(unpacked["path"].str.rsplit(".").str[-1]) == {"tif", "jpg", "png"}
    assert unpacked.loc[unpacked["IR HRF"].notna(), BIOMARKERS].isna().any(axis=1).sum() == 12
    assert (unpacked["flags"] == "laterality_clash").sum() == 98
    assert unpacked["bcva"].isna().sum() > 0
    assert unpacked["path"].str.contains("TREXA_000004_").any()


@pytest.mark.parametrize("inner", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
def test_archives_as_downloaded_give_the_same_manifest(
    part: Real, unpacked: pd.DataFrame, tmp_path: Path, inner: int
) -> None:
    root = tmp_path / "zips"
    part.write_archives(root, inner)
    pd.testing.assert_frame_equal(built(root, workers=2), unpacked)
    assert quarantine(root) == {}
    there = {file.relative_to(root).as_posix() for file in root.rglob("*") if file.is_file()}
    packed = {"OLIVES.zip", "OLIVES_Dataset_Labels.zip"}
    halves = {"OLIVES/TREX_DME.zip", "OLIVES/Prime_FULL.zip"} if inner == zipfile.ZIP_DEFLATED else set()
    assert there == packed | halves  # never a picture


def test_one_half_unpacked(part: Real, unpacked: pd.DataFrame, tmp_path: Path) -> None:
    root = tmp_path / "mix"
    part.write_tree(root, ("TREX DME",))
    part.write_archives(root, zipfile.ZIP_DEFLATED)
    pd.testing.assert_frame_equal(built(root), unpacked)
    assert not (root / "OLIVES/TREX_DME.zip").exists()  # its scans are there already


def test_inner_archives_unpacked_and_one_scan_by_hand(part: Real, unpacked: pd.DataFrame, tmp_path: Path) -> None:
    root = tmp_path / "inner"
    part.write_labels(root)
    (root / "OLIVES").mkdir(parents=True)
    for half, name in (("TREX DME", "TREX_DME.zip"), ("Prime_FULL", "Prime_FULL.zip")):
        (root / "OLIVES" / name).write_bytes(part.half(half))
    one = root / str(unpacked["path"].iloc[0])
    one.parent.mkdir(parents=True)
    with zipfile.ZipFile(root / "OLIVES/TREX_DME.zip") as packed:
        one.write_bytes(packed.read(one.relative_to(root / "OLIVES").as_posix()))
    pd.testing.assert_frame_equal(built(root), unpacked)


def test_a_source_travels_light(part: Real, tmp_path: Path) -> None:
    part.write_archives(tmp_path)
    rows = read_olives(settings(tmp_path))
    assert len(pickle.dumps(rows.source)) < 2000
    path = str(rows.scans["path"].iloc[0])
    assert pickle.loads(pickle.dumps(rows.source))(path) == rows.image_source()(path)


def test_vip_cup_tables_give_the_same_scans(part: Real, unpacked: pd.DataFrame, tmp_path: Path) -> None:
    root = tmp_path / "vip"
    part.write_archives(root, labels=False)
    part.write_vip_tables(root)
    manifest = built(root)
    assert [name for name in BIOMARKERS if name in manifest] == [name for name in BIOMARKERS if name in B]
    same = ["scan_id", "path", *WHO, "visit", "slice", "laterality", "bcva", "cst", "flags", "picture"]
    pd.testing.assert_frame_equal(manifest[same], unpacked[same])
    labeled = unpacked["IR HRF"].notna()
    pd.testing.assert_frame_equal(manifest.loc[~labeled, B], unpacked.loc[~labeled, B])
    pd.testing.assert_frame_equal(manifest.loc[labeled, B], unpacked.loc[labeled, B].fillna(0.0))
    assert quarantine(root) == {}


def test_parquet_shards_give_the_same_scans(part: Real, unpacked: pd.DataFrame, tmp_path: Path) -> None:
    root = tmp_path / "shards"
    part.write_shards(root)
    manifest = built(root, workers=2)
    assert manifest.columns.tolist() == unpacked.columns.tolist()
    merged = unpacked.merge(manifest, on="picture", suffixes=("", "_hf"), validate="1:1")
    assert len(merged) == len(manifest) == len(unpacked)
    for name in [*WHO, *BIOMARKERS]:
        pd.testing.assert_series_equal(merged[name], merged[f"{name}_hf"], check_names=False)
    lost = merged["patient"] == "79"
    for name in ("bcva", "cst"):
        assert merged.loc[lost, f"{name}_hf"].isna().all()
        np.testing.assert_array_equal(merged.loc[~lost, name], merged.loc[~lost, f"{name}_hf"])
    labeled = merged["IR HRF"].notna()
    assert (merged.loc[labeled, "slice"] == merged.loc[labeled, "slice_hf"]).all()
    assert merged["path_hf"].str.fullmatch(r"disease_classification/train-\d{5}[.]parquet/\d+").all()
    copies = -(-len(unpacked) // 5) + len(part.vip)
    assert quarantine(root) == {"duplicate_pixels": copies, "missing_patient": 3}


def test_the_shards_of_six_labels_alone(part: Real, unpacked: pd.DataFrame, tmp_path: Path) -> None:
    root = tmp_path / "six"
    part.write_shards(root, ("biomarker",))
    manifest = built(root)
    merged = unpacked.merge(manifest, on="picture", suffixes=("", "_hf"), validate="1:1")
    assert len(merged) == len(manifest) == len(part.vip)
    for name in ("patient", "eye", "trial", "bcva", "cst"):
        pd.testing.assert_series_equal(merged[name], merged[f"{name}_hf"], check_names=False)
    for name in B:
        pd.testing.assert_series_equal(merged[name].fillna(0.0), merged[f"{name}_hf"].astype(float), check_names=False)


def test_vip_cup_tables_at_full_size(real: Real, shared_data: Path, tmp_path: Path) -> None:
    real.clinical.to_csv(tmp_path / "clinical.csv", index=False)
    shutil.copy(shared_data / "olives" / "Training_Biomarker_Data.csv", tmp_path / "labels.csv")
    folders: dict[str, list[str]] = {}
    for path in sorted(real.paths):
        folder, name = path.lstrip("/").rsplit("/", 1)
        folders.setdefault(f"{folder}/", []).append(name)

    def listing(_: Path) -> Iterator[tuple[str, list[str], list[str]]]:
        yield "", ["Prime_FULL", "TREX DME"], []
        for folder, files in folders.items():
            yield folder, [], files

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(octdino.cohort.file_index, "_listing", listing)
        rows = read_olives(settings(tmp_path, table=tmp_path / "labels.csv", clinical=tmp_path / "clinical.csv"))
    scans = rows.scans.join(rows.truth)
    assert not rows.quarantine.rows
    assert rows.labels == B
    assert len(scans) == 78_283
    labeled = scans[scans["IR HRF"].notna()]
    assert len(labeled) == 9_408
    assert [int(labeled[name].sum()) for name in B] == [6341, 2984, 5222, 2836, 3003, 4088]
    assert scans["patient"].nunique() == 87
    assert scans["eye"].nunique() == 96
    published = real.labels.set_index(PATH).loc[labeled["table_path"]]
    assert labeled["patient"].tolist() == published["Patient_ID"].astype(str).tolist()
    assert labeled["eye"].tolist() == published["Eye_ID"].astype(str).tolist()
    np.testing.assert_array_equal(labeled["bcva"], published["BCVA"])
    np.testing.assert_array_equal(labeled["cst"], published["CST"])
    assert Counter(scans["flags"]) == {"": 78_185, "laterality_clash": 98}
