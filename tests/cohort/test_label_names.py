"""A label may have any name that no file gives another meaning: also that of a column which a reader uses itself."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from octdino.cohort.folder import read_folder
from octdino.cohort.ingest import build_cohort
from octdino.data.cohort_reader import read_cohort
from octdino.errors import UserError

from .trees import picture, settings

# Columns of the tables that readers, ingest, split and duplicates work on; words that pandas takes for missing.
INTERNAL = [
    "row",
    "known",
    "digest",
    "position",
    "width",
    "height",
    "table_path",
    "given_split",
    "id_path",
    "index",
    "truth",
]
INTERNAL += ["record", "(row)", "level_0", "0", "NA", "None", "nan", "null", "N/A", "<NA>", "true", "prob", "Macro"]


def table_of(root: Path, columns: list[str], scans: int = 24) -> pd.DataFrame:
    """A table of scans of patients with random labels, its images below root."""
    rng = np.random.default_rng(0)
    root.mkdir(exist_ok=True)
    for number in range(scans):
        Image.fromarray(picture(number)).save(root / f"{number}.png")
    table = pd.DataFrame({"path": [f"{i}.png" for i in range(scans)], "patient": [f"p{i // 2}" for i in range(scans)]})
    labels = pd.DataFrame(rng.integers(0, 2, (scans, len(columns))), columns=columns)
    table = pd.concat([table, labels], axis=1)
    table.to_csv(root / "scans.csv", index=False)
    return table


@pytest.mark.parametrize("named", [False, True])
def test_labels_named_as_internal_columns_keep_their_values(tmp_path: Path, named: bool) -> None:
    table = table_of(tmp_path / "files", INTERNAL)
    chosen = settings(tmp_path / "files", "folder", labels=INTERNAL if named else None)
    build_cohort(chosen, tmp_path / "out")
    found = read_cohort(tmp_path / "out" / "scans.h5")
    assert found.labels == INTERNAL
    place = pd.Index(table["path"]).get_indexer(found.manifest["path"])
    np.testing.assert_array_equal(found.truth, table[INTERNAL].to_numpy()[place])


def test_class_folders_named_as_internal_columns(tmp_path: Path) -> None:
    names = ["known", "row", "digest", "None"]
    for number in range(24):
        folder = tmp_path / "files" / names[number % 4]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(number)).save(folder / f"{number}.png")
    build_cohort(settings(tmp_path / "files", "folder"), tmp_path / "out")
    found = read_cohort(tmp_path / "out" / "scans.h5")
    assert found.labels == sorted(names)
    shown = [found.labels[row.argmax()] for row in found.truth]
    assert shown == [path.split("/")[0] for path in found.manifest["path"]]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("macro", "means the mean over labels"),
        ("weighted", "means the mean over labels"),
        ("prob:A", "begins with 'prob:'"),
        ("group", "is a column of manifest.csv"),
        ("scan_id", "is a column of manifest.csv"),
        ("pixel_hash", "is a column of manifest.csv"),
    ],
)
@pytest.mark.parametrize("named", [False, True])
def test_reserved_names_are_refused_when_the_table_is_read(tmp_path: Path, name: str, why: str, named: bool) -> None:
    table_of(tmp_path / "files", ["A", name], scans=6)
    with pytest.raises(UserError, match=f"label '{name}' {why}"):
        read_folder(settings(tmp_path / "files", "folder", labels=["A", name] if named else None))


@pytest.mark.parametrize("twice", [["A", "A"], ["A", "a"]])
def test_a_label_named_twice_is_refused(tmp_path: Path, twice: list[str]) -> None:
    table_of(tmp_path / "files", ["A"], scans=6)
    with pytest.raises(UserError, match=r"cohort\.labels: label 'A' occurs twice"):
        read_folder(settings(tmp_path / "files", "folder", labels=twice))


def test_names_that_differ_in_case_are_two_labels(tmp_path: Path) -> None:
    table = table_of(tmp_path / "files", ["A", "a"], scans=6)
    rows = read_folder(settings(tmp_path / "files", "folder", labels=["A", "a"]))
    assert rows.truth.to_numpy().tolist() == table[["A", "a"]].to_numpy().tolist()


def test_a_column_without_a_name_is_named_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table_of(tmp_path / "files", ["A", "", "B"], scans=6)
    assert read_folder(settings(tmp_path / "files", "folder")).labels == ["A", "B"]
    assert "scans.csv: column 4: no name, ignored" in caplog.text
