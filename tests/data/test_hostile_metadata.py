"""Values in cards, tables and states that pass as JSON or CSV, and that no stage may trip over."""

import json
from pathlib import Path
from typing import Any

import h5py
import pytest

from octdino.data.cohort_reader import read_cohort
from octdino.data.csv_io import read_table, write_table
from octdino.data.schemas.csv_schemas import MANIFEST, SPLITS
from octdino.errors import UserError
from octdino.report.results_reader import read_results
from tests.results import write_cohort, write_pretraining
from tests.small import write_small_cohort


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("alarms", 5),
        ("settings", "x"),
        ("settings", {"epochs": "many"}),
        ("images_seen", "x"),
        ("start", {"cohort": "c"}),
        ("epochs", 3),
        ("method", [1]),
        ("method", {"positives": 5}),
        ("skipped_steps", -1),
    ],
)
def test_a_pretrainings_card_that_the_page_cannot_show_is_one_line(tmp_path: Path, key: str, value: Any) -> None:
    write_cohort(tmp_path / "cohort")
    path = write_pretraining(tmp_path / "pretrain", "dino") / "backbone.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(UserError, match=rf"backbone\.json: {key}") as caught:
        read_results(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("number", ["1e19", "1e300", "9" * 400, "1.5"])
@pytest.mark.parametrize("column", ["slice", "rank"])
def test_numbers_that_are_no_int64_are_one_line(tmp_path: Path, column: str, number: str) -> None:
    store = write_small_cohort(tmp_path, patients=10, scans=1, size=16)
    path, schema = (store.with_name("manifest.csv"), MANIFEST) if column == "slice" else (
        store.with_name("splits.csv"), SPLITS)  # fmt: skip
    lines = path.read_text().splitlines()
    cells = lines[1].split(",")
    cells[lines[0].split(",").index(column)] = number
    path.write_text("\n".join([lines[0], ",".join(cells), *lines[2:]]) + "\n")
    with pytest.raises(UserError, match=rf"row 2: {column} is .*; expected a whole number"):
        read_table(path, schema)


@pytest.mark.parametrize("both", [0, 1])
def test_labels_that_exclude_each_other_still_do_when_they_are_read(tmp_path: Path, both: int) -> None:
    store = write_small_cohort(tmp_path, exclusive=True)
    path = store.with_name("manifest.csv")
    table = read_table(path, MANIFEST)
    row = int(table["square"].first_valid_index())
    table.loc[row, ["square", "stripes"]] = both
    write_table(path, table, MANIFEST)
    with pytest.raises(UserError, match=rf"manifest\.csv: row {row + 2}: scan .* has {2 * both} positive labels"):
        read_cohort(store)


def test_split_groups_are_those_of_the_manifest(tmp_path: Path) -> None:
    store = write_small_cohort(tmp_path)
    path = store.with_name("splits.csv")
    write_table(path, read_table(path, SPLITS).assign(group="same"), SPLITS)
    with pytest.raises(UserError, match=r"splits\.csv: patient p0 is in group same, and in p0 in manifest\.csv"):
        read_cohort(store)


def test_settings_of_a_store_that_nest_without_end_are_one_line(tmp_path: Path) -> None:
    store = write_small_cohort(tmp_path, patients=10, scans=1, size=16)
    with h5py.File(store, "r+") as file:
        del file.attrs["settings"]
        file.create_dataset("x", data=0)
        file.attrs["settings"] = "[" * 30_000
    with pytest.raises(UserError, match=r"scans\.h5: attribute settings: no JSON"):
        read_cohort(store)
