"""Damaged or dishonest parquet shards end in one line or in the quarantine; memory stays bounded."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from octdino.cohort.olives.parquet import ShardSource, read_shards
from octdino.config import ImageSettings
from octdino.errors import UserError
from octdino.scans.preprocess import decode_scan

from ..trees import BIOMARKERS

PLAIN = ImageSettings(size=(20, 30))


def tiff(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "TIFF")
    return out.getvalue()


def shard(path: Path, **columns: object) -> Path:
    """Four rows of the published form; `columns` replace or add to its own."""
    rows = 4
    image = [{"bytes": tiff(np.random.default_rng(row).integers(0, 255, (8, 9), np.uint8))} for row in range(rows)]
    table: dict[str, object] = {"Image": image, **{name: [0.0, 1.0, 0.0, 1.0] for name in BIOMARKERS}}
    table |= {"Patient_ID": [57, 58, 59, 60], "Eye_ID": [1, 2, 3, 4], "BCVA": [60.0] * rows, "CST": [300.0] * rows}
    table |= {"Disease Label": ["DR"] * rows, "Scan (n/49)": [1, 2, 3, 4], **columns}
    pq.write_table(pa.table(table), path)
    return path


def read_shard(root: Path) -> list[str]:
    """The reasons of the rows that are not accepted; raises UserError."""
    rows = read_shards(root, ["a.parquet"], "olives")
    read = [decode_scan(path, PLAIN, ShardSource(root)) for path in rows.scans["path"]]
    return [*(picture.reason for picture in read if picture.reason), *(row["reason"] for row in rows.quarantine.rows)]


def test_a_good_shard_is_read(tmp_path: Path) -> None:
    shard(tmp_path / "a.parquet")
    assert read_shard(tmp_path) == []


@pytest.mark.parametrize("kind", ["numbers", "texts", "nulls", "no bytes", "bytes of another kind"])
def test_a_shard_without_images_in_the_image_column_is_quarantined(kind: str, tmp_path: Path) -> None:
    shard(tmp_path / "a.parquet", Image={
        "numbers": [1, 2, 3, 4], "texts": ["a"] * 4, "nulls": [None] * 4, "no bytes": [{"path": "x"}] * 4,
        "bytes of another kind": [{"bytes": b"%!PS"}] * 4,
    }[kind])  # fmt: skip
    assert read_shard(tmp_path) == ["unreadable"] * 4


@pytest.mark.parametrize("text", [b"{", b"[]", b"null", b'{"index_columns": [7]}', b"\xff"])
def test_pandas_metadata_of_a_shard_is_not_trusted(text: bytes, tmp_path: Path) -> None:
    path = shard(tmp_path / "a.parquet")
    pq.write_table(pq.read_table(path).replace_schema_metadata({b"pandas": text}), path)
    try:
        assert read_shard(tmp_path) == []
    except UserError as error:
        assert str(error).startswith(f"{path}: no whole parquet file: ")  # noqa: PT017  both are right


def test_text_of_a_shard_that_is_not_utf8_is_one_line(tmp_path: Path) -> None:
    offsets = pa.array([0, 1, 2, 3, 4], pa.int32()).buffers()[1]
    odd = pa.StringArray.from_buffers(4, offsets, pa.py_buffer(b"\xff\xfe\xff\xfe"))
    shard(tmp_path / "a.parquet", **{"Disease Label": odd})
    with pytest.raises(UserError, match=r"a.parquet: no whole parquet file"):
        read_shard(tmp_path)


def test_two_columns_of_one_name_in_a_shard_are_one_line(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.parquet")
    table = pq.read_table(path)
    pq.write_table(table.append_column("Patient_ID", table["Patient_ID"]), path)
    with pytest.raises(UserError, match=r"a.parquet: .*Patient_ID"):
        read_shard(tmp_path)


def test_a_shard_of_more_rows_than_any_cohort_has_is_one_line(tmp_path: Path) -> None:
    rows = 20_000_000
    columns = {"Image": pa.nulls(rows, pa.binary()), "Patient_ID": pa.nulls(rows, pa.int8())}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").stat().st_size < 100_000
    with pytest.raises(UserError, match=r"a.parquet: 20,000,000 rows; expected at most"):
        read_shard(tmp_path)


def test_a_damaged_shard_is_one_line_or_quarantined(tmp_path: Path) -> None:
    data, rng = shard(tmp_path / "good.parquet").read_bytes(), np.random.default_rng(0)
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    for number in range(150):
        root = tmp_path / str(number)
        root.mkdir()
        changed = bytearray(data)
        begin = rng.choice([0, footer])
        for at in rng.integers(begin, len(data), rng.choice([1, 3, 20])):
            changed[at] = rng.choice([0, 255, rng.integers(256)])
        cut = int(rng.integers(len(data))) if number % 5 == 0 else len(data)
        (root / "a.parquet").write_bytes(changed[:cut])
        try:
            read_shard(root)
        except UserError as error:
            assert str(error).startswith(f"{root}/a.parquet: ")  # noqa: PT017  many changes do no harm
