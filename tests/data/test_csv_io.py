from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from octdino.data.atomic_files import replacing
from octdino.data.csv_io import fraction_patients, label_matrix, labels_of, read_table, write_table
from octdino.data.schemas.csv_schemas import MANIFEST, QUARANTINE, SPLITS
from octdino.errors import UserError


def manifest(rows: list[dict]) -> pd.DataFrame:
    return pd.DataFrame(rows)


def test_missing_stays_missing_and_types_come_back(tmp_path: Path) -> None:
    rows = [
        {"scan_id": "a", "patient": "007", "slice": 3, "bcva": 61.5, "IR HRF": 1, "DRT/ME": None},
        {"scan_id": "NA", "patient": "nan", "slice": None, "bcva": None, "IR HRF": 0, "DRT/ME": 1},
    ]
    same = {"path": "null", "cohort": "None", "group": "n/a", "split": "train"}
    write_table(tmp_path / "m.csv", manifest(rows).assign(**same), MANIFEST)
    table = read_table(tmp_path / "m.csv", MANIFEST)
    assert table["patient"].tolist() == ["007", "nan"]
    assert table["scan_id"].tolist() == ["a", "NA"]
    assert table["slice"].isna().tolist() == [False, True]
    assert table["bcva"].iloc[0] == 61.5
    assert labels_of(table) == ["IR HRF", "DRT/ME"]
    matrix = label_matrix(table)
    assert matrix.dtype == np.float32
    assert np.array_equal(matrix, [[1, np.nan], [0, 1]], equal_nan=True)
    assert np.array_equal(label_matrix(table, ["DRT/ME"]), [[np.nan], [1]], equal_nan=True)


@given(st.lists(st.tuples(st.text(max_size=8), st.integers(0, 10**6) | st.none(), st.text(max_size=8)), max_size=6))
@hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_survives(tmp_path: Path, rows: list[tuple]) -> None:
    rows = [(path.replace("\r", ""), row, detail.replace("\r", "")) for path, row, detail in rows]
    rows = [(p.encode(errors="replace").decode(), r, d.encode(errors="replace").decode()) for p, r, d in rows]
    table = pd.DataFrame(rows, columns=["path", "row", "detail"]).assign(reason="unreadable")
    write_table(tmp_path / "q.csv", table, QUARANTINE)
    back = read_table(tmp_path / "q.csv", QUARANTINE)
    assert back["path"].tolist() == [path for path, _, _ in rows]
    assert back["detail"].tolist() == [detail for _, _, detail in rows]
    assert [None if pd.isna(row) else row for row in back["row"]] == [row for _, row, _ in rows]


def test_errors_name_file_and_column(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none.csv: no such table"):
        read_table(tmp_path / "none.csv", SPLITS)
    (tmp_path / "a.csv").write_text("fold,patient,group,split\n0,a,a,train\n")
    with pytest.raises(UserError, match=r"a.csv: no column rank; expected fold"):
        read_table(tmp_path / "a.csv", SPLITS)
    (tmp_path / "b.csv").write_text("fold,patient,group,split,rank\nzero,a,a,train,0\n")
    with pytest.raises(UserError, match=r"b.csv: row 2: fold is 'zero'; expected a whole number from 0$"):
        read_table(tmp_path / "b.csv", SPLITS)


def test_replacing_is_all_or_nothing(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "a.txt"
    with replacing(target) as temporary:
        temporary.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    with pytest.raises(UserError, match=r"a\.txt: cannot be written: Is a directory"), replacing(target) as temporary:
        target.parent.write_text(temporary.name)
    assert target.read_text() == "new"
    assert [path.name for path in target.parent.iterdir()] == ["a.txt"]


def splits(groups: int) -> pd.DataFrame:
    """Two patients a group, every group labeled and in training; and one test, one unlabeled patient."""
    rows = [
        {"fold": 0, "patient": f"{g}{x}", "group": f"{g}", "split": "train", "rank": g}
        for g in range(groups)
        for x in "ab"
    ]
    rows += [
        {"fold": 0, "patient": "t", "group": "t", "split": "test"},
        {"fold": 0, "patient": "u", "group": "u", "split": "train"},
    ]
    return pd.DataFrame(rows).astype({"rank": "Int64"})


@pytest.mark.parametrize(("fraction", "count"), [(0.001, 1), (0.1, 1), (0.25, 3), (0.3, 3), (0.5, 5), (1.0, 10)])
def test_fraction_is_of_groups_and_at_least_one(fraction: float, count: int) -> None:
    assert fraction_patients(splits(10), 0, fraction) == {f"{g}{x}" for g in range(count) for x in "ab"}


@hypothesis_settings(deadline=None)
@given(st.integers(1, 60), st.floats(0.001, 1), st.floats(0.001, 1))
def test_fractions_nest(groups: int, one: float, other: float) -> None:
    small, large = sorted((one, other))
    assert fraction_patients(splits(groups), 0, small) <= fraction_patients(splits(groups), 0, large)
