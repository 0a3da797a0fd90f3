"""Readers of single files on any bytes, by hypothesis, which finds the smallest file that breaks one."""

import argparse
import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

from octdino.cli.arguments import mapping
from octdino.cohort.spreadsheet import read_spreadsheet
from octdino.data.atomic_files import read_json
from octdino.data.csv_io import read_table, write_table
from octdino.data.safetensors_torch import read_tensors
from octdino.data.schemas.csv_schemas import SPLITS
from octdino.errors import UserError
from octdino.scans.image_files import ImageError, read_image
from octdino.training.checkpoint_reader import CheckpointError, read_checkpoint

pytestmark = [pytest.mark.fuzz, pytest.mark.filterwarnings("ignore")]

EXAMPLES = max(20, int(os.environ.get("OCTDINO_FUZZ_CASES", "300")) // 2)  # of each reader


def write_splits(path: Path) -> None:
    table = pd.DataFrame({"fold": 0, "patient": ["a", "b"], "group": ["a", "b"], "split": ["train", "test"]})
    write_table(path, table.assign(rank=[0, None]), SPLITS)


def write_image(path: Path) -> None:
    Image.new("L", (9, 7), 3).save(path)


CARD = {"spec": {"timm": "resnet18", "mean": [0.5]}, "labels": ["a", "b"], "thresholds": {"a": 0.5, "b": None}}
READERS: dict[str, tuple[Callable[[Path], Any], Callable[[Path], Any]]] = {
    "splits.csv": (write_splits, lambda path: read_table(path, SPLITS)),
    "sheet.csv": (write_splits, lambda path: read_spreadsheet(path, "cohort.table")),
    "card.json": (lambda path: path.write_text(json.dumps(CARD)), lambda path: read_json(path, "pretrain")),
    "config.yaml": (lambda path: path.write_text("a: &x {b: [1, 2.5]}\nc: *x\n"), lambda path: mapping(str(path))),
    "a.safetensors": (
        lambda path: save_file({"x": torch.zeros(3), "y": torch.ones(2, 2)}, path),
        lambda path: read_tensors(path, "pretrain"),
    ),
    "a.pt": (lambda path: torch.save({"step": 1, "x": torch.zeros(3)}, path), read_checkpoint),
    "a.png": (write_image, read_image),
    "a.tif": (write_image, read_image),
    "a.jpg": (write_image, read_image),
    "a.bmp": (write_image, read_image),
}
Edit = tuple[float, int, bytes]


def edited(data: bytes, edits: list[Edit]) -> bytes:
    """`data` with bytes put in the place of others: where, as a share of its length, how many go, and what comes."""
    for where, count, new in edits:
        start = int(where * len(data))
        data = data[:start] + new + data[start + count :]
    return data


EDITS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 400), st.binary(max_size=12)), min_size=1, max_size=4)


@pytest.mark.parametrize("name", READERS)
def test_any_bytes_are_read_or_refused(name: str, tmp_path: Path) -> None:
    write, read = READERS[name]
    path = tmp_path / name
    write(path)
    valid = path.read_bytes()
    read(path)

    @given(st.one_of(st.binary(max_size=300), EDITS.map(lambda edits: edited(valid, edits))))
    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    def attack(data: bytes) -> None:
        path.write_bytes(data)
        with contextlib.suppress(UserError, CheckpointError, ImageError, argparse.ArgumentTypeError):
            read(path)

    attack()
