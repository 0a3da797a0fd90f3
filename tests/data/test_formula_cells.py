"""Cells that a spreadsheet would take for a formula: neutral in the files, unchanged in what is read back."""

import csv
import re
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image

from octdino import cli
from octdino.data.csv_io import read_table, write_table
from octdino.data.formula_cells import escape_formulas, unescape_formulas
from octdino.data.schemas.csv_schemas import MANIFEST, QUARANTINE, SPLITS
from tests.cohort.trees import picture

STARTS = ("=", "+", "-", "@", "\t", "\r")
FORMULAS = [
    "=1+1", "=cmd|' /C calc'!A0", '=HYPERLINK("http://x","y")', "+SUM(A1)", "-2+3+cmd|'/C calc'!A0", "@SUM(1)",
    "\t=1", "\r=1", "-", "=", "--1", "+-1", "-1\n=2", "- 1", "-1e", "-p1",
]  # fmt: skip
HARMLESS = ["p1", "-1", "+49", "-0.5", "-1,5", "-1.5e-3", "-3 %", "'quoted'", "'", " =1", "a=b", "007"]


def raw(path: Path) -> list[list[str]]:
    """Every cell below the header as a spreadsheet sees it."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))[1:]


def patients(cells: list[str]) -> pd.DataFrame:
    """splits.csv of these patients."""
    return pd.DataFrame({"fold": 0, "patient": cells, "group": cells, "split": "train", "rank": range(len(cells))})


def test_formulas_are_text_in_the_file_and_themselves_when_read(tmp_path: Path) -> None:
    write_table(tmp_path / "splits.csv", patients([*FORMULAS, *HARMLESS]), SPLITS)
    written = [row[1] for row in raw(tmp_path / "splits.csv")]
    assert written == ["'" + cell for cell in FORMULAS] + HARMLESS
    assert read_table(tmp_path / "splits.csv", SPLITS)["patient"].tolist() == [*FORMULAS, *HARMLESS]


def test_a_table_that_was_written_by_hand_is_read_as_it_is(tmp_path: Path) -> None:
    patients(["-p1", "'p2", "@p3"]).to_csv(tmp_path / "splits.csv", index=False)
    assert read_table(tmp_path / "splits.csv", SPLITS)["patient"].tolist() == ["-p1", "'p2", "@p3"]


@hypothesis_settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.text(st.sampled_from("'=+-@\t\r1. %eAb\n"), max_size=6), min_size=1, max_size=8))
def test_escaping_can_be_undone(cells: list[str]) -> None:
    table = pd.DataFrame({"a": pd.array(cells, "string"), "b": range(len(cells))})
    safe = escape_formulas(table)
    for cell in safe["a"]:
        assert not cell.startswith(STARTS) or re.match(r"[+-]?[0-9]", cell)
    pd.testing.assert_frame_equal(unescape_formulas(safe), table)


@pytest.mark.parametrize("missing", [pd.NA, ""])
def test_empty_cells_and_numbers_stay(missing: object) -> None:
    table = pd.DataFrame({"a": pd.array([missing, "=1"], "string"), "b": [-1.0, 2.0]})
    assert escape_formulas(table)["a"].tolist()[1] == "'=1"
    assert escape_formulas(table)["a"].isna().tolist() == table["a"].isna().tolist()
    assert escape_formulas(table)["b"].tolist() == [-1.0, 2.0]


def test_a_cohort_of_formulas(tmp_path: Path) -> None:
    """Names of files and patients come from the user's table; manifest.csv and quarantine.csv are what people open."""
    root, out = tmp_path / "files", tmp_path / "cohort"
    (root / "=1+1").mkdir(parents=True)
    rows = []
    for number in range(24):
        path = f"=1+1/@scan {number}.png"
        Image.fromarray(picture(number)).save(root / path)
        rows.append({"path": path, "patient": f"-p{number // 2}", "visit": "=V(1)", "A": number // 2 % 2})
    rows.append({"path": "+missing.png", "patient": "=p", "visit": "", "A": 0})
    pd.DataFrame(rows).to_csv(tmp_path / "scans.csv", index=False)
    flags = ["--root", str(root), "--table", str(tmp_path / "scans.csv"), "--out", str(out), "--workers", "1"]
    assert cli.main(["cohort", "folder", *flags, "--image.size", "16", "16"]) == 0
    for name in ("manifest", "quarantine", "splits"):
        for row in raw(out / f"{name}.csv"):
            assert not [cell for cell in row if cell.startswith(STARTS)], row
    manifest = read_table(out / "manifest.csv", MANIFEST)
    assert set(manifest["path"]) == {row["path"] for row in rows[:-1]}
    assert set(manifest["patient"]) == {row["patient"] for row in rows[:-1]}
    assert read_table(out / "quarantine.csv", QUARANTINE)["path"].tolist() == ["+missing.png"]
