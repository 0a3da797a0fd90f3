"""A user's table as programs and people write them: separators, encodings, words, sheets, names of columns."""

import logging
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from octdino.cohort.folder import read_folder
from octdino.cohort.scan_table import ScanTable
from octdino.errors import UserError

from .trees import picture, settings

ROWS = "images/0.png,ä1,1\nimages/1.png,ä1,0\nimages/2.png,p2,1\n"


def write_images(root: Path, names: list[str]) -> None:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(number)).save(root / name)


def read(root: Path, text: str, name: str = "scans.csv", encoding: str = "utf-8", **changes: Any) -> ScanTable:
    write_images(root, [f"images/{number}.png" for number in range(6)])
    (root / name).write_bytes(text.encode(encoding))
    return read_folder(settings(root, "folder", **changes))


def column(table: ScanTable, name: str = "A") -> list[Any]:
    return [None if pd.isna(value) else int(value) for value in table.truth[name]]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
def test_a_separator_and_an_encoding_make_no_difference(tmp_path: Path, separator: str, encoding: str) -> None:
    text = ("path,patient,A\n" + ROWS).replace(",", separator)
    table = read(tmp_path, text, encoding=encoding)
    assert table.scans["patient"].tolist() == ["ä1", "ä1", "p2"]
    assert column(table) == [1, 0, 1]
    assert table.scans["row"].tolist() == [2, 3, 4]


def test_another_encoding_is_said_with_its_first_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    read(tmp_path, "path,patient,A\n" + ROWS, encoding="latin-1")
    assert "scans.csv: not UTF-8 (line 2): read as Windows-1252" in caplog.text


def test_commas_inside_of_cells_do_not_make_a_separator(tmp_path: Path) -> None:
    text = 'path;patient;A;"notes, free"\nimages/0.png;a;1;"x, y, z"\nimages/1.png;b;0;w\n'
    assert column(read(tmp_path, text)) == [1, 0]


def test_the_line_that_excel_writes_for_itself_is_no_header(tmp_path: Path) -> None:
    assert column(read(tmp_path, "sep=;\r\npath;patient;A\r\nimages/0.png;a;1\r\n")) == [1]


def test_decimal_commas(tmp_path: Path) -> None:
    text = "path;patient;A;cst;bcva\nimages/0.png;a;1,0;250,5;70\nimages/1.png;b;0,0;;71,25\n"
    table = read(tmp_path, text)
    assert table.scans["cst"].tolist()[0] == 250.5
    assert table.scans["cst"].isna().tolist() == [False, True]
    assert table.scans["bcva"].tolist() == [70, 71.25]
    assert column(table) == [1, 0]


def test_points_of_thousands_are_not_taken_for_decimals(tmp_path: Path) -> None:
    table = read(tmp_path, "path;patient;A;cst\nimages/0.png;a;1;1.250,5\nimages/1.png;b;0;250,5\n")
    assert [(row["row"], row["reason"]) for row in table.quarantine.rows] == [(2, "bad_value"), (3, "bad_value")]


@pytest.mark.parametrize(
    ("yes", "no"), [("True", "False"), ("yes", "NO"), ("Y", "n"), ("ja", "Nein"), ("WAHR", "FALSCH"), ("1.0", "0.0")]
)
def test_words_for_yes_and_no_are_labels(tmp_path: Path, yes: str, no: str) -> None:
    table = read(tmp_path, f"path,patient,A\nimages/0.png,a,{yes}\nimages/1.png,b,{no}\nimages/2.png,c,\n")
    assert column(table) == [1, 0, None]


@pytest.mark.parametrize("word", ["T", "x", "positive", "2", "?"])
def test_other_words_are_no_labels(tmp_path: Path, word: str) -> None:
    assert read(tmp_path, f"path,patient,A,B\nimages/0.png,a,{word},1\n").labels == ["B"]


@pytest.mark.parametrize(
    "header",
    ["filename,Patient ID", "Image Path,patientid", "img,PatientID", "file,subject", "scan,pat_id", "image,Patient-No"],
)
def test_paths_and_patients_by_their_usual_names(
    tmp_path: Path, header: str, caplog: pytest.LogCaptureFixture
) -> None:  # fmt: skip
    caplog.set_level(logging.INFO)
    table = read(tmp_path, f"{header},A\nimages/0.png,p7,1\n")
    assert table.scans["patient"].tolist() == ["p7"]
    path_name, patient_name = header.split(",")
    assert f"read {path_name} as path, {patient_name} as patient" in caplog.text
    assert table.decisions == [f"Columns read by their names: {path_name} as path, {patient_name} as patient."]


def test_two_columns_that_name_scans_are_asked_about(tmp_path: Path) -> None:
    text = "file,image,A\nimages/0.png,images/1.png,1\n"
    with pytest.raises(UserError, match=r"columns file, image all name scans; .* cohort\.ignore: \[image\]"):
        read(tmp_path, text, table=tmp_path / "scans.csv")
    table = read(tmp_path, text, table=tmp_path / "scans.csv", ignore=["image"])
    assert table.scans["path"].tolist() == ["images/0.png"]


def test_a_column_is_not_taken_for_what_its_cells_cannot_be(tmp_path: Path) -> None:
    text = "path,patient,side,set,slice_no\nimages/0.png,a,1,0,0\nimages/1.png,b,0,1,1\n"
    table = read(tmp_path, text, labels=["set"])
    assert set(table.columns) == {"path", "patient"}
    assert table.unread == ["side", "slice_no"]


@pytest.mark.parametrize(("word", "side"), [("R", "OD"), ("left", "OS"), ("od", "OD"), ("Links", "OS")])
@pytest.mark.parametrize("name", ["eye", "laterality", "side"])
def test_words_for_the_side_of_an_eye(tmp_path: Path, name: str, word: str, side: str) -> None:
    scan = read(tmp_path, f"path,patient,{name},A\nimages/0.png,a,{word},1\n").scans.iloc[0]
    assert scan["laterality"] == side
    assert scan["eye"] == f"a-{word if name == 'eye' else side}"


def test_names_alone_find_files_in_folders(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_images(tmp_path, ["left/a.png", "right/a.png", "left/b.png"])
    table = read(tmp_path, "filename,patient,A\nb,p,1\n3.png,p,0\na.png,q,1\nleft/3.png,q,1\n")
    assert table.scans["path"].tolist() == ["left/b.png", "images/3.png"]
    assert table.scans["flags"].tolist() == ["path_changed"] * 2
    refused = [(row["row"], row["reason"]) for row in table.quarantine.rows]
    assert refused == [(4, "bad_path"), (5, "missing_file")]
    assert "a.png may mean left/a.png or right/a.png" in table.quarantine.rows[0]["detail"]
    assert "2 paths are names alone" in caplog.text


def test_a_table_of_other_things_is_not_taken(tmp_path: Path) -> None:
    """Its column has a name that paths have, and names no file below the root."""
    write_images(tmp_path, ["A/0.png", "B/1.png"])
    (tmp_path / "devices.csv").write_text("image,device\nfundus,Cirrus\n")
    assert read_folder(settings(tmp_path, "folder")).labels == ["A", "B"]


CLASSES = (
    "path,patient,diagnosis\nimages/0.png,a,AMD\nimages/1.png,b,DME\nimages/2.png,c,AMD\nimages/3.png,d,\n"
    "images/4.png,e,DME\n"
)


def test_a_text_column_of_diagnoses_is_the_classes(tmp_path: Path) -> None:
    table = read(tmp_path, CLASSES)
    assert (table.labels, table.exclusive) == (["AMD", "DME"], True)
    assert column(table, "AMD") == [1, 0, 1, None, 0]
    assert column(table, "DME") == [0, 1, 0, None, 1]
    assert table.decisions == ["Classes are the values of the column diagnosis: AMD, DME (cohort.class_column)."]


def test_classes_by_the_setting(tmp_path: Path) -> None:
    text = CLASSES.replace("diagnosis", "what the reader said")
    table = read(tmp_path, text, class_column="what the reader said", labels=["DME", "AMD"])
    assert table.labels == ["DME", "AMD"]
    assert table.decisions == []
    with pytest.raises(UserError, match=r"cohort\.labels: AMD; the classes in what the reader said are AMD, DME"):
        read(tmp_path, text, class_column="what the reader said", labels=["AMD"])
    with pytest.raises(UserError, match=r"no column 'none'; it has path, patient"):
        read(tmp_path, text, class_column="none")


def test_what_the_labels_are_is_asked_where_only_the_user_can_tell(tmp_path: Path) -> None:
    both = CLASSES.replace("diagnosis", "fluid,diagnosis").replace(",AMD", ",1,AMD").replace(",DME", ",0,DME")
    both = both.replace("d,\n", "d,,\n")
    with pytest.raises(
        UserError, match=r"diagnosis \(AMD, DME, …\) or the 0/1 columns fluid; write cohort\.class_column"
    ):
        read(tmp_path, both)
    assert read(tmp_path, both, labels=["fluid"]).labels == ["fluid"]
    assert read(tmp_path, both, ignore=["fluid"]).labels == ["AMD", "DME"]
    two = CLASSES.replace("diagnosis", "diagnosis,category").replace("\nimages", "\nimages").replace(",AMD", ",AMD,x")
    two = two.replace(",DME", ",DME,y").replace("d,\n", "d,,\n")
    with pytest.raises(UserError, match=r"the labels may be diagnosis .* or category \(x, y, …\)"):
        read(tmp_path, two)


def test_flags_that_repeat_the_class_column_are_the_labels(tmp_path: Path) -> None:
    text = "path,patient,class,AMD,DME\nimages/0.png,a,AMD,1,0\nimages/1.png,b,DME,0,1\n"
    text += "images/2.png,c,AMD,1,0\nimages/3.png,d,DME,0,1\n"
    assert read(tmp_path, text).labels == ["AMD", "DME"]
    assert read(tmp_path, text).exclusive is None


def test_classes_that_differ_in_case_only_are_asked_about(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"column diagnosis: 'AMD' and 'amd' differ only in case; write one of them"):
        read(tmp_path, CLASSES.replace("c,AMD", "c,amd"), class_column="diagnosis")


@pytest.mark.parametrize(
    "name", ["Sex", "is_male", "smoker", "Diabetes", "history of hypertension", "Right eye", "test"]
)
def test_demographics_are_never_a_label_in_silence(tmp_path: Path, name: str) -> None:
    text = f"path,patient,A,{name}\nimages/0.png,a,1,0\nimages/1.png,b,0,1\n"
    with pytest.raises(UserError) as raised:
        read(tmp_path, text)
    said = str(raised.value)
    assert f"cohort.ignore: [{name}] leaves it out, cohort.labels: [A] names the labels" in said
    assert "\n" not in said
    assert read(tmp_path, text, ignore=[name]).labels == ["A"]
    assert read(tmp_path, text, labels=["A", name]).labels == ["A", name]


@pytest.mark.parametrize("name", ["Diabetic macular edema", "diabetic retinopathy", "SRF", "female-like", "stage"])
def test_findings_are_labels_although_a_word_in_them_is_also_demographic(tmp_path: Path, name: str) -> None:
    assert read(tmp_path, f"path,patient,{name}\nimages/0.png,a,1\nimages/1.png,b,0\n").labels == [name]


def write_workbook(root: Path, sheets: dict[str, list[list[Any]]]) -> None:
    with pd.ExcelWriter(root / "scans.xlsx") as writer:
        for name, rows in sheets.items():
            pd.DataFrame(rows).to_excel(writer, sheet_name=name, index=False, header=False)


def test_the_sheet_with_the_paths_is_read(tmp_path: Path) -> None:
    write_images(tmp_path, ["images/0.png", "images/1.png"])
    scans = [["path", "patient", "A"], ["images/0.png", 7, True], ["images/1.png", 8, False]]
    notes = [["who", "when"], ["me", "today"]]
    write_workbook(tmp_path, {"Notes": notes, "Scans": scans})
    table = read_folder(settings(tmp_path, "folder"))
    assert (table.scans["patient"].tolist(), column(table)) == (["7", "8"], [1, 0])
    write_workbook(tmp_path, {"Notes": notes, "Scans": scans, "Old": scans[:2]})
    with pytest.raises(UserError, match=r"sheets Scans, Old all have a path column; name one by cohort\.sheet: Scans"):
        read_folder(settings(tmp_path, "folder"))
    assert len(read_folder(settings(tmp_path, "folder", sheet="Old")).scans) == 1
    with pytest.raises(UserError, match=r"no sheet 'New'; expected one of Notes, Scans, Old"):
        read_folder(settings(tmp_path, "folder", table=tmp_path / "scans.xlsx", sheet="New"))
