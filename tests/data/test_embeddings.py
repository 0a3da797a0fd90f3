"""Embeddings are read as they were written; damaged, foreign and reordered ones are refused in one line."""

import json
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import h5py
import numpy as np
import pytest

from octdino.data import disk_space
from octdino.data.atomic_files import DeferringFile
from octdino.data.cohort_reader import Cohort, read_cohort
from octdino.data.embeddings import EmbeddingAttributes, read_embeddings, write_embeddings
from octdino.errors import UserError
from tests.small import write_small_cohort


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return read_cohort(write_small_cohort(tmp_path_factory.mktemp("cohort"), patients=8, scans=4))


def features_of(cohort: Cohort) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(len(cohort), 5)).astype(np.float32)


def attributes_of(cohort: Cohort, pretrained: str | None = None) -> EmbeddingAttributes:
    return EmbeddingAttributes(
        init="dino", backbone="b", model={"timm": "resnet18", "args": {}}, readout="layers", pooled=2, size=32,
        channels=1, mean=[0.2], std=[0.1], fold=0, seed=3, source=cohort.source, pretrained=pretrained,
        settings={"size": None}, octdino="0.1.0",
    )  # fmt: skip


@pytest.fixture
def path(cohort: Cohort, tmp_path: Path) -> Path:
    found = features_of(cohort)
    write_embeddings(
        tmp_path / "embeddings.h5", cohort.manifest["scan_id"].tolist(), [found[:20], found[20:]], attributes_of(cohort)
    )
    return tmp_path / "embeddings.h5"


@pytest.mark.parametrize("pretrained", [None, "0" * 64])
def test_what_is_written_is_read(cohort: Cohort, tmp_path: Path, pretrained: str | None) -> None:
    attributes, ids = attributes_of(cohort, pretrained), cohort.manifest["scan_id"].tolist()
    write_embeddings(tmp_path / "e.h5", ids, [features_of(cohort)], attributes)
    read = read_embeddings(tmp_path / "e.h5", cohort)
    np.testing.assert_array_equal(read.features, features_of(cohort))
    np.testing.assert_array_equal(read.pooled, features_of(cohort)[:, 3:])
    assert read.attributes == attributes
    assert [path.name for path in tmp_path.iterdir()] == ["e.h5"]


@pytest.mark.parametrize("block", [1, 3, 7, 8192])
def test_any_rows_are_read_in_blocks(cohort: Cohort, path: Path, block: int) -> None:
    for rows in (np.array([], int), np.array([0]), np.array([3, 4, 9, 31]), np.arange(32)):
        with patch("octdino.data.embeddings.BLOCK", block):
            np.testing.assert_array_equal(read_embeddings(path, cohort, rows).features, features_of(cohort)[rows])


def test_the_same_features_are_the_same_bytes(cohort: Cohort, path: Path, tmp_path: Path) -> None:
    write_embeddings(
        tmp_path / "again.h5", cohort.manifest["scan_id"].tolist(), [features_of(cohort)], attributes_of(cohort)
    )
    assert (tmp_path / "again.h5").read_bytes() == path.read_bytes()


def dataset(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[h5py.File], None]:
    """Replace a dataset by what `change` makes of it."""

    def apply(file: h5py.File) -> None:
        values = file[name][:]
        del file[name]
        file[name] = change(values)

    return apply


def set_nan(file: h5py.File) -> None:
    file["features"][7, 2] = np.nan


def swap(ids: np.ndarray) -> np.ndarray:
    ids[[2, 3]] = ids[[3, 2]]
    return ids


def link(file: h5py.File) -> None:
    del file["features"]
    file["features"] = h5py.ExternalLink("elsewhere.h5", "features")


DAMAGE: dict[str, tuple[Callable[[h5py.File], None], str]] = {
    "not finite": (set_nan, "features hold numbers that are not finite"),
    "wrong order": (dataset("scan_id", swap), "row 2 is of scan p0-3, manifest.csv has p0-2 there"),
    "fewer scans": (
        lambda file: (dataset("scan_id", lambda ids: ids[:9])(file), dataset("features", lambda x: x[:9])(file))[0],
        "features of 9 scans, manifest.csv has 32",
    ),
    "ids of another number": (dataset("scan_id", lambda ids: ids[:9]), "scan_id: expected 32 texts"),
    "ids are numbers": (dataset("scan_id", lambda ids: np.arange(len(ids))), "scan_id: expected 32 texts"),
    "another type": (dataset("features", lambda x: x.astype(np.float64)), r"features: expected float32 \[N, D\]"),
    "another shape": (dataset("features", lambda x: x[:, 0]), r"features: expected float32 \[N, D\]"),
    "no dimension": (dataset("features", lambda x: x[:, :0]), r"features: expected float32 \[N, D\]"),
    "in another file": (link, r"features: expected float32 \[N, D\]"),
    "no features": (lambda file: file.pop("features"), r"features: expected float32 \[N, D\]"),
    "another store": (lambda file: file.attrs.create("source", "x"), "another content hash"),
    "another version": (lambda file: file.attrs.create("version", 9), "version: 9 is not allowed"),
    "more pooled columns than there are": (lambda file: file.attrs.create("pooled", 6), "pooled: 6 of 5 columns"),
    "no attribute": (lambda file: file.attrs.pop("seed"), "attributes: seed: missing"),
    "model is no JSON": (lambda file: file.attrs.create("model", "{"), "attribute model: no JSON"),
    "std of other channels": (lambda file: file.attrs.create("std", [0.1, 0.1]), r"std: 2 values for 1 channel\(s\)"),
    "no hash": (lambda file: file.attrs.create("pretrained", "abc"), "pretrained: 'abc' is not allowed"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_one_line(damage: str, cohort: Cohort, path: Path) -> None:
    change, line = DAMAGE[damage]
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(UserError, match=line) as error:
        read_embeddings(path, cohort)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"x" * 5000, None])
def test_bytes_that_are_no_hdf5(content: bytes | None, cohort: Cohort, path: Path) -> None:
    path.write_bytes(path.read_bytes()[:3000] if content is None else content)
    with pytest.raises(UserError, match=r"embeddings\.h5: "):
        read_embeddings(path, cohort)


def test_a_missing_file_names_the_command(cohort: Cohort, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"e\.h5: no such file; `octdino embed` writes it"):
        read_embeddings(tmp_path / "e.h5", cohort)


def test_another_cohort_is_refused(path: Path, tmp_path: Path) -> None:
    other = read_cohort(write_small_cohort(tmp_path / "other", patients=8, scans=4, seed=1))
    with pytest.raises(UserError, match="another content hash"):
        read_embeddings(path, other)


@pytest.mark.parametrize(
    ("run", "line"),
    [
        (("simclr", "b", 0), "of init dino, expected init simclr"),
        (("dino", "c", 0), "backbone b, expected"),
        (("dino", "b", 2), "fold 0, expected fold 2"),
    ],
)
def test_another_run_is_refused(cohort: Cohort, path: Path, run: tuple[str, str, int], line: str) -> None:
    read = read_embeddings(path, cohort)
    read.check_run("dino", "b", 0)
    with pytest.raises(UserError, match=line):
        read.check_run(*run)


def test_features_that_are_not_finite_leave_no_file(cohort: Cohort, tmp_path: Path) -> None:
    found = features_of(cohort)
    found[30] = np.inf
    with pytest.raises(UserError, match="features of dino are not finite; its training diverged"):
        write_embeddings(
            tmp_path / "e.h5", cohort.manifest["scan_id"].tolist(), [found[:20], found[20:]], attributes_of(cohort)
        )
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_told_before_and_while_writing(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = cohort.manifest["scan_id"].tolist()
    with monkeypatch.context() as patched:
        patched.setattr(disk_space.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 100}))
        with pytest.raises(UserError, match=r"672 bytes needed for e\.h5, 100 bytes free"):
            write_embeddings(tmp_path / "e.h5", ids, [features_of(cohort)], attributes_of(cohort))
    write = DeferringFile.write

    def full(self: DeferringFile, data: bytes) -> int:
        self.error = self.error or OSError(28, "No space left on device")
        return write(self, data)

    monkeypatch.setattr(DeferringFile, "write", full)
    with pytest.raises(UserError, match=r"e\.h5: cannot be written: No space left on device"):
        write_embeddings(tmp_path / "e.h5", ids, [features_of(cohort)], attributes_of(cohort))
    assert not list(tmp_path.iterdir())


def test_settings_are_json(path: Path) -> None:
    with h5py.File(path) as file:
        assert json.loads(file.attrs["settings"]) == {"size": None}
        assert isinstance(file.attrs["pretrained"], h5py.Empty)
