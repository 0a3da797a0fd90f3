"""OCT2017 from its zip and from trees, its file names, and its published split without the leak."""

import json
import logging
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from octdino import cli
from octdino.audit.leakage_audit import audit
from octdino.cohort.ingest import build_cohort
from octdino.cohort.oct2017 import read_oct2017
from octdino.config import AuditSettings, load_config
from octdino.data.cohort_reader import read_cohort
from octdino.data.csv_io import read_table
from octdino.data.schemas.csv_schemas import FINDINGS, MANIFEST, QUARANTINE
from octdino.errors import UserError

from .oct_trees import CLASSES, jpeg, junk, oct2017_files, write_tree, write_zip
from .trees import picture, settings

PUBLISHED = {"split": {"protocol": "published", "val": 0.2}}


def build(root: Path, out: Path, **changes: object) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Manifest and quarantine."""
    build_cohort(settings(root, "oct2017", **changes), out)
    return read_table(out / "manifest.csv", MANIFEST), read_table(out / "quarantine.csv", QUARANTINE)


def test_the_zip_and_the_unpacked_tree_give_the_same_cohort(tmp_path: Path) -> None:
    files = oct2017_files() | junk()
    packed = write_zip(tmp_path / "packed" / "ZhangLabData.zip", files)
    unpacked = write_tree(tmp_path / "unpacked", files)
    manifest, quarantine = build(packed, tmp_path / "one")
    build(unpacked, tmp_path / "other")
    assert len(quarantine) == 0
    assert len(manifest) == 4 * (4 * 2 + 2)  # neither chest X-rays nor macOS's files
    assert Counter(manifest["patient"])["1001"] == 4  # in two classes, one patient
    assert manifest["patient"].nunique() == 4 * 5 - 1
    assert (manifest[list(CLASSES)].sum(axis=1) == 1).all()
    for name in ("manifest.csv", "splits.csv", "scans.h5"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()
    cohort = read_cohort(tmp_path / "one" / "scans.h5")
    assert cohort.exclusive
    assert cohort.unit.patients
    assert cohort.attributes.published_leak is None


@pytest.mark.parametrize("base", ["", "OCT2017/", "a/OCT2017 /"])
def test_the_tree_is_found_in_any_folder(tmp_path: Path, base: str) -> None:
    """Version 2's folder, a copy of it one deeper, and the root itself; validation scans are read."""
    files = oct2017_files(base=base) | {f"{base}val/NORMAL/NORMAL-77-1.jpeg": jpeg(picture(8000))}
    table = read_oct2017(settings(write_tree(tmp_path, files), "oct2017"))
    assert len(table.scans) == 41
    assert "77" in set(table.scans["patient"])
    assert set(table.scans["scan_id"]) >= {"oct2017-train-CNV-CNV-1000-1", "oct2017-val-NORMAL-NORMAL-77-1"}
    assert list(table.scans["path"][:3]) == [f"{base}test/CNV/CNV-{rest}.jpeg" for rest in ("1000-8", "1900-8")] + [
        f"{base}test/DME/DME-2000-8.jpeg"
    ]


@pytest.mark.parametrize(
    ("name", "detail"),
    [
        ("train/CNV/CNV-12.jpeg", "train/CNV/CNV-12.jpeg; expected {train,test}/{CNV,DME,DRUSEN,NORMAL}/"),
        ("train/CNV/xCNV-12-1.jpeg", "expected {train,test}/"),
        ("train/CNV/CNV-12-1.jpeg.bak", "expected {train,test}/"),
        ("train/CNV/more/CNV-12-1.jpeg", "expected {train,test}/"),
        ("train/AMD/AMD-12-1.jpeg", "expected {train,test}/"),
        ("train/Thumbs.db", "expected {train,test}/"),
        ("test/CNV/DME-12-1.jpeg", "the name says DME, the folder CNV; expected one class"),
    ],
)
def test_another_name_goes_to_the_quarantine(tmp_path: Path, name: str, detail: str) -> None:
    files = oct2017_files() | {f"CellData/OCT/{name}": jpeg(picture(7000))}
    table = read_oct2017(settings(write_tree(tmp_path, files), "oct2017"))
    assert len(table.scans) == 40
    (row,) = table.quarantine.rows
    assert (row["path"], row["reason"]) == (f"CellData/OCT/{name}", "bad_path")
    assert detail in row["detail"]


def test_an_unpacked_tree_precedes_the_zip(tmp_path: Path) -> None:
    write_zip(tmp_path / "ZhangLabData.zip", oct2017_files())
    write_tree(tmp_path / "unpacked", oct2017_files(patients=3))
    table = read_oct2017(settings(tmp_path, "oct2017"))
    assert len(table.scans) == 4 * (3 * 2 + 2)
    assert set(table.scans["path"].str.split("/").str[0]) == {"unpacked"}


def test_a_missing_or_doubled_tree_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no tree of OCT2017; expected \{train,test\}/.* or ZhangLabData.zip"):
        read_oct2017(settings(write_tree(tmp_path / "chest", junk()), "oct2017"))
    (tmp_path / "chest" / "OCT2017.tar.gz").write_bytes(b"")
    with pytest.raises(UserError, match=r"OCT2017.tar.gz: not unpacked; run tar -xzf .*OCT2017.tar.gz -C "):
        read_oct2017(settings(tmp_path / "chest", "oct2017"))
    write_tree(tmp_path / "two", oct2017_files(base="a/") | oct2017_files(base="b/"))
    with pytest.raises(UserError, match=r"several trees of OCT2017: .*two/a/?, .*two/b/?; name one by cohort.root"):
        read_oct2017(settings(tmp_path / "two", "oct2017"))
    with pytest.raises(UserError, match="no such folder"):
        read_oct2017(settings(tmp_path / "nowhere", "oct2017"))


def test_published_tests_its_patients_and_trains_on_none_of_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The first test patient of each class has two training scans: eight scans of four patients leak."""
    files = oct2017_files() | {"CellData/OCT/val/CNV/CNV-1002-9.jpeg": jpeg(picture(8000))}
    root = write_zip(tmp_path / "ZhangLabData.zip", files)
    with caplog.at_level(logging.WARNING):
        manifest, quarantine = build(root, tmp_path / "out", **PUBLISHED)
    assert "trains on 8 scans of 4 patients that it also tests" in caplog.text
    assert Counter(quarantine["reason"]) == {"tested_patient": 8}
    assert set(quarantine["path"]) == {path for path in files if "/train/" in path and "000-" in path}
    assert quarantine["detail"][0] == "patient 1000 is tested by the published split, which trains on this scan"
    tested = manifest[manifest["split"] == "test"]
    assert set(tested["path"]) == {path for path in files if "/test/" in path}
    assert set(manifest["split"]) == {"train", "val", "test"}
    assert not set(tested["patient"]) & set(manifest["patient"][manifest["split"] != "test"])
    assert manifest.loc[manifest["path"].str.contains("/val/"), "split"].item() in ("train", "val")

    audit(AuditSettings(), tmp_path / "out" / "scans.h5", [], tmp_path / "audit")
    findings = read_table(tmp_path / "audit" / "findings.csv", FINDINGS)
    (leak,) = findings[findings["check"] == "published"].to_dict("records")
    assert (leak["state"], leak["count"]) == ("left out", 8)
    assert leak["detail"] == ("the published split trains on 8 scans of 4 patients that it also tests; left out here")
    assert "published" in json.loads((tmp_path / "audit" / "audit.json").read_text())["asked"]
    assert cli.main(["verdict", str(tmp_path / "audit" / "findings.csv")]) == 0


def test_published_leaves_out_patients_that_share_images_with_tested_ones(tmp_path: Path) -> None:
    files = oct2017_files()
    same = files["CellData/OCT/test/CNV/CNV-1900-8.jpeg"]
    files |= {"CellData/OCT/train/CNV/CNV-55-1.jpeg": same}
    files |= {f"CellData/OCT/train/CNV/CNV-55-{n}.jpeg": jpeg(picture(8000 + n)) for n in (2, 3)}
    manifest, quarantine = build(write_tree(tmp_path / "root", files), tmp_path / "out", **PUBLISHED)
    assert Counter(quarantine["reason"]) == {"tested_patient": 8 + 3}
    assert "patient 55 shares identical images with tested patients" in quarantine["detail"].iloc[-1]
    assert "55" not in set(manifest["patient"])
    leak = read_cohort(tmp_path / "out" / "scans.h5").attributes.published_leak
    assert leak is not None
    assert (leak.scans, leak.patients) == (11, 5)


def test_published_without_a_leak_says_so(tmp_path: Path) -> None:
    files = {path: content for path, content in oct2017_files().items() if "/train/" not in path or "000-" not in path}
    build(write_tree(tmp_path / "root", files), tmp_path / "out", **PUBLISHED)
    audit(AuditSettings(), tmp_path / "out" / "scans.h5", [], tmp_path / "audit")
    assert "published" not in set(read_table(tmp_path / "audit" / "findings.csv", FINDINGS)["check"])
    assert "published" in json.loads((tmp_path / "audit" / "audit.json").read_text())["asked"]


def test_published_needs_the_test_set_and_the_cohort(tmp_path: Path) -> None:
    files = {path: content for path, content in oct2017_files().items() if "/train/" in path}
    root = write_tree(tmp_path, files)
    with pytest.raises(UserError, match=r"OCT: no scan in test; cohort.split.protocol published expects"):
        build_cohort(settings(root, "oct2017", **PUBLISHED), tmp_path / "out")
    with pytest.raises(UserError, match="published lists patients of oct2017, not of phantom"):
        load_config({"cohort": {"split": {"protocol": "published"}}})
    with pytest.raises(UserError, match="published2 lists patients of olives, not of oct2017"):
        load_config({"cohort": {"name": "oct2017", "root": str(root), "split": {"protocol": "published2"}}})
    with pytest.raises(UserError, match=r"root: missing"):
        load_config({"cohort": {"name": "oct2017"}})


def test_real_scans_in_the_published_layout(shared_data: Path, tmp_path: Path) -> None:
    """534 real scans of Kermany et al. under their own names; every fifth in test, so that patients are shared."""
    scans = pd.read_csv(shared_data / "oct_kermany" / "scans.csv", dtype={"patient": str})
    files = {}
    for number, scan in enumerate(scans.itertuples(index=False)):
        name = Path(str(scan.path)).name
        split = "test" if number % 5 == 0 else "train"
        files[f"CellData/OCT/{split}/{name.split('-')[0]}/{name}"] = (
            shared_data / "oct_kermany" / str(scan.path)
        ).read_bytes()
    root = write_zip(tmp_path / "ZhangLabData.zip", files | junk())
    image = {"size": (64, 64), "crop": "retina"}
    manifest, quarantine = build(root, tmp_path / "out", image=image)
    assert len(manifest) + len(quarantine) == len(scans)
    assert set(quarantine["reason"]) <= {"duplicate_pixels"}
    of_name = dict(zip((Path(p).name for p in scans["path"]), scans["patient"], strict=True))
    assert [of_name[Path(path).name] for path in manifest["path"]] == manifest["patient"].tolist()
    of_class = scans.assign(name=[Path(p).name for p in scans["path"]]).set_index("name")[list(CLASSES)]
    names = [Path(path).name for path in manifest["path"]]
    assert (manifest[list(CLASSES)].to_numpy(int) == of_class.loc[names].to_numpy(int)).all()
    manifest, quarantine = build(root, tmp_path / "published", image=image, **PUBLISHED)
    tested = set(manifest["patient"][manifest["split"] == "test"])
    assert tested
    assert not tested & set(manifest["patient"][manifest["split"] != "test"])
    assert (quarantine["reason"] == "tested_patient").sum() > 0
