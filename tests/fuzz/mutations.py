"""Damage of one input file, by its kind: bytes, cells, keys, tensors, datasets; all of it from one generator."""

import csv
import io
import json
import os
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from safetensors.torch import load_file, save_file

TEXTS = [
    "", " ", "nan", "NaN", "NA", "None", "inf", "-inf", "-1", "0", "1", "2", "0.5", "1e999", "9" * 400, "0x10", "True",
    "\0", "é", "‮x", "٣", "=1+1", "../../x", "/etc/passwd", "a/b", "'", '"', ",", "\n", "{x}", "%s", "train", "val",
    "test", "tset", "macro", "row", "scan_id", "prob:DME", "1,5", "A" * 5000, "<script>", "a\tb", "-0.0", "1e-320",
]  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2**70, 0.5, -0.0, 1e308, float("nan"), float("inf"), "", "x", "nan", "../x",
    "A" * 5000, [], {}, [[]], {"x": 1}, [1, 2], [None], "\0", "é",
]  # fmt: skip
CONTENTS = [
    b"", b"\0" * 64, b"\xff\xfe\x00", b"{", b"[]", b"null", b"{}", b'"x"', b"[" * 100_000, b"a,b\n1\n",
    b"\x89PNG\r\n\x1a\n",
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", b"\x89HDF\r\n\x1a\n" + b"\0" * 200, b"PK\x03\x04",
    b"GIF89a" + b"\1\0\1\0\x80\0\0" * 3, b"\x08\0\0\0\0\0\0\0{}      ", b"\xff" * 8 + b"{}", b"x" * 300_000,
]  # fmt: skip


def mutate(path: Path, rng: random.Random) -> str:
    """Damage the file in place; what was done, in words."""
    own = KINDS.get(path.suffix, [])
    if path.suffix == ".h5" or (own and rng.random() < 0.7):
        change = rng.choice([*own, flip_bytes] if path.suffix == ".h5" else own)
    else:
        change = rng.choice([flip_bytes, flip_bytes, cut, cut, splice, replace_content, replace_content, replace_kind])
    try:
        return f"{change.__name__}: {change(path, rng)}"
    except (ValueError, KeyError, IndexError, OSError, RuntimeError, TypeError, zipfile.BadZipFile):
        return f"flip_bytes: {flip_bytes(path, rng)}"  # it was damaged before


def flip_bytes(path: Path, rng: random.Random) -> str:
    data = bytearray(path.read_bytes())
    count = rng.choice([1, 1, 2, 8, 64])
    for _ in range(count if data else 0):
        where = rng.randrange(min(len(data), rng.choice([16, 256, len(data)])))
        data[where] = rng.choice([0, 255, data[where] ^ (1 << rng.randrange(8)), rng.randrange(256)])
    path.write_bytes(data)
    return f"{count} bytes"


def cut(path: Path, rng: random.Random) -> str:
    data = path.read_bytes()
    end = rng.randrange(len(data) + 1) if rng.random() < 0.7 else max(0, len(data) - rng.randrange(1, 20))
    path.write_bytes(data[:end])
    return f"at {end} of {len(data)}"


def splice(path: Path, rng: random.Random) -> str:
    data = path.read_bytes()
    begin, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    part = rng.choice([data[begin:end], bytes(rng.randrange(256) for _ in range(20)), rng.choice(TEXTS).encode()])
    where = rng.randrange(len(data) + 1)
    path.write_bytes(data[:where] + part + data[where + rng.choice([0, len(part)]) :])
    return f"{len(part)} bytes at {where}"


def replace_content(path: Path, rng: random.Random) -> str:
    content = rng.choice(CONTENTS)
    path.write_bytes(content)
    return repr(content[:20])


def replace_kind(path: Path, rng: random.Random) -> str:
    """The file is gone, a folder, a link that leads nowhere or to itself, or a pipe that nobody writes to."""
    kind = rng.choice(["gone", "folder", "nowhere", "loop", "pipe"])
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind != "gone":
        path.symlink_to(path.name if kind == "loop" else "nowhere")
    return kind


def change_table(path: Path, rng: random.Random) -> str:
    """Cells, headers, columns and rows of a CSV."""
    separator = "\t" if path.suffix == ".tsv" else ","
    rows = list(csv.reader(io.StringIO(path.read_text()), delimiter=separator))
    said = []
    for _ in range(rng.choice([1, 1, 1, 2])):
        row, column = rng.randrange(len(rows)), rng.randrange(max(map(len, rows)))
        operation = rng.choice(
            ["cell", "cell", "cell", "cell", "column", "header", "twice", "drop", "drop row", "row twice", "shuffle",
             "swap", "short", "long", "only header", "no header", "add"]
        )  # fmt: skip
        said.append(f"{operation} {row} {column}")
        text = rng.choice([*TEXTS, *rng.choice(rows)])
        if operation in ("cell", "column", "header"):
            chosen = {"cell": [row], "column": range(1, len(rows)), "header": [0]}[operation]
            for index in chosen:
                rows[index][column] = text
            said[-1] += f" {text[:20]!r}"
        elif operation in ("twice", "drop"):
            rows = [[*one[:column], *one[column : column + 1] * (2 * (operation == "twice")), *one[column + 1 :]]
                    for one in rows]  # fmt: skip
        elif operation in ("drop row", "row twice"):
            rows[row : row + 1] = rows[row : row + 1] * (2 * (operation == "row twice"))
        elif operation == "shuffle":
            rows[1:] = rng.sample(rows[1:], len(rows) - 1)
        elif operation == "swap":
            other = rng.randrange(len(rows[0]))
            for one in rows:
                one[column], one[other] = one[other], one[column]
        elif operation == "add":
            rows = [[*one, text if index == 0 else rng.choice(["0", "1", ""])] for index, one in enumerate(rows)]
        elif operation in ("short", "long"):
            rows[row] = rows[row][:column] if operation == "short" else [*rows[row], text]
        else:
            rows = rows[:1] if operation == "only header" else rows[1:]
    out = io.StringIO()
    csv.writer(out, delimiter=separator, lineterminator="\n").writerows(rows)
    path.write_text(out.getvalue())
    return "; ".join(said)


def change_json(path: Path, rng: random.Random) -> str:
    found, said = change_nested(json.loads(path.read_text()), rng, VALUES)
    path.write_text(json.dumps(found))
    return said


def change_nested(value: Any, rng: random.Random, values: list[Any], depth: int = 0) -> tuple[Any, str]:
    """`value` with one place deleted, renamed, or replaced by one of `values`; and which place."""
    if isinstance(value, dict) and value and (depth == 0 or rng.random() < 0.8):
        key = rng.choice(list(value))
        kind = rng.choice(["delete", "rename", "in", "in", "in", "in", "in"])
        if kind == "in":
            inner, said = change_nested(value[key], rng, values, depth + 1)
            return {**value, key: inner}, f"{key}.{said}"
        rest = {name: inner for name, inner in value.items() if name != key}
        return rest if kind == "delete" else {**rest, f"{key}x": value[key]}, f"{key} {kind}"
    if isinstance(value, list) and value and rng.random() < 0.6:
        where = rng.randrange(len(value))
        inner, said = change_nested(value[where], rng, values, depth + 1)
        return [*value[:where], *[inner] * rng.choice([0, 1, 1, 2]), *value[where + 1 :]], f"{where}.{said}"
    new = rng.choice(values)
    return new, repr(new)[:40]


def change_tensors(path: Path, rng: random.Random) -> str:
    tensors = load_file(path)
    name = rng.choice(list(tensors))
    new, said = change_tensor(tensors.pop(name), rng)
    if rng.random() < 0.85:
        tensors[rng.choice([name, name, name, f"{name}x", ""])] = new
    save_file({key: value.contiguous().clone() for key, value in tensors.items()}, path)
    return f"{name} {said}"


def change_tensor(value: torch.Tensor, rng: random.Random) -> tuple[torch.Tensor, str]:
    kind = rng.choice(["nan", "inf", "shape", "empty", "half", "int", "scalar", "huge"])
    return {
        "nan": lambda: torch.full_like(value, float("nan")) if value.is_floating_point() else value * 0,
        "inf": lambda: torch.full_like(value, float("inf")) if value.is_floating_point() else value - 1,
        "shape": lambda: value.reshape(-1)[: value.numel() // 2],
        "empty": lambda: value.reshape(-1)[:0],
        "half": lambda: value.half(),
        "int": lambda: value.to(torch.int64),
        "scalar": lambda: torch.zeros(()),
        "huge": lambda: value.repeat(*[3] * value.dim()),
    }[kind](), kind


def change_header(path: Path, rng: random.Random) -> str:
    """The JSON header of a safetensors file."""
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header, said = change_nested(json.loads(data[8:end]), rng, VALUES)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[end:])
    return said


def change_checkpoint(path: Path, rng: random.Random) -> str:
    """What torch.save wrote, with a key or tensor changed; or a zip of something else."""
    if rng.random() < 0.15:
        with zipfile.ZipFile(path, "w", rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as archive:
            archive.writestr(rng.choice(["archive/data.pkl", "x", "../x"]), rng.choice(CONTENTS))
        return "another zip"
    state = torch.load(path, weights_only=True)
    tensors = [torch.zeros(()), torch.full((3, 3), float("nan")), torch.zeros(2, dtype=torch.int64)]
    found, said = change_nested(state, rng, [*VALUES, *tensors])
    torch.save(found, path)
    return said


def change_store(path: Path, rng: random.Random) -> str:
    """Datasets and attributes of an HDF5 file."""
    with h5py.File(path, "r+") as file:
        if rng.random() < 0.3:
            name = rng.choice(list(file.attrs))
            del file.attrs[name]
            new = rng.choice([None, 0, -1.0, float("nan"), "x", [0.1, 0.2, 0.3], [[1.0]], np.uint8(2), "é" * 100])
            if new is not None:
                file.attrs[name] = new
            return f"attribute {name} {new!r:.40}"
        name = rng.choice(list(file))
        data = file[name][:]
        del file[name]
        kind = rng.choice(["gone", "group", "fewer", "more", "flat", "dtype", "scalar", "link", "sparse", "packed",
                           "shuffled", "text", "empty", "equal"])  # fmt: skip
        if kind == "group":
            file.create_group(name)
        elif kind == "link":
            file[name] = h5py.ExternalLink("elsewhere.h5", name)
        elif kind == "sparse":
            file.create_dataset(name, (10**9, *data.shape[1:]), data.dtype, chunks=True)
        elif kind == "packed":
            file.create_dataset(name, data=data, compression="gzip")
        elif kind == "text":
            file.create_dataset(name, data=["é"] * len(data), dtype=h5py.string_dtype())
        elif kind != "gone":
            file[name] = {
                "fewer": lambda: data[:-1], "more": lambda: np.concatenate([data, data]), "flat": data.ravel,
                "dtype": lambda: data.astype("S9") if data.dtype.kind == "f" else np.zeros(data.shape, np.float32),
                "scalar": lambda: 3, "shuffled": lambda: data[::-1], "empty": lambda: data[:0],
                "equal": lambda: np.broadcast_to(data[:1], data.shape),
            }[kind]()  # fmt: skip
        return f"{name} {kind}"


Change = Callable[[Path, random.Random], str]
KINDS: dict[str, list[Change]] = {
    ".csv": [change_table],
    ".tsv": [change_table],
    ".json": [change_json],
    ".safetensors": [change_tensors, change_header],
    ".pt": [change_checkpoint],
    ".pth": [change_checkpoint],
    ".h5": [change_store],
}
