"""The reader of the published form: on the real tables without pixels, and on small trees with each kind of flaw."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import octdino.cohort.file_index
from octdino.cohort.olives import read_olives
from octdino.cohort.scan_table import ScanTable
from octdino.errors import UserError

from ..trees import BIOMARKERS, PATH, OlivesTree, olives_tree, settings

# Positives among the 9,408 labeled scans, counted by others on the published table.
POSITIVES = [166, 604, 32, 373, 6341, 2984, 5222, 807, 2836, 10, 3003, 4088, 233, 10, 10, 76]


@pytest.fixture(scope="module")
def real_rows(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> ScanTable:
    """The real tables over a tree that only pretends to hold their 78,283 files."""
    root = tmp_path_factory.mktemp("olives")
    labels = shared_data / "olives" / "Biomarker_Clinical_Data_Images.csv"
    clinical = pd.read_excel(shared_data / "olives" / "Training_Unlabeled_Clinical_Data.xlsx")
    clinical.to_csv(root / "clinical.csv", index=False)  # reading the workbook once is slow enough
    paths = {*pd.read_csv(labels)[PATH], *clinical["File_Path"]}
    folders: dict[str, list[str]] = {}
    for path in sorted(paths):
        folder, name = path.lstrip("/").rsplit("/", 1)
        folders.setdefault(f"OLIVES/{folder}/", []).append(name)

    def listing(_: Path) -> Iterator[tuple[str, list[str], list[str]]]:
        yield "", ["OLIVES"], []
        yield "OLIVES/", ["Prime_FULL", "TREX DME"], []
        for folder, files in folders.items():
            yield folder, [], files

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(octdino.cohort.file_index, "_listing", listing)
        return read_olives(settings(root, table=labels, clinical=root / "clinical.csv"))


def test_real_tables_give_the_published_counts(real_rows: ScanTable) -> None:
    scans = real_rows.scans.join(real_rows.truth)
    assert real_rows.labels == BIOMARKERS
    assert not real_rows.quarantine.rows
    assert len(scans) == 78_283
    labeled = scans[scans[BIOMARKERS].notna().any(axis=1)]
    assert len(labeled) == 9_408
    assert scans["patient"].nunique() == 87
    assert scans["eye"].nunique() == 96
    assert labeled.groupby(["eye", "visit"]).ngroups == 192
    assert set(labeled.groupby(["eye", "visit"]).size()) == {49}
    assert [int(labeled[name].sum()) for name in BIOMARKERS] == POSITIVES
    assert labeled[BIOMARKERS].isna().to_numpy().sum() == 19
    assert labeled[BIOMARKERS].isna().any(axis=1).sum() == 12
    assert scans["bcva"].isna().sum() == scans["cst"].isna().sum() == 49
    assert Counter(scans["flags"]) == {"": 78_185, "laterality_clash": 98}
    assert scans["scan_id"].is_unique
    assert scans["path"].is_unique


def test_real_scans_that_clash_are_kept_with_their_values(real_rows: ScanTable) -> None:
    clash = real_rows.scans.join(real_rows.truth)[real_rows.scans["flags"] == "laterality_clash"]
    assert set(clash["patient"]) == {"79"}
    assert set(clash["visit"]) == {"W0", "W52"}
    assert set(clash["laterality"]) == {"OD"}
    assert clash[["bcva", "cst", *BIOMARKERS]].notna().all(axis=None)


def test_real_rows_say_what_the_path_says(real_rows: ScanTable) -> None:
    scans = real_rows.scans.set_index("table_path")
    first = scans.loc["/TREX DME/GILA/0201GOD/V1/OD/TREXJ_000000.tif"]
    assert first["path"] == "OLIVES/TREX DME/GILA/0201GOD/V1/OD/TREXJ_000000.tif"
    assert first["scan_id"] == "olives-TREX_DME-GILA-0201GOD-V1-OD-TREXJ_000000"
    want = {"patient": "201", "eye": "1", "visit": "V1", "slice": 1, "laterality": "OD", "trial": "TREX", "row": 2}
    assert {name: first[name] for name in want} == want
    assert (first["bcva"], first["cst"]) == (61, 575)
    last = scans.loc["/Prime_FULL/02-046/W104/OD/48.tif"]
    assert (last["trial"], last["visit"], last["slice"]) == ("PRIME", "W104", 49)
    assert scans["trial"].value_counts().to_dict() == {"TREX": 45_848, "PRIME": 32_435}
    labeled = real_rows.truth["IR HRF"].notna().to_numpy()
    assert labeled[:9_408].all()  # table order, the labeled first


def read(tree: OlivesTree, root: Path, nested: str = "", **changes: object) -> ScanTable:
    return read_olives(settings(tree.write(root, nested), **changes))


def reasons(rows: ScanTable) -> list[str]:
    return [refused["reason"] for refused in rows.quarantine.rows]


@pytest.mark.parametrize("nested", ["", "OLIVES", "data/OLIVES"])
def test_tree_is_found_wherever_it_lies(tmp_path: Path, nested: str) -> None:
    rows = read(olives_tree(), tmp_path, nested)
    assert len(rows.scans) == 8 * 3 * 3
    assert not rows.quarantine.rows
    assert all((tmp_path / path).is_file() for path in rows.scans["path"])
    assert set(rows.scans["flags"]) == {""}


def test_files_that_no_table_names_are_no_scans(tmp_path: Path) -> None:
    tree = olives_tree()
    tree.pictures["/TREX DME/GILA/0201GOD/V1/OS/TREXJ_000000.tif"] = np.ones((4, 4), np.uint8)
    tree.pictures["/TREX DME/GILA/0201GOD/V1/OD/fundus_OD_V1.tif"] = np.ones((4, 4), np.uint8)
    assert len(read(tree, tmp_path).scans) == 72


def test_masks_mirror_the_tree(tmp_path: Path) -> None:
    tree = olives_tree()
    tree.pictures["/masks/TREX DME/GILA/0201GOD/V1/OD/TREXJ_000000.png"] = np.ones((4, 4), np.uint8)
    rows = read(tree, tmp_path, "OLIVES")
    assert rows.scans["mask"].iloc[0] == "OLIVES/masks/TREX DME/GILA/0201GOD/V1/OD/TREXJ_000000.png"
    assert (rows.scans["mask"] == "").sum() == 71


def test_missing_labels_stay_missing(tmp_path: Path) -> None:
    tree = olives_tree()
    tree.labels[0]["DRIL"] = None
    tree.labels[1]["DRIL"] = "NaN"
    tree.labels[2]["DRIL"] = "1.0"
    rows = read(tree, tmp_path)
    assert rows.truth["DRIL"].isna().sum() == 2 + 8 * 3
    assert rows.truth["DRIL"].iloc[2] == 1


@pytest.mark.parametrize(
    ("change", "reason", "detail"),
    [
        ({"DRIL": 2}, "bad_label", "row 2: DRIL: '2', expected 0, 1 or empty"),
        ({"DRIL": "yes"}, "bad_label", "row 2: DRIL: 'yes'"),
        ({"DRIL": 0.5}, "bad_label", "row 2: DRIL: '0.5'"),
        ({"BCVA": "20/40"}, "bad_value", "row 2: BCVA: '20/40', expected a number from 0 to 100"),
        ({"CST": -3}, "bad_value", "row 2: CST: '-3', expected a number from 50 to 2000"),
        ({"Patient_ID": None}, "missing_patient", "row 2: Patient_ID is empty"),
        ({"Patient_ID": 999}, "missing_patient", "Patient_ID 999 in row 2 of the biomarker table, 201 in row 2"),
        ({PATH: "/TREX DME/../../etc/V1/OD/0.tif"}, "bad_path", "leaves the root"),
        ({PATH: "/TREX DME/0.tif"}, "bad_path", "expected {trial}"),
        ({PATH: "/TREX DME/GILA/0201GOD/V1/OD/none.tif"}, "missing_file", "no file TREX DME/GILA"),
        ({PATH: None}, "missing_path", "row 2: the path is empty"),
    ],
)
def test_a_bad_row_is_refused_with_its_reason(tmp_path: Path, change: dict, reason: str, detail: str) -> None:
    tree = olives_tree()
    tree.labels[0].update(change)
    rows = read(tree, tmp_path)
    assert reasons(rows) == [reason]
    assert detail in rows.quarantine.rows[0]["detail"]
    assert rows.quarantine.rows[0]["row"] == 2
    lost = "Patient" in str(change) or reason in ("bad_label", "bad_value")  # else the clinical table still names it
    assert len(rows.scans) == (71 if lost else 72)


def test_a_path_named_twice(tmp_path: Path) -> None:
    tree = olives_tree()
    tree.labels.append(dict(tree.labels[3]))
    tree.clinical.append(
        dict(tree.clinical[-1], File_Path=str(tree.clinical[-1]["File_Path"]).upper().replace("TIF", "tif"))
    )
    rows = read(tree, tmp_path)
    assert reasons(rows) == ["duplicate_path"] * 2
    assert "named in row 5" in rows.quarantine.rows[0]["detail"]
    assert len(rows.scans) == 72


def test_other_case_and_separators_are_resolved_and_flagged(tmp_path: Path) -> None:
    tree = olives_tree()
    tree.labels[0][PATH] = tree.labels[0][PATH].replace("/", "\\")
    tree.labels[1][PATH] = tree.labels[1][PATH].lower()
    tree.labels[2][PATH] = tree.labels[2][PATH].lstrip("/")
    rows = read(tree, tmp_path)
    assert not rows.quarantine.rows
    assert len(rows.scans) == 72
    assert rows.scans["flags"].tolist() == ["path_changed"] * 2 + [""] * 70
    assert (tmp_path / rows.scans["path"].iloc[1]).is_file()


def test_ambiguous_case_is_refused(tmp_path: Path) -> None:
    tree = olives_tree()
    path = tree.labels[0][PATH]
    tree.pictures[path.replace("TREXJ", "trexj")] = np.ones((4, 4), np.uint8)
    tree.labels[0][PATH] = path.replace("TREXJ", "TrexJ")
    rows = read(tree, tmp_path)
    assert reasons(rows) == ["bad_path"]
    assert "differ only in case" in rows.quarantine.rows[0]["detail"]


def test_renamed_tree_is_found(tmp_path: Path) -> None:
    tree = olives_tree()
    tree.pictures = {path.replace("TREX DME", "TREX_DME"): p for path, p in tree.pictures.items()}
    rows = read(tree, tmp_path)
    assert not rows.quarantine.rows
    assert set(rows.scans["flags"]) == {"", "path_changed"}


def test_one_tree_missing_refuses_its_rows(tmp_path: Path) -> None:
    tree = olives_tree()
    tree.pictures = {path: p for path, p in tree.pictures.items() if "TREX" in path}
    rows = read(tree, tmp_path)
    assert set(reasons(rows)) == {"missing_file"}
    assert len(rows.scans) == len(rows.quarantine.rows) == 36


def test_clinical_values_join_by_path(tmp_path: Path) -> None:
    tree = olives_tree()
    tree.clinical[0].update(BCVA=None, CST=None)
    tree.clinical[1]["BCVA"] = 33
    rows = read(tree, tmp_path)
    assert rows.scans["bcva"].tolist()[:2] == [61, 33]
    assert rows.scans["flags"].tolist()[:2] == ["", "table_clash"]
    assert rows.scans["cst"].notna().all()


def test_laterality_clash_is_flagged_not_lost(tmp_path: Path) -> None:
    tree = olives_tree()
    for row in tree.clinical[:9]:
        row["File_Path"] = row["File_Path"].replace("/OD/", "/OS/")
        tree.pictures[row["File_Path"]] = np.ones((4, 4), np.uint8)
    rows = read(tree, tmp_path)
    assert len(rows.scans) == 72 + 6
    assert Counter(rows.scans["flags"]) == {"": 72, "laterality_clash": 6}
    assert rows.scans["bcva"].notna().all()


@pytest.mark.parametrize("column", ["DRIL", "Patient_ID", PATH])
def test_missing_column(tmp_path: Path, column: str) -> None:
    tree = olives_tree()
    for row in tree.labels:
        del row[column]
    with pytest.raises(UserError, match=r"Biomarker_Clinical_Data_Images.csv: no column '") as caught:
        read(tree, tmp_path)
    assert column in str(caught.value)


def test_columns_are_read_by_name(tmp_path: Path) -> None:
    tree = olives_tree()
    expected = read(tree, tmp_path / "a").scans
    tree.labels = [dict(reversed(list(row.items())), extra="x") for row in tree.labels]
    assert read(tree, tmp_path / "b").scans.equals(expected)


def test_missing_root_tables_and_tree(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        read_olives(settings(tmp_path / "none"))
    with pytest.raises(UserError, match=r"no table Biomarker_Clinical_Data_Images.csv below it.*cohort.table"):
        read_olives(settings(tmp_path))
    root = olives_tree().write(tmp_path / "tree")
    (root / "Clinical_Data_Images.xlsx").rename(tmp_path / "other.xlsx")
    with pytest.raises(UserError, match=r"no table Clinical_Data_Images.xlsx below it.*cohort.clinical"):
        read_olives(settings(root))
    assert len(read_olives(settings(root, clinical=tmp_path / "other.xlsx")).scans) == 72
    tree = olives_tree()
    tree.pictures = {"/elsewhere/a.png": np.ones((4, 4), np.uint8)}
    with pytest.raises(UserError, match="no folder 'Prime_FULL' or 'TREX DME' below it"):
        read(tree, tmp_path / "empty")


def test_tables_that_are_there_twice(tmp_path: Path) -> None:
    root = olives_tree().write(tmp_path)
    table = root / "Biomarker_Clinical_Data_Images.csv"
    (root / "full_labels").mkdir()
    copy = root / "full_labels" / table.name
    copy.write_bytes(table.read_bytes())
    assert len(read_olives(settings(root)).scans) == 72
    copy.write_text(table.read_text() + "\n")
    with pytest.raises(UserError, match="tables that differ"):
        read_olives(settings(root))
    assert len(read_olives(settings(root, table=table)).scans) == 72


def test_two_trees_of_one_name(tmp_path: Path) -> None:
    tree = olives_tree()
    tree.write(tmp_path, "a")
    tree.write(tmp_path, "b")
    with pytest.raises(UserError, match=r"two folders '.*a/.*b/"):
        read_olives(settings(tmp_path))
