"""Manifest, splits and store that do not belong together are refused by every verb, with one line and exit code 2."""

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

import octdino.data.store
from octdino.cli import main
from octdino.data.cohort_reader import read_cohort
from octdino.data.csv_io import read_table
from octdino.data.schemas.csv_schemas import MANIFEST
from octdino.errors import UserError
from tests.small import LABELS, store_attributes, write_small_cohort

RUN = ["--store", "cohort/scans.h5", "--backbone", "resnet18", "--out", "out"]
VERBS = {
    "pretrain": ["pretrain", "dino", *RUN],
    "embed": ["embed", "scratch", *RUN],
    "probe": ["classify", "scratch-linear", *RUN, "--embeddings", "embeddings.h5"],
    "finetune": ["classify", "scratch-finetune", *RUN],
    "clinical": ["clinical", "--store", "cohort/scans.h5", "--out", "out"],
    "explain": ["explain", "scratch", *RUN, "--embeddings", "embeddings.h5"],
    "evaluate": ["evaluate", "arm", "--manifest", "cohort/manifest.csv", "--out", "out"],
    "audit": ["audit", "--store", "cohort/scans.h5", "--out", "out"],
    "report": ["report", "--results", ".", "--out", "out/report.html"],
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_cohort(tmp_path_factory.mktemp("sound"), patients=10, scans=4).parent


@pytest.fixture
def cohort(sound: Path, tmp_path: Path) -> Path:
    """A copy that may be changed, with a file of embeddings beside it."""
    (tmp_path / "embeddings.h5").touch()
    return Path(shutil.copytree(sound, tmp_path / "cohort"))


def cell(table: str, column: str, value: object, row: int = 1) -> Callable[[Path], None]:
    """Another value in one cell."""

    def edit(folder: Path) -> None:
        found = pd.read_csv(folder / table, dtype=object, keep_default_na=False)
        found.loc[row, column] = value
        found.to_csv(folder / table, index=False)

    return edit


def rows(table: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], None]:
    """Other rows of a table."""

    def edit(folder: Path) -> None:
        found = pd.read_csv(folder / table, dtype=object, keep_default_na=False)
        change(found).to_csv(folder / table, index=False)

    return edit


def store(order: Callable[[int], np.ndarray]) -> Callable[[Path], None]:
    """The same store with rows in another order, fewer or more."""

    def edit(folder: Path) -> None:
        with h5py.File(folder / "scans.h5", "r+") as file:
            for name in ("images", "scan_id", "moments", "boxes"):
                values = file[name][:]
                del file[name]
                file[name] = values[order(len(values))]

    return edit


def foreign_store(folder: Path) -> None:
    """A store of another cohort with as many scans of the same names."""
    other = write_small_cohort(folder.parent / "other", patients=10, scans=4, seed=1)
    shutil.copy(other, folder / "scans.h5")


def missing_patient(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["patient"] != "p2"]


def splits_text(text: str) -> Callable[[Path], None]:
    """Another splits.csv."""

    def edit(folder: Path) -> None:
        (folder / "splits.csv").write_text(text)

    return edit


SHUFFLED = np.random.default_rng(0).permutation
Attacks = dict[str, tuple[Callable[[Path], None], str]]
FOREIGN: Attacks = {
    "shuffled manifest": (
        rows("manifest.csv", lambda t: t.sample(frac=1, random_state=0)), "scans are not those of manifest.csv"
    ),
    "permuted store": (store(SHUFFLED), "scans.h5: its scans are not those of manifest.csv"),
    "store too short": (store(lambda n: np.arange(n - 1)), "39 scans, and 40 in manifest.csv"),
    "store too long": (store(lambda n: np.append(np.arange(n), 0)), "41 scans, and 40 in manifest.csv"),
    "another cohort's store": (foreign_store, "images are not those of manifest.csv beside it: another content hash"),
    "patient missing": (rows("splits.csv", missing_patient), "splits.csv: patient p2 is in manifest.csv and not in"),
    "label 5": (cell("manifest.csv", "square", 5), "manifest.csv: row 3: square is 5; expected 0, 1 or empty"),
}  # fmt: skip
BROKEN: Attacks = {
    "manifest too short": (rows("manifest.csv", lambda t: t.iloc[:-1]), "40 scans, and 39 in manifest.csv"),
    "another path": (cell("manifest.csv", "path", "elsewhere.png"), "another content hash"),
    "label 0.5": (cell("manifest.csv", "square", 0.5), "row 3: square is 0.5; expected 0, 1 or empty"),
    "label inf": (cell("manifest.csv", "square", "inf"), "row 3: square is inf; expected 0, 1 or empty"),
    "label -1": (cell("manifest.csv", "square", -1), "row 3: square is -1; expected 0, 1 or empty"),
    "label yes": (cell("manifest.csv", "square", "yes"), "row 3: square is 'yes'; expected 0, 1 or empty"),
    "scan twice": (cell("manifest.csv", "scan_id", "p0-0"), "row 3: scan_id p0-0 occurs in two rows"),
    "no patient": (cell("manifest.csv", "patient", ""), "row 3: patient is empty"),
    "split tset": (cell("manifest.csv", "split", "tset"), "row 3: split is 'tset'; expected train, val or test"),
    "another split": (cell("manifest.csv", "split", "test"), "scan p0-1 of patient p0 is in test; splits.csv has this"),
    "bcva inf": (cell("manifest.csv", "bcva", "inf"), "row 3: bcva is inf; expected a number"),
    "cst text": (cell("manifest.csv", "cst", "thick"), "row 3: cst is 'thick'; expected a number"),
    "slice 1.5": (cell("manifest.csv", "slice", 1.5), "row 3: slice is 1.5; expected a whole number"),
    "label macro": (rows("manifest.csv", lambda t: t.assign(macro=0)), "'macro', means the mean over labels"),
    "label prob:": (rows("manifest.csv", lambda t: t.assign(**{"prob:square": 0})), "of predicted probabilities"),
    "no name": (rows("manifest.csv", lambda t: t.assign(**{"": 0})), "'', has no name"),
    "splits tset": (cell("splits.csv", "split", "tset"), "splits.csv: row 3: split is 'tset'; expected train"),
    "patient twice": (rows("splits.csv", lambda t: pd.concat([t, t[:1]])), "splits.csv: row 12: fold 0, patient p0"),
    "unknown patient": (cell("splits.csv", "patient", "p99", 9), "splits.csv: patient p9 is in manifest.csv and not"),
    "rank -1": (cell("splits.csv", "rank", -1), "splits.csv: row 3: rank is -1; expected a whole number from 0"),
    "a cell too many": (splits_text("fold,patient,group,split,rank\n0,a,a,val,,1\n"), "more cells than the header"),
    "column twice": (splits_text("fold,fold,patient,group,split,rank\n"), "fold occurs twice"),
    "no row": (splits_text("fold,patient,group,split,rank\n"), "splits.csv: no fold 0"),
}  # fmt: skip


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("attack", FOREIGN)
def test_every_verb_refuses_files_that_do_not_belong_together(
    verb: str, attack: str, cohort: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    change, line = FOREIGN[attack]
    change(cohort)
    monkeypatch.chdir(cohort.parent)
    assert main(VERBS[verb]) == 2
    errors = [text for text in capsys.readouterr().err.splitlines() if text.startswith("octdino ")]
    assert len(errors) == 1
    assert line in errors[0]
    assert not (cohort.parent / "out").exists()


@pytest.mark.parametrize("attack", BROKEN)
def test_a_table_that_breaks_its_schema_is_refused(attack: str, cohort: Path) -> None:
    change, line = BROKEN[attack]
    change(cohort)
    with pytest.raises(UserError) as error:
        read_cohort(cohort / "scans.h5")
    assert line in str(error.value)


@pytest.mark.parametrize("verb", ["pretrain", "embed", "finetune", "explain", "audit"])
def test_images_without_their_names_are_known_by_their_moments(
    verb: str, cohort: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only the images are permuted: names, order and content hash are as they were."""
    with h5py.File(cohort / "scans.h5", "r+") as file:
        file["images"][:] = file["images"][:][SHUFFLED(len(file["images"]))]
    monkeypatch.chdir(cohort.parent)
    assert main(VERBS[verb]) == 2
    assert "is not the one that was written there" in capsys.readouterr().err


def test_labels_edited_between_stages_are_legal(cohort: Path) -> None:
    cell("manifest.csv", "square", 0)(cohort)
    cell("manifest.csv", "stripes", "")(cohort)
    found = read_cohort(cohort / "scans.h5")
    np.testing.assert_array_equal(found.truth[1], [0, np.nan])


def test_labeled_training_patients_that_no_arm_sees_are_named(cohort: Path, caplog: pytest.LogCaptureFixture) -> None:
    read_cohort(cohort / "scans.h5")
    assert not caplog.records
    cell("splits.csv", "rank", "")(cohort)
    read_cohort(cohort / "scans.h5")
    assert "1 labeled training patients have no rank, such as p1: no arm uses them" in caplog.text


def test_a_cohort_is_what_its_files_say(cohort: Path) -> None:
    found = read_cohort(cohort / "scans.h5")
    manifest = pd.read_csv(cohort / "manifest.csv")
    assert (len(found), found.name, found.labels, found.exclusive) == (40, "small", LABELS, False)
    assert found.split_of(0).tolist() == manifest["split"].tolist()
    assert found.image.size == (32, 32)
    with h5py.File(cohort / "scans.h5") as file:
        images = file["images"][:]
    train = (manifest["split"] == "train").to_numpy()
    mean, std = found.statistics(0)
    assert mean == pytest.approx([images[train].mean() / 255])
    assert std == pytest.approx([(images[train] / 255).std()])
    np.testing.assert_array_equal(found.images([3, 7, 39]), images[[3, 7, 39]])
    with pytest.raises(UserError, match=r"splits\.csv: no fold 1; expected one of 0"):
        found.split_of(1)


def test_images_are_read_when_they_are_asked_for(cohort: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    monkeypatch.setattr(octdino.data.store, "_read_sequentially", lambda _, wanted, out: read.append(len(wanted)))
    monkeypatch.setattr(octdino.data.store, "CHECKED", 0)
    found = read_cohort(cohort / "scans.h5")
    assert found.moments.shape == (40, 2, 1)
    assert not read
    found.images([1, 2])
    assert read == [2]


def test_tables_without_a_store_are_enough_for_tables(cohort: Path) -> None:
    (cohort / "scans.h5").unlink()
    with pytest.raises(UserError, match=r"scans\.h5: no such store"):
        read_cohort(cohort / "scans.h5")
    found = read_cohort(cohort / "scans.h5", needs_store=False)
    assert not found.has_store
    assert found.split_of(0).isin(["train", "val", "test"]).all()


def test_the_content_hash_is_over_how_images_were_made_too(cohort: Path) -> None:
    """Other image settings, same files: a run on one store does not resume on the other."""
    manifest = read_table(cohort / "manifest.csv", MANIFEST)
    one, other = (store_attributes(manifest, size)["source"] for size in (32, 48))
    assert one != other


@pytest.mark.parametrize("name", ["images", "scan_id", "moments", "boxes"])
def test_a_store_without_a_part_is_one_line(cohort: Path, name: str) -> None:
    with h5py.File(cohort / "scans.h5", "r+") as file:
        del file[name]
    with pytest.raises(UserError, match=rf"scans\.h5: no dataset {name}"):
        read_cohort(cohort / "scans.h5")


@pytest.mark.parametrize(
    ("attribute", "value", "line"),
    [("std", [0.0], "std.0: 0.0 is not allowed"), ("settings", "{", "no JSON"), ("settings", "{}", "image: missing")],
)
def test_attributes_of_a_store_are_checked(cohort: Path, attribute: str, value: object, line: str) -> None:
    with h5py.File(cohort / "scans.h5", "r+") as file:
        file.attrs[attribute] = value
    with pytest.raises(UserError) as error:
        read_cohort(cohort / "scans.h5")
    assert line in str(error.value)
