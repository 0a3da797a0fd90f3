"""Damaged JSON, safetensors, CSV, HDF5 and image files are refused in one line that names the file."""

import json
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from octdino.data.atomic_files import read_json, read_text
from octdino.data.csv_io import read_table
from octdino.data.safetensors_torch import read_tensors
from octdino.data.schemas.column import Schema
from octdino.data.schemas.csv_schemas import EMBEDDING, JACCARD, JACCARD_IMAGES, OVERLAP, RETRIEVAL, SPLITS
from octdino.data.store import read_header, read_images
from octdino.data.store_writer import StoreWriter
from octdino.errors import UserError
from octdino.scans.image_files import ImageError, read_image

ATTRIBUTES = {"mean": [0.5], "std": [0.2], "source": "x"}


def write_store(path: Path, count: int = 70) -> Path:
    with StoreWriter(path, 1, (6, 5)) as writer:
        for index in range(count):
            writer.append(np.full((1, 6, 5), index, np.uint8), f"scan-{index}")
        writer.finish(np.arange(count), ATTRIBUTES)
    return path


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "cannot be read as JSON"),
        (b"{", "cannot be read as JSON"),
        (b"[" * 100_000, "cannot be read as JSON"),
        (b"[]", "holds list, expected a JSON object"),
        (b"\xff\xfe{}", "not UTF-8 text"),
    ],
)
def test_a_file_that_is_no_json_object_is_refused(tmp_path: Path, content: bytes, line: str) -> None:
    path = tmp_path / "card.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read_json(path, "pretrain")
    assert str(error.value).startswith(f"{path}: ")
    assert line in str(error.value)


def test_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "none", tmp_path / "pipe"):
        for read in (read_text, read_json, read_tensors):
            with pytest.raises(UserError, match=r"no such file; `octdino pretrain` writes it"):
                read(path, "pretrain")


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 8 + b"{}", b"\x08\0\0\0\0\0\0\0{}      x", b"\2\0\0\0\0\0\0\0{", b"PK\3\4", b"x" * 99]
)
def test_a_file_that_is_no_safetensors_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.safetensors: not a safetensors file"):
        read_tensors(path, "pretrain")


def test_a_truncated_safetensors_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.arange(100.0)}, path)
    assert torch.equal(load_file(path)["a"], read_tensors(path, "x")["a"])
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"a\.safetensors: not a safetensors file"):
        read_tensors(path, "pretrain")


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 99, b"\xff\xfe", b"fold,patient\n1,2,3\n1\n1,2,3,4\n", b'fold,"patient\n', b"a,b\n1,2\n"]
)
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "splits.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"splits\.csv: "):
        read_table(path, SPLITS)


def spoil_store(path: Path, change: str) -> None:
    with h5py.File(path, "r+") as file:
        data = file["images"][:]
        if change in file.attrs:
            del file.attrs[change]
        elif change in file:
            del file[change]
        elif change == "channels":
            del file.attrs["mean"]
            file.attrs["mean"] = [0.1, 0.2]
        elif change == "version":
            file.attrs["version"] = "1"
        else:
            del file["images"]
            if change == "group":
                file.create_group("images")
            elif change == "sparse":  # petabytes that no byte stands for
                file.create_dataset("images", (10**12, 1, 64, 64), np.uint8, chunks=(64, 1, 64, 64))
            elif change == "elsewhere":
                file.create_dataset("images", data.shape, np.uint8, external=[("/etc/passwd", 0, data.size)])
            elif change == "linked":
                file["images"] = h5py.ExternalLink("other.h5", "images")
            else:
                file["images"] = {"float": data.astype(np.float32), "flat": data.ravel(), "fewer": data[:-1]}[change]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ("mean", "no attribute mean"),
        ("source", "no attribute source"),
        ("channels", "mean and std: expected float64 [1]"),
        ("version", "store version"),
        ("scan_id", "no dataset scan_id"),
        ("moments", "no dataset moments"),
        ("group", "no dataset images"),
        ("elsewhere", "no dataset images"),
        ("linked", "no dataset images"),
        ("float", "images: expected uint8 [N, C, H, W]"),
        ("flat", "images: expected uint8 [N, C, H, W]"),
        ("fewer", "scan_id: expected 69 texts"),
        ("sparse", "scan_id: expected 1000000000000 texts"),
    ],
)
def test_a_store_with_another_layout_is_refused(tmp_path: Path, change: str, line: str) -> None:
    path = write_store(tmp_path / "scans.h5")
    spoil_store(path, change)
    for read in (read_images, read_header):
        with pytest.raises(UserError) as error:
            read(path)
        assert str(error.value).startswith(f"{path}: ")
        assert line in str(error.value)


def test_a_store_whose_images_are_not_in_the_file(tmp_path: Path) -> None:
    path = write_store(tmp_path / "scans.h5")
    with h5py.File(path, "r+") as file:
        del file["images"]
        file.create_dataset("images", (70, 1, 10**6, 10**6), np.uint8, chunks=(1, 1, 1000, 1000))  # 64 TB
    with pytest.raises(UserError, match="images: not all of its bytes are in the file"):
        read_images(path)


def test_a_damaged_image_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / "a.png")
    assert np.asarray(read_image(tmp_path / "a.png")).sum() == 2016
    whole = (tmp_path / "a.png").read_bytes()
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match="a FIFO; expected a regular file"):
        read_image(tmp_path / "pipe.png")
    for content in (b"", whole[:40], b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", json.dumps({}).encode()):
        (tmp_path / "b.png").write_bytes(content)
        with pytest.raises(ImageError):
            read_image(tmp_path / "b.png")


@pytest.mark.parametrize("schema", [OVERLAP, JACCARD, JACCARD_IMAGES, RETRIEVAL, EMBEDDING])
def test_a_row_that_occurs_twice_is_refused(tmp_path: Path, schema: Schema) -> None:
    """The page reads one value per network, label and metric: which of two?"""
    metric = "precision@5" if schema is RETRIEVAL else "iou@10"
    cells = {"string": "a", "Float64": "0.5", "Int64": "1"}
    row = ",".join(metric if column.name == "metric" else cells[column.dtype] for column in schema)
    path = tmp_path / "table.csv"
    path.write_text("\n".join([",".join(schema.names), row]) + "\n")
    assert len(read_table(path, schema)) == 1
    path.write_text("\n".join([",".join(schema.names), row, row]) + "\n")
    with pytest.raises(UserError, match=r"occurs twice|two rows"):
        read_table(path, schema)


@pytest.mark.parametrize("schema", [OVERLAP, RETRIEVAL])
def test_a_metric_of_another_form_is_refused(tmp_path: Path, schema: Schema) -> None:
    """A table that was cut in the name: precis."""
    path = tmp_path / "table.csv"
    cells = {"string": "a", "Float64": "0.5", "Int64": "1"}
    row = ",".join("precis" if column.name == "metric" else cells[column.dtype] for column in schema)
    path.write_text("\n".join([",".join(schema.names), row]) + "\n")
    with pytest.raises(UserError, match=r"row 2: metric is 'precis'; expected text of the form"):
        read_table(path, schema)
