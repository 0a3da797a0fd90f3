"""Clinical exports in a folder cohort: patients, eyes, visits and thickness from the headers, without the patients."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from octdino.cohort.folder import read_folder
from octdino.cohort.ingest import build_cohort
from octdino.cohort.scan_table import ScanTable
from octdino.data.cohort_reader import read_cohort
from octdino.data.csv_io import read_table
from octdino.data.schemas.csv_schemas import MANIFEST
from octdino.errors import UserError
from tests.scans.volumes import written_dicom, written_volumes
from tests.scans.volumes.written_dicom import write_compressed, write_dicom
from tests.scans.volumes.written_volumes import (
    e2e_bytes,
    heyex_files,
    reflectivity,
    tiff_pages,
    topcon_bytes,
    vol_bytes,
    zeiss_file,
)

from .trees import picture, settings


def frames(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 40, 48)).astype(np.uint8)


def exports(root: Path) -> Path:
    """Three patients: one with two visits of one eye and another eye, one with an `.e2e`, one in DICOM."""
    for name, day, eye, cst in (("b", (2019, 3, 5), "R", "0.300"), ("a", (2020, 1, 2), "R", "0.281"),
                                ("c", (2019, 3, 5), "L", "0.290")):  # fmt: skip
        heyex_files(root / "one", frames(3, ord(name)), f"{name}.xml", number="ID-555-A", day=day, eye=eye, cst=cst)
    (root / "two").mkdir()
    (root / "two" / "x.e2e").write_bytes(e2e_bytes(np.arange(50_000, 51_800, dtype=np.uint16).reshape(2, 30, 30)))
    write_compressed(root / "three.dcm", frames(2, 9), "JPEG2000Lossless", PatientID="", PatientName="Doe^Jane")
    return root


def build(root: Path, out: Path, **changes: Any) -> pd.DataFrame:
    build_cohort(settings(root, "folder", **changes), out)
    return read_table(out / "manifest.csv", MANIFEST)


def test_a_folder_of_exports_is_an_unlabeled_cohort(tmp_path: Path) -> None:
    manifest = build(exports(tmp_path / "root"), tmp_path / "out")
    first = manifest[manifest["path"].str.startswith("one/")]
    assert first["path"].tolist()[:4] == ["one/a.xml#0", "one/a.xml#1", "one/a.xml#2", "one/b.xml#0"]
    assert set(first["patient"]) == {"patient-0001"}
    assert first.groupby("path")["eye"].first().unique().tolist() == ["patient-0001-OD", "patient-0001-OS"]
    visits = dict(zip(first["path"], first["visit"], strict=True))
    assert [visits[f"one/{name}.xml#0"] for name in "bac"] == ["1", "2", "1"]
    assert first["cst"].unique().tolist() == [281, 300, 290]
    assert first["slice"].tolist() == [1, 2, 3] * 3
    assert set(first["trial"]) == {"Heidelberg Engineering Spectralis"}
    rest = manifest[~manifest["path"].str.startswith("one/")]
    assert dict(zip(rest["path"], rest["patient"], strict=True)) == {
        "three.dcm#0": "patient-0002", "three.dcm#1": "patient-0002",
        "two/x.e2e#0": "patient-0003", "two/x.e2e#1": "patient-0003",
    }  # fmt: skip
    assert read_cohort(tmp_path / "out" / "scans.h5").labels == []
    assert sorted(set(manifest["split"])) == ["test", "train", "val"]


def test_an_unlabeled_cohort_does_not_cross_validate(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="crossval of scans without labels; expected holdout"):
        build(exports(tmp_path / "root"), tmp_path / "out", split={"protocol": "crossval"})


def test_the_same_patient_in_other_formats_and_spellings_is_one(tmp_path: Path) -> None:
    (tmp_path / "1.vol").write_bytes(vol_bytes(reflectivity(2)))
    write_dicom(tmp_path / "2.dcm", frames(2), PatientID=" mrn7788123")
    (tmp_path / "3.fda").write_bytes(topcon_bytes(frames(2)))
    write_dicom(tmp_path / "4.dcm", frames(2), PatientID="another")
    rows = read_folder(settings(tmp_path, "folder"))
    assert rows.scans["patient"].tolist() == ["patient-0001"] * 6 + ["patient-0002"] * 2
    assert rows.patients == "known"


def test_the_headers_own_ids_only_if_asked_for(tmp_path: Path) -> None:
    rows = read_folder(settings(exports(tmp_path), "folder", header_ids=True))
    assert rows.scans["patient"].unique().tolist() == ["ID-555-A", "patient-0002", "MRN7788123"]


def test_files_that_name_nobody_are_patients_of_their_own_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tiff_pages(tmp_path / "1.tif", frames(2))
    tiff_pages(tmp_path / "2.tif", frames(3))
    rows = read_folder(settings(tmp_path, "folder"))
    assert rows.scans["patient"].tolist() == ["patient-0001"] * 2 + ["patient-0002"] * 3
    assert rows.patients == "unknown"
    assert "patients are unknown" in caplog.text


def test_broken_files_and_images_without_a_header_are_quarantined(tmp_path: Path) -> None:
    exports(tmp_path)
    Image.fromarray(picture(1)).save(tmp_path / "one" / "report.png")
    (tmp_path / "broken.vol").write_bytes(vol_bytes(reflectivity())[:3000])
    write_dicom(tmp_path / "fundus.dcm", frames(1), SOPClassUID=written_dicom.PHOTOGRAPH)
    refused = read_folder(settings(tmp_path, "folder")).quarantine.rows
    assert {row["path"]: row["reason"] for row in refused} == {
        "broken.vol": "unreadable", "fundus.dcm": "unreadable", "one/report.png": "missing_patient"
    }  # fmt: skip
    assert "a fundus photograph" in next(row["detail"] for row in refused if row["path"] == "fundus.dcm")


def table(root: Path, rows: list[dict[str, Any]], **changes: Any) -> ScanTable:
    pd.DataFrame(rows).to_csv(root / "scans.csv", index=False)
    return read_folder(settings(root, "folder", **changes))


def test_a_row_of_a_table_means_all_b_scans_of_a_file_or_one(tmp_path: Path) -> None:
    exports(tmp_path)
    write_dicom(tmp_path / "odd#1.dcm", frames(1))
    rows = table(
        tmp_path,
        [
            {"path": "one/a.xml", "patient": "p1", "slice": "", "cst": "", "A": 1},
            {"path": "THREE.dcm#1", "patient": "p2", "slice": 7, "cst": 250, "A": 0},
            {"path": "odd#1.dcm#0", "patient": "p3", "slice": "", "cst": "", "A": 0},
            {"path": "one/a.xml#2", "patient": "p1", "slice": "", "cst": "", "A": 0},
            {"path": "three.dcm#2", "patient": "p2", "slice": "", "cst": "", "A": 0},
            {"path": "one/b.xml#x", "patient": "p2", "slice": "", "cst": "", "A": 0},
        ],
    )
    assert rows.scans["path"].tolist() == [*(f"one/a.xml#{n}" for n in range(3)), "three.dcm#1", "odd#1.dcm#0"]
    assert rows.scans["patient"].tolist() == ["p1"] * 3 + ["p2", "p3"]
    assert rows.scans["slice"].tolist() == [1, 2, 3, 7, 1]
    assert rows.scans["cst"].tolist()[:4] == [281, 281, 281, 250]
    assert rows.scans["eye"].tolist()[0] == "p1-OD"
    assert rows.scans["flags"].tolist() == ["", "", "", "path_changed", ""]
    assert rows.truth["A"].tolist() == [1, 1, 1, 0, 0]
    refused = {row["row"]: (row["reason"], row["detail"]) for row in rows.quarantine.rows}
    assert refused[5] == ("duplicate_path", "scans.csv row 5: named in row 2 already")
    assert refused[6] == ("missing_file", "scans.csv row 6: no B-scan 2; the file has 0 to 1")
    assert refused[7][0] == "missing_file"


def test_a_table_without_patients_takes_those_of_the_headers(tmp_path: Path) -> None:
    exports(tmp_path)
    rows = table(
        tmp_path, [{"path": "three.dcm", "A": 1}, {"path": "one/b.xml", "A": 0}, {"path": "one/a.xml", "A": 0}]
    )
    assert rows.scans["patient"].tolist() == ["patient-0002"] * 2 + ["patient-0001"] * 6
    assert rows.scans["visit"].tolist() == ["1"] * 2 + ["1"] * 3 + ["2"] * 3
    assert rows.patients == "known"


def test_class_folders_of_exports(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for number, name in enumerate(["CNV/1", "CNV/2", "NORMAL/1", "NORMAL/2"]):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_dicom(tmp_path / f"{name}.dcm", frames(2, number), PatientID=f"id{number}")
    rows = read_folder(settings(tmp_path, "folder"))
    assert rows.labels == ["CNV", "NORMAL"]
    assert rows.truth["CNV"].tolist() == [1] * 4 + [0] * 4
    assert rows.scans["patient"].nunique() == 4
    assert rows.patients == "known"
    assert "folders are taken for classes: CNV, NORMAL" in caplog.text
    rows = read_folder(settings(tmp_path, "folder", folders="none"))
    assert (rows.labels, rows.unlabeled) == ([], True)


def test_masks_of_b_scans(tmp_path: Path) -> None:
    (tmp_path / "masks" / "one").mkdir(parents=True)
    exports(tmp_path)
    Image.fromarray(picture(1)).save(tmp_path / "masks" / "one" / "a.xml#1.png")
    rows = read_folder(settings(tmp_path, "folder"))
    assert rows.scans["mask"].tolist()[:4] == ["", "masks/one/a.xml#1.png", "", ""]


SECRETS = (
    written_volumes.FIRST, written_volumes.LAST, written_volumes.NUMBER, "7788123", "19310407", "1931-04-07", "11420",
    "2019-03-05", "20190305", "43529", written_dicom.NAME,
)  # fmt: skip


@pytest.mark.filterwarnings("ignore:Invalid value:UserWarning", "ignore:The PN:UserWarning")
@pytest.mark.parametrize("with_table", [True, False])
def test_no_output_and_no_log_names_a_patient(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], with_table: bool
) -> None:
    """In each format, in files that are read and in files that are refused; names, ids, birth and visit dates."""
    root = tmp_path / "root"
    heyex_files(root, frames(3))
    heyex_files(root, frames(3), "refused.xml", head="<!DOCTYPE HEDX>")
    (root / "a.vol").write_bytes(vol_bytes(reflectivity()))
    (root / "cut.vol").write_bytes(vol_bytes(reflectivity())[:-2000])
    (root / "a.e2e").write_bytes(e2e_bytes(np.arange(50_000, 51_800, dtype=np.uint16).reshape(2, 30, 30)))
    (root / "a.fda").write_bytes(topcon_bytes(frames(2, 5)))
    write_dicom(root / "a.dcm", frames(2, 6))
    write_dicom(root / "fundus.dcm", frames(2, 6), SOPClassUID=written_dicom.PHOTOGRAPH)
    write_dicom(root / "odd.dcm", frames(2, 7), PatientBirthDate="Zweistein", StudyDate="MRN-7788123")
    write_compressed(root / "j.dcm", frames(2, 8), "JPEGLosslessProcess14_1", PatientName="Zweistein^" * 9)
    zeiss_file(root, np.random.default_rng(1).integers(0, 256, (2, 1024, 16)).astype(np.uint8), "x_Cube 16x2_z.img")
    if with_table:
        rows = [
            {"path": path.name, "A": n % 2} for n, path in enumerate(sorted(root.iterdir())) if path.suffix != ".tif"
        ]
        pd.DataFrame(rows).to_csv(root / "scans.csv", index=False)
    caplog.clear()  # of what pydicom says of the odd values when it writes them
    capfd.readouterr()
    caplog.set_level(logging.DEBUG)
    if with_table:
        read_folder(settings(root, "folder"))
    else:
        assert len(build(root, tmp_path / "out")) == 18
    written = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
    said = caplog.text + "".join(capfd.readouterr())
    assert said
    for secret in SECRETS:
        assert secret.encode().lower() not in written.lower(), secret
        assert secret.lower() not in said.lower(), secret
    if with_table:
        quarantine = str(read_folder(settings(root, "folder")).quarantine.rows).lower()
        assert not [secret for secret in SECRETS if secret.lower() in quarantine]


def test_a_list_of_files_without_labels_beside_exports_is_not_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = table(exports(tmp_path), [{"path": "one/a.xml", "patient": "p1", "kind": "volume"}])
    assert len(rows.scans) == 13
    assert rows.unlabeled
    assert "no label column, so it is not read" in caplog.text
    named = table(tmp_path, [{"path": "one/a.xml", "patient": "p1", "kind": "volume"}], table="scans.csv")
    assert (len(named.scans), named.unlabeled) == (3, False)


@pytest.mark.parametrize("folders", ["auto", "none"])
def test_real_spectralis_exports(shared_data: Path, tmp_path: Path, folders: str) -> None:
    """The fundus images stay out, the folders are no classes, and the list of files beside them is not read."""
    manifest = build(shared_data / "oct_volumes", tmp_path / "out", folders=folders)
    assert manifest["patient"].value_counts().to_dict() == {"patient-0001": 49, "patient-0002": 49}
    assert manifest.groupby("eye")["cst"].unique().map(list).to_dict() == {
        "patient-0001-OS": [319], "patient-0002-OD": [300]
    }  # fmt: skip
    assert manifest["slice"].tolist() == [*range(1, 50)] * 2
    assert (tmp_path / "out" / "quarantine.csv").read_text().count("\n") == 1


def test_real_spectralis_exports_without_their_table(shared_data: Path, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    for folder in ("AMD_patient1", "healthy_subject1"):
        (tmp_path / "root" / folder).symlink_to(shared_data / "oct_volumes" / folder)
    rows = read_folder(settings(tmp_path / "root", "folder"))
    assert (rows.labels, len(rows.scans), rows.scans["patient"].nunique()) == ([], 98, 2)
