import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image

from octdino.cohort.folder import read_folder
from octdino.cohort.scan_table import ScanTable
from octdino.errors import UserError

from .trees import picture, settings


def read(root: Path, rows: list[dict[str, Any]] | None, files: list[str] | None = None, **changes: Any) -> ScanTable:
    if files is None:
        files = [str(row["path"]) for row in rows or [] if row["path"]]
    for number, name in enumerate(files):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(number)).save(root / name)
    if rows is not None:
        pd.DataFrame(rows).to_csv(root / "scans.csv", index=False)
    return read_folder(settings(root, "folder", **changes))


def rows_of(count: int = 6, **columns: Any) -> list[dict[str, Any]]:
    return [{"path": f"images/{i}.png", "patient": f"p{i // 2}", "A": i % 2, **columns} for i in range(count)]


def test_table_with_everything(tmp_path: Path) -> None:
    known = {"eye": "OD", "visit": "V1", "slice": 3, "bcva": 0.5, "cst": 250, "site": "north"}
    rows = read(tmp_path, rows_of(**known))
    scan = rows.scans.iloc[1]
    want = {"path": "images/1.png", "patient": "p0", "eye": "p0-OD", "laterality": "OD", "visit": "V1", "slice": 3}
    want |= {"bcva": 0.5, "cst": 250, "trial": "north", "row": 3, "cohort": "folder", "known": True}
    assert {name: scan[name] for name in want} == want
    assert rows.truth.iloc[1].to_dict() == {"A": 1}
    assert not rows.one_size


def test_columns_that_are_no_labels_are_named_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = read(tmp_path, rows_of(width=496, kind="bscan", empty=None, B="", C=[1.0]))
    assert rows.labels == ["A"]
    for name in ("width", "kind", "empty", "B", "C"):
        assert name in caplog.text
    assert "row 2: 'bscan'" in caplog.text


def test_named_labels_with_other_values_refuse_the_row(tmp_path: Path) -> None:
    table = rows_of(B=1)
    table[2]["B"] = "maybe"
    table[3]["B"] = None
    rows = read(tmp_path, table, labels=["B"])
    assert rows.labels == ["B"]
    refused = rows.quarantine.rows
    assert [(r["reason"], r["row"]) for r in refused] == [("bad_label", 4)]
    assert "B: 'maybe', expected 0, 1 or empty" in refused[0]["detail"]
    assert rows.truth["B"].isna().sum() == 1


def test_named_labels_that_are_not_there_or_mean_something_else(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"scans.csv: no column 'Z'; it has path, patient, A"):
        read(tmp_path, rows_of(), labels=["Z"])
    with pytest.raises(UserError, match="patient: a column of this name has a meaning"):
        read(tmp_path, rows_of(), labels=["patient"])


def test_without_patients_each_scan_is_its_own_and_the_log_warns(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = read(tmp_path, [{"path": f"{i}.png", "A": 0} for i in range(3)])
    assert rows.scans["patient"].tolist() == ["0.png", "1.png", "2.png"]
    assert not rows.scans["known"].any()
    assert "no patient column" in caplog.text


@pytest.mark.parametrize("name", ["patient_id", "Subject", "PATIENT"])
def test_patient_by_its_other_names(tmp_path: Path, name: str) -> None:
    rows = read(tmp_path, [{"path": f"{i}.png", name: 7, "A": 0} for i in range(3)])
    assert set(rows.scans["patient"]) == {"7"}


@pytest.mark.parametrize(
    ("change", "reason", "detail"),
    [
        ({"path": None}, "missing_path", "the path is empty"),
        ({"path": "none.png"}, "missing_file", "no file none.png"),
        ({"path": "../0.png"}, "bad_path", "leaves the root"),
        ({"path": "/etc/passwd"}, "missing_file", "no file /etc/passwd"),
        ({"path": "images/0.png"}, "duplicate_path", "named in row 2 already"),
        ({"patient": None}, "missing_patient", "patient is empty"),
        ({"slice": "first"}, "bad_value", "slice: 'first', expected a number"),
        ({"slice": 1.5}, "bad_value", "slice: 1.5, expected a whole number"),
        ({"slice": -3}, "bad_value", "slice: '-3"),
        ({"bcva": float("inf")}, "bad_value", "bcva: 'inf', expected a number"),
    ],
)
def test_a_bad_row_is_refused_with_its_reason(tmp_path: Path, change: dict, reason: str, detail: str) -> None:
    table = rows_of(slice=1, bcva=50)
    files = [row["path"] for row in table]
    table[4].update(change)
    rows = read(tmp_path, table, files)
    assert [(r["reason"], r["row"]) for r in rows.quarantine.rows] == [(reason, 6)]
    assert detail in rows.quarantine.rows[0]["detail"]
    assert len(rows.scans) == 5


def test_a_slice_may_be_empty_or_written_as_a_decimal(tmp_path: Path) -> None:
    table = rows_of(slice=7)
    table[4]["slice"] = None  # so that pandas writes the others as 7.0
    rows = read(tmp_path, table)
    assert rows.scans["slice"].tolist() == [7, 7, 7, 7, pd.NA, 7]
    assert not rows.quarantine.rows


def test_a_file_name_that_is_not_utf_8_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path / "a") + b"/Bj\xf6rn.png")).write_bytes(b"")
    with pytest.raises(UserError, match=r"the file name '.*' is not UTF-8; rename it"):
        read_folder(settings(tmp_path, "folder"))


def test_other_case_separators_and_absolute_paths(tmp_path: Path) -> None:
    table = rows_of()
    files = [row["path"] for row in table]
    table[0]["path"], table[1]["path"], table[2]["path"] = (
        "IMAGES/0.PNG",
        "images\\1.png",
        str(tmp_path / "images/2.png"),
    )
    table[3]["path"] = "./images/3.png"
    rows = read(tmp_path, table, files)
    assert rows.scans["path"].tolist() == files
    assert rows.scans["flags"].tolist() == ["path_changed"] * 2 + [""] * 4


def test_users_split(tmp_path: Path) -> None:
    table = [row | {"split": ["training", "Test", "valid"][i // 2]} for i, row in enumerate(rows_of())]
    assert read(tmp_path, table).scans["given_split"].tolist() == ["train"] * 2 + ["test"] * 2 + ["val"] * 2
    table[1]["split"] = "test"
    with pytest.raises(UserError, match=r"patient p0 is in two splits: train in row 2, test in row 3"):
        read(tmp_path, table)
    table[1]["split"] = "holdout"
    with pytest.raises(UserError, match=r"row 3: split is 'holdout', expected train, val or test"):
        read(tmp_path, table)


def test_tables_to_choose_from(tmp_path: Path) -> None:
    read(tmp_path, rows_of())
    (tmp_path / "notes.csv").write_text("a,b\n1,2\n")
    assert len(read_folder(settings(tmp_path, "folder")).scans) == 6
    (tmp_path / "more.csv").write_text("path,A\nimages/0.png,1\n")
    with pytest.raises(UserError, match=r"several tables with a path column: more.csv, scans.csv"):
        read_folder(settings(tmp_path, "folder"))
    assert len(read_folder(settings(tmp_path, "folder", table="more.csv")).scans) == 1
    with pytest.raises(UserError, match=r"other.csv: no such table"):
        read_folder(settings(tmp_path, "folder", table="other.csv"))
    with pytest.raises(UserError, match=r"notes.csv: no column 'path'; it has a, b"):
        read_folder(settings(tmp_path, "folder", table="notes.csv"))


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00\x01", b"path,A\n1.png,0,0,0\n", b"path,A,A\n1.png,0,0\n"])
def test_a_broken_table_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "scans.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"scans.csv: "):
        read_folder(settings(tmp_path, "folder", table="scans.csv"))


def test_a_table_that_cannot_be_read_and_is_not_named_is_left_out_in_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    read(tmp_path, None, ["a/1.png", "a/2.png", "b/3.png", "b/4.png"])
    (tmp_path / "no\ntes.csv").write_bytes(b"path,A\n1.png,0,0,0\n")
    assert len(read_folder(settings(tmp_path, "folder")).scans) == 4
    (warning,) = [message for message in caplog.messages if message.startswith("not read as a table of scans")]
    assert "no tes.csv" in warning
    assert len(warning.splitlines()) == 1


def test_a_broken_workbook_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "scans.xlsx").write_bytes(b"PK nothing")
    with pytest.raises(UserError, match=r"scans.xlsx: cannot be read as a table"):
        read_folder(settings(tmp_path, "folder", table="scans.xlsx"))


def test_row_numbers_count_blank_rows(tmp_path: Path) -> None:
    read(tmp_path, rows_of())
    (tmp_path / "scans.csv").write_text("path,A\nimages/0.png,1\n\n,,\n".replace(",,", ",") + "none.png,1\n")
    rows = read_folder(settings(tmp_path, "folder"))
    assert [r["row"] for r in rows.quarantine.rows] == [5]


def test_folders_as_classes(tmp_path: Path) -> None:
    files = ["SRF/b/2.png", "SRF/10.png", "SRF/9.png", "None/1.png", "loose.png", "masks/SRF/9.png", "SRF/.hidden.png"]
    rows = read(tmp_path, None, files)
    (tmp_path / "SRF/readme.txt").write_text("no picture")
    assert rows.labels == ["None", "SRF"]
    assert rows.scans["path"].tolist() == ["None/1.png", "SRF/9.png", "SRF/10.png", "SRF/b/2.png", "loose.png"]
    assert rows.truth["SRF"].tolist()[:4] == [0, 1, 1, 1]
    assert rows.truth["None"].tolist()[:4] == [1, 0, 0, 0]
    assert rows.truth.loc[4].isna().all()
    assert rows.scans["mask"].tolist() == ["", "masks/SRF/9.png", "", "", ""]


def test_split_folders_with_classes(tmp_path: Path) -> None:
    rows = read(tmp_path, None, ["train/A/1.png", "train/B/1.png", "test/A/2.png", "test/B/1.png"])
    assert rows.labels == ["A", "B"]
    assert dict(zip(rows.scans["path"], rows.scans["given_split"], strict=True))["test/A/2.png"] == "test"


def test_nothing_to_classify(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither a table with a path column nor an image"):
        read(tmp_path, None)
    with pytest.raises(UserError, match="class folders: A; expected two or more"):
        read(tmp_path, None, ["A/1.png"])
    with pytest.raises(UserError, match="no such folder"):
        read_folder(settings(tmp_path / "none", "folder"))
    with pytest.raises(UserError, match=r"class folders: label 'split' is a column of manifest\.csv"):
        read(tmp_path, None, ["split/1.png"])


def test_real_kermany_table(shared_data: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = read_folder(settings(shared_data / "oct_kermany", "folder"))
    assert rows.labels == ["CNV", "DME", "DRUSEN", "NORMAL"]
    assert not rows.quarantine.rows
    assert len(rows.scans) == 534
    assert (rows.truth.sum(axis=1) == 1).all()
    assert "width" in caplog.text


# A bare carriage return ends a row for some writers and not for others, so it is left out.
wild = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00\r"), max_size=12)


@given(st.lists(st.tuples(wild, wild, wild), min_size=1, max_size=8))
@hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_in_a_table_is_refused_row_by_row(tmp_path: Path, cells: list[tuple]) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    table = pd.DataFrame([("a.png", "p", "1"), *cells], columns=["path", "patient", "A"])
    table.to_csv(tmp_path / "wild.csv", index=False)
    rows = read_folder(settings(tmp_path, "folder", table="wild.csv", labels=["A"]))
    assert len(rows.scans) + len(rows.quarantine.rows) <= 1 + len(cells)
    assert rows.scans["path"].tolist() == ["a.png"]
    assert set(np.unique(rows.truth["A"].dropna())) <= {0, 1}
