"""Patients in file names and folders: patterns of users, published namings, layouts; and how patterns are bounded."""

import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from octdino.cohort.folder import read_folder
from octdino.cohort.ingest import build_cohort
from octdino.cohort.patient_names import PatientNames
from octdino.cohort.scan_table import RowRefused, ScanTable
from octdino.config import CohortSettings
from octdino.config.patterns import compile_patient_pattern
from octdino.data.cohort_reader import read_cohort
from octdino.errors import UserError

from .trees import picture, settings

KERMANY = ["CNV/CNV-1016042-1.jpeg", "CNV/CNV-1016042-2.jpeg", "DME/DME-306172-1.jpeg", "NORMAL/NORMAL-9251-5.jpeg"]
OCTDL = ["AMD/amd_1101816_1.jpg", "AMD/amd_1101816_2.jpg", "NO/no_77_1.jpg", "RVO/rvo_1000_1.jpg"]


def read(root: Path, names: list[str], table: str = "", **changes: Any) -> ScanTable:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(number)).save(root / name)
    if table:
        (root / "scans.csv").write_text(table)
    return read_folder(settings(root, "folder", **changes))


def patients(table: ScanTable) -> dict[str, str]:
    return dict(zip(table.scans["path"], table.scans["patient"], strict=True))


@pytest.mark.parametrize(
    ("names", "ids"),
    [(KERMANY, ["1016042", "1016042", "306172", "9251"]), (OCTDL, ["1101816", "1101816", "77", "1000"])],
)
def test_published_names_tell_the_patients(
    tmp_path: Path, names: list[str], ids: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    table = read(tmp_path, names)
    assert patients(table) == dict(zip(names, ids, strict=True))
    assert table.patients == "known"
    assert any("cohort.patient_pattern" in decision for decision in table.decisions)
    assert f"For example {Path(names[0]).name}: patient {ids[0]}" in caplog.text
    off = read(tmp_path, names, patient_pattern=None)
    assert off.patients == "unknown"
    assert patients(off) == {name: name for name in names}


def test_published_names_in_a_table_without_patients(tmp_path: Path) -> None:
    rows = "".join(f"{name},{int('CNV' in name)}\n" for name in KERMANY)
    assert set(read(tmp_path, KERMANY, "path,fluid\n" + rows).scans["patient"]) == {"1016042", "306172", "9251"}


def test_the_store_keeps_what_was_decided(tmp_path: Path) -> None:
    decisions = read(tmp_path / "root", KERMANY).decisions
    build_cohort(settings(tmp_path / "root", "folder"), tmp_path / "out")
    cohort = read_cohort(tmp_path / "out/scans.h5")
    assert cohort.decisions == decisions
    assert cohort.unit.state == "known"
    assert sorted(cohort.manifest["patient"].unique()) == ["1016042", "306172", "9251"]


@pytest.mark.parametrize(
    "names",
    [
        [*KERMANY, "CNV/other.jpeg"],
        ["A/IMG-1001-1.png", "B/IMG-1002-1.png"],
        ["AMD/AMD-2019-1.png", "AMD/AMD-2020-2.png", "DME/DME-2020-1.png"],
        ["CNV/CNV-1-1.png", "DME/DME-1-2.png"],
    ],
    ids=["one name of another form", "no class", "years", "one patient"],
)
def test_other_names_tell_no_patient(tmp_path: Path, names: list[str]) -> None:
    table = read(tmp_path, names)
    assert (table.patients, table.pattern) == ("unknown", "")


def test_the_users_pattern(tmp_path: Path) -> None:
    names = ["A/x_P12_1.png", "A/x_P13_1.png", "B/y_P12_2.png", "B/nobody.png"]
    table = read(tmp_path, names, patient_pattern=r"_P(\d+)_")
    assert patients(table) == {"A/x_P12_1.png": "12", "A/x_P13_1.png": "13", "B/y_P12_2.png": "12"}
    assert table.patients == "known"
    assert [(row["path"], row["reason"]) for row in table.quarantine.rows] == [("B/nobody.png", "missing_patient")]
    with pytest.raises(UserError, match=r"cohort\.patient_pattern: no file name matches; x_P12_1\.png does not match"):
        read(tmp_path, names, patient_pattern=r"-(\d+)-")


def test_a_pattern_is_applied_to_the_name_and_not_to_folders(tmp_path: Path) -> None:
    table = read(tmp_path, ["A-1/x-7.png", "B-2/y-8.png"], patient_pattern=r"-(\d)")
    assert list(patients(table).values()) == ["7", "8"]


def test_a_pattern_beside_a_patient_column_is_asked_about(tmp_path: Path) -> None:
    text = "path,subject,A\nx-7.png,a,1\n"
    with pytest.raises(UserError, match=r"patient_pattern and the column subject both name patients"):
        read(tmp_path, ["x-7.png"], text, patient_pattern=r"-(\d)")
    table = read(tmp_path, ["x-7.png"], text, patient_pattern=r"-(\d)", ignore=["subject"])
    assert table.scans["patient"].tolist() == ["7"]


def test_a_patient_in_train_and_test_is_refused(tmp_path: Path) -> None:
    names = [f"{split}/{name}" for split, name in zip(["train", "test", "train", "test"], KERMANY, strict=True)]
    with pytest.raises(UserError, match=r"patient 1016042 is in two splits, .*; cohort\.ignore: \[split\] makes a new"):
        read(tmp_path, names)
    table = read(tmp_path, names, ignore=["split"])
    assert set(table.scans["given_split"]) == {""}
    assert table.labels == ["CNV", "DME", "NORMAL"]


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("(", "is no regular expression"),
        (r"\d+", "has 0 groups; expected one pair of parentheses"),
        (r"(\d+)-(\d+)", "has 2 groups"),
        ("(a+)+$", "repeats a group that repeats"),
        (r"((?:[a-z]|\d)*)x", "repeats a group that repeats"),
        (r"(?:(a+)?b?){4}", "repeats a group that repeats"),
        (r"(.*).*.*.*.*x", "may take too long"),
        ("(" + "a?" * 60 + ")", "may take too long"),
        ("(x)" + "y" * 200, "203 characters; expected at most 200"),
        (r"(?x)(a+ ) +", "has comments or the flag x"),
        (r"(a)\1", "refers to a group"),
    ],
)
def test_a_pattern_that_cannot_be_used_is_one_line(pattern: str, said: str) -> None:
    with pytest.raises(UserError) as raised:
        CohortSettings.parse({"name": "folder", "root": ".", "patient_pattern": pattern}, "settings")
    assert said in str(raised.value)
    assert str(raised.value).startswith("settings: patient_pattern: ")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        (r"^[A-Za-z]+-(\d+)-\d+$", "a" * 127 + "-"), (r".*(\d+).*-$", "1" * 128), (r"(\w*)\w*\w*-", "a" * 128),
        (r"(?:a|b|c|d)?(\d*)[x()]*-", "1" * 128),
    ],
)  # fmt: skip
def test_patterns_that_are_allowed_end_soon_on_the_worst_names(pattern: str, name: str) -> None:
    names = PatientNames(compile_patient_pattern(pattern), given=True)
    begin = time.monotonic()
    with pytest.raises(RowRefused):
        names.patient(name)
    assert time.monotonic() - begin < 10
    with pytest.raises(RowRefused, match="129 characters; expected at most 128"):
        names.patient("1" * 129)


def files(*folders: str, count: int = 2) -> list[str]:
    return [f"{folder}/{place}-{number}.png" for place, folder in enumerate(folders) for number in range(count)]


def test_patients_below_classes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = files("AMD/P01", "AMD/P02", "AMD/P03", "Normal/P02", "Normal/P07")
    table = read(tmp_path, names)
    assert table.labels == ["AMD", "Normal"]
    assert patients(table) == {name: name.split("/")[1] for name in names}
    assert (table.patients, table.layout) == ("known", "classes-patients")
    assert "class/patient/scan: 4 of 4 names look like ids: P01, P02, P03, …; 1 are in several classes" in caplog.text
    assert read(tmp_path, names, folders="classes").patients == "unknown"


def test_eyes_and_visits_below_patients(tmp_path: Path) -> None:
    names = files("A/101/OD/V1", "A/101/OS/V1", "A/102/OD/V2", "B/103/OS/V1", "B/104/OD/V2", count=1)
    scans = read(tmp_path, names).scans
    assert scans["eye"].tolist() == ["101-OD", "101-OS", "102-OD", "103-OS", "104-OD"]
    assert scans["laterality"].tolist() == ["OD", "OS", "OD", "OS", "OD"]
    assert scans["visit"].tolist() == ["V1", "V1", "V2", "V1", "V2"]


@pytest.mark.parametrize(
    "folders",
    [
        ["A/OD", "A/OS", "B/OD", "B/OS"],
        ["A/V1", "A/V2", "A/V3", "B/V1", "B/V4"],
        ["A/Cirrus", "A/Spectralis", "B/Cirrus", "B/Spectralis"],
        ["A/large", "A/small", "A/round", "B/flat", "B/tall", "B/odd"],
        ["A", "B/P01", "B/P02", "B/P03", "B/P04"],
    ],
    ids=["eyes", "visits", "devices", "words", "not everywhere"],
)
def test_other_folders_below_classes_are_no_patients(tmp_path: Path, folders: list[str]) -> None:
    table = read(tmp_path, files(*folders))
    assert (table.labels, table.patients) == (["A", "B"], "unknown")


def test_names_that_recur_in_some_classes_are_patients(tmp_path: Path) -> None:
    names = files("A/Ash", "A/Birch", "A/Cedar", "B/Birch", "B/Elm", "C/Fir", "C/Ash", "C/Gum")
    table = read(tmp_path, names)
    assert table.patients == "known"
    assert table.scans["patient"].nunique() == 6


def test_the_setting_says_that_there_are_patients_below_classes(tmp_path: Path) -> None:
    names = [*files("A/Ash", "A/Birch", "B/Cedar", count=1), "B/loose.png"]
    table = read(tmp_path, names, folders="classes-patients")
    assert list(patients(table).values()) == ["Ash", "Birch", "Cedar"]
    assert [(row["path"], row["reason"]) for row in table.quarantine.rows] == [("B/loose.png", "missing_patient")]
    with pytest.raises(UserError, match="no folders in class folders; expected class/patient/scan"):
        read(tmp_path / "flat", ["A/1.png", "B/2.png"], folders="classes-patients")


def test_classes_with_the_number_of_a_patient_are_asked_about(tmp_path: Path) -> None:
    names = files("AMD1", "AMD2", "AMD3", "NORMAL1", "NORMAL2")
    with pytest.raises(UserError, match="all 5 are one of amd, normal with a number: AMD1, AMD2, AMD3, …; set"):
        read(tmp_path, names)
