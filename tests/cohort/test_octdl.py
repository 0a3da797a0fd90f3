"""OCTDL from its labels file and zip or tree; rows that cannot be used."""

import logging
from collections import Counter
from pathlib import Path

import pytest

from octdino.cohort.ingest import build_cohort
from octdino.cohort.octdl import read_octdl
from octdino.data.cohort_reader import read_cohort
from octdino.data.csv_io import read_table
from octdino.data.schemas.csv_schemas import MANIFEST, SPLITS
from octdino.errors import UserError

from .oct_trees import DIAGNOSES, jpeg, octdl_images, octdl_rows, octdl_table, write_tree, write_zip
from .trees import picture, settings


def write(root: Path, rows: list[str], base: str = "OCTDL/") -> Path:
    """The labels file and the tree of the images."""
    return write_tree(root, {"OCTDL_labels.csv": octdl_table(rows), **octdl_images(octdl_rows(), base)})


def test_the_zip_and_the_unpacked_tree_give_the_same_cohort(tmp_path: Path) -> None:
    rows = octdl_rows()
    packed = tmp_path / "packed"
    write_zip(packed / "OCTDL.zip", octdl_images(rows) | {"__MACOSX/OCTDL/AMD/._amd_1.jpg": b"\0\5\x16\7"})
    (packed / "OCTDL_labels.csv").write_bytes(octdl_table(rows))
    for root, out in ((packed, "one"), (write(tmp_path / "unpacked", rows), "other")):
        build_cohort(settings(root, "octdl", split={"protocol": "crossval", "folds": 3}), tmp_path / out)
    for name in ("manifest.csv", "splits.csv", "scans.h5"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()
    manifest = read_table(tmp_path / "one" / "manifest.csv", MANIFEST)
    assert len(manifest) == 7 * 3 * 2
    assert list(manifest.columns[-7:]) == list(DIAGNOSES)
    assert (manifest[list(DIAGNOSES)].sum(axis=1) == 1).all()
    assert manifest["patient"].nunique() == 7 * 3
    assert Counter(manifest["laterality"].fillna("")) == {"OD": 7 * 2, "": 7 * 2 * 2}
    assert set(manifest["eye"].dropna()) - {""} == {f"{100_000 * (index + 1) + 1}-OD" for index in range(7)}
    cohort = read_cohort(tmp_path / "one" / "scans.h5")
    assert cohort.exclusive
    assert cohort.unit.patients
    splits = read_table(tmp_path / "one" / "splits.csv", SPLITS)
    assert (splits[splits["split"] == "test"].groupby("patient").size() == 1).all()


@pytest.mark.parametrize("base", ["", "OCTDL/OCTDL/", "data/OCTDL/"])
def test_the_folders_are_found_anywhere(tmp_path: Path, base: str) -> None:
    table = read_octdl(settings(write(tmp_path, octdl_rows(), base), "octdl"))
    assert table.scans["path"][0] == f"{base}AMD/amd_100000_1.jpg"
    assert table.scans["scan_id"][0] == "octdl-AMD-amd_100000_1"
    assert (len(table.scans), table.quarantine.rows) == (42, [])


def test_the_table_may_be_elsewhere_and_in_the_zip(tmp_path: Path) -> None:
    rows = octdl_rows()
    root = write_zip(tmp_path / "zip" / "OCTDL.zip", octdl_images(rows) | {"OCTDL/OCTDL_labels.csv": octdl_table(rows)})
    assert len(read_octdl(settings(root, "octdl")).scans) == 42
    (tmp_path / "mine.csv").write_bytes(octdl_table(rows[:4]))
    assert len(read_octdl(settings(root, "octdl", table=tmp_path / "mine.csv")).scans) == 4


@pytest.mark.parametrize(
    ("row", "reason", "detail"),
    [
        ("amd_7_1,AMD,late,MNV,7,0,0,0,48,40", "missing_file", "no file AMD/amd_7_1.jpg below the root"),
        ("amd_100000_1,DME,late,MNV,100000,0,0,0,48,40", "missing_file", "no file DME/amd_100000_1.jpg"),
        ("amd_100000_1,amd,late,MNV,100000,0,0,0,48,40", "bad_label", "disease is 'amd'; expected AMD, DME, ERM, NO"),
        ("amd_100000_1,AMD,late,MNV,,0,0,0,48,40", "missing_patient", "patient_id is empty"),
        ("amd_100000_1,AMD,late,MNV,100000,left,0,0,48,40", "bad_value", "eye is 'left'; expected OD, OS or 0"),
        (",AMD,late,MNV,100000,0,0,0,48,40", "missing_path", "file_name is empty"),
        ("amd_100000_1.jpg,AMD,late,MNV,100000,0,0,0,48,40", "duplicate_path", "named in row 2 already"),
        ("two,AMD,late,MNV,100000,0,0,0,48,40", "bad_path", "may be OCTDL/AMD/two.jpg or copy/AMD/two.jpg"),
    ],
)
def test_a_row_that_cannot_be_used_goes_to_the_quarantine(tmp_path: Path, row: str, reason: str, detail: str) -> None:
    root = write(tmp_path, [*octdl_rows(), row])
    write_tree(root, {f"{base}/AMD/two.jpg": jpeg(picture(8000)) for base in ("OCTDL", "copy")})
    table = read_octdl(settings(root, "octdl"))
    assert len(table.scans) == 42
    (refused,) = table.quarantine.rows
    assert (refused["path"], refused["row"], refused["reason"]) == (row.split(",")[0], 44, reason)
    assert refused["detail"].startswith("OCTDL_labels.csv row 44: ")
    assert detail in refused["detail"]


def test_images_without_a_row_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        read_octdl(settings(write(tmp_path, octdl_rows()[:30]), "octdl"))
    assert "12 images that no row of OCTDL_labels.csv uses" in caplog.text


def test_missing_files_and_columns_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no table OCTDL_labels.csv below it; put it there or name it by cohort.table"):
        read_octdl(settings(tmp_path / "empty", "octdl"))
    (tmp_path / "empty" / "OCTDL_labels.csv").write_bytes(octdl_table(octdl_rows()))
    with pytest.raises(UserError, match=r"no image in a folder AMD, DME, .*; expected OCTDL/AMD/"):
        read_octdl(settings(tmp_path / "empty", "octdl"))
    (tmp_path / "empty" / "OCTDL_labels.csv").write_text("file_name,disease\namd_1,AMD\n")
    with pytest.raises(UserError, match="no column 'patient_id'; it has file_name, disease"):
        read_octdl(settings(tmp_path / "empty", "octdl"))
