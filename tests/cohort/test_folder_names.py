"""Folders of patients, visits and dates are not taken for classes in silence; class folders are, as ever."""

from pathlib import Path

import pytest
from PIL import Image

from octdino.cohort.folder import read_folder
from octdino.cohort.scan_table import ScanTable
from octdino.errors import UserError

from .trees import picture, settings

CLASSES = [
    ["CNV", "DME", "DRUSEN", "NORMAL"], ["0", "1", "2", "3", "4"], ["grade_0", "grade_1"], ["AMD", "Healthy"],
    ["n01440764", "n02102040"], ["stage 1", "stage 2", "stage 3"], ["ERM", "MH", "VMT", "RVO", "RAO", "CSR"],
    ["A", "B"], ["wet AMD (type 1)", "wet AMD (type 2)"], ["train", "normal"],
]  # fmt: skip
OTHERS = {
    "ids": [
        ["AMD_patient1", "healthy_subject1"], ["P0012", "P0013", "P0100"], ["sub-01", "sub-02"],
        ["1041", "1042", "77001"], ["Patient 7", "patient 8"], ["case3", "case4", "notes"], ["OCT1234", "OCT1235"],
    ],
    "dates": [["2019-03-05", "2020-01-02"], ["20190305", "20200102"], ["05.03.2019", "06.03.2019"],
              ["x_2019_03_05", "y_2019_04_01"]],
    "visits": [["V1", "V2", "V3"], ["W0", "W12"], ["baseline", "month 12"], ["visit1", "visit2"]],
    "eyes": [["OD", "OS"], ["left", "right"]],
}  # fmt: skip


def read(root: Path, names: list[str], files: int = 2, same: bool = False, **changes: object) -> ScanTable:
    for number, folder in enumerate(names):
        (root / folder).mkdir(parents=True)
        for n in range(files):
            name = f"{n}.png" if same else f"{number}-{n}.png"
            Image.fromarray(picture(10 * number + n)).save(root / folder / name)
    return read_folder(settings(root, "folder", **changes))


@pytest.mark.parametrize("names", CLASSES, ids=" ".join)
@pytest.mark.parametrize("above", ["", "train/"])
def test_class_folders_stay_classes(tmp_path: Path, names: list[str], above: str) -> None:
    rows = read(tmp_path, [above + name for name in names])
    assert rows.labels == sorted(names, key=lambda name: (not name.isdigit(), name))
    assert rows.exclusive
    assert rows.scans["given_split"].eq("train").all() == bool(above)


@pytest.mark.parametrize(("what", "names"), [(what, names) for what, all_ in OTHERS.items() for names in all_])
def test_folders_that_look_like_patients_are_asked_about(tmp_path: Path, what: str, names: list[str]) -> None:
    with pytest.raises(UserError) as raised:
        read(tmp_path, names)
    said = str(raised.value)
    assert f"names look like {what}" in said or (what == "visits" and "look like ids" in said)
    assert "set cohort.folders: classes if they are classes, patients if each is a patient, none" in said
    assert "\n" not in said


def test_the_same_file_names_in_many_folders_are_asked_about(tmp_path: Path) -> None:
    names = ["Smith", "Jones", "Brown", "Taylor", "Wilson"]
    with pytest.raises(
        UserError, match="all 5 have the same 3 file names, as patients or visits do: Brown, Jones, Smith"
    ):
        read(tmp_path / "a", names, files=3, same=True)
    assert read(tmp_path / "b", names[:4], files=3, same=True).labels == sorted(names[:4])


def test_the_setting_decides(tmp_path: Path) -> None:
    names = ["P001", "P002", "P003"]
    rows = read(tmp_path, names, folders="classes")
    assert (rows.labels, rows.patients) == (names, "unknown")
    rows = read_folder(settings(tmp_path, "folder", folders="patients"))
    assert (rows.labels, rows.patients, rows.unlabeled) == ([], "known", True)
    assert rows.scans["patient"].tolist() == [name for name in names for _ in range(2)]
    rows = read_folder(settings(tmp_path, "folder", folders="none"))
    assert (rows.labels, rows.patients, rows.scans["patient"].nunique()) == ([], "unknown", 6)
    assert read_folder(settings(tmp_path, "folder", labels=names)).labels == names
    with pytest.raises(UserError, match=r"cohort\.labels: P001, P002, P003; these folders are no classes"):
        read_folder(settings(tmp_path, "folder", labels=names, folders="patients"))


def test_the_setting_excludes_a_table(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="folders: none is about files without a table"):
        settings(tmp_path, "folder", folders="none", table="scans.csv")
