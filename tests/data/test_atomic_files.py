"""Writing whole files where the system refuses, and reading damaged ones: one line that names the file."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from octdino.data import disk_space as disk
from octdino.data.atomic_files import DeferringFile, check_out, replacing
from octdino.data.safetensors_numpy import write_arrays
from octdino.data.safetensors_torch import arrays_of, tensor_bytes, write_tensors
from octdino.data.store_writer import StoreWriter
from octdino.errors import UserError
from octdino.training.checkpoints import RunState

ATTRIBUTES = {"mean": [0.5], "std": [0.2], "source": "x"}


class Usage:
    """What shutil.disk_usage returns of a nearly full disk."""

    free = 1000


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk with 1000 bytes left."""
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: Usage)


@pytest.fixture
def full_device() -> Path:
    """A file whose every write fails for want of space."""
    path = Path("/dev/full")
    if not path.exists():
        pytest.skip("this system has no /dev/full")
    return path


def write_store(path: Path, count: int = 70) -> Path:
    with StoreWriter(path, 1, (6, 5)) as writer:
        for index in range(count):
            writer.append(np.full((1, 6, 5), index, np.uint8), f"scan-{index}")
        writer.finish(np.arange(count), ATTRIBUTES)
    return path


LIMITED = """
import resource, signal, sys
from pathlib import Path
import numpy as np, torch
from octdino.errors import UserError
from octdino.data.store_writer import StoreWriter
from octdino.data.safetensors_torch import write_tensors
from octdino.training.checkpoints import RunState
folder = Path(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
def store():
    with StoreWriter(folder / "scans.h5", 1, (64, 64)) as writer:
        for index in range(200):
            writer.append(np.full((1, 64, 64), index, np.uint8), f"scan-{index}")
        writer.finish(np.arange(200), {"source": "x", "mean": [0.1], "std": [0.1]})
def checkpoint():
    with RunState(folder / "state", {}, 0).locked() as state:
        state.save({"weights": torch.zeros(100_000)}, 1)
for write in (store, checkpoint, lambda: write_tensors(folder / "a.safetensors", {"a": torch.zeros(100_000)})):
    try:
        write()
    except UserError as error:
        print(error)
"""


def test_a_write_that_the_system_refuses_is_one_line_and_the_process_ends_well(tmp_path: Path) -> None:
    """HDF5 ended with a segmentation fault when the process exited, after the store could not be written back."""
    command = [sys.executable, "-c", LIMITED, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    names = ("scans.h5", "state/step-000000001.pt", "a.safetensors")
    assert [line.partition(": ")[0] for line in lines] == [str(tmp_path / name) for name in names]
    assert all("cannot be written" in line and "File too large" in line for line in lines)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["lock", "state"]
    assert not done.stderr


def test_a_failed_write_is_told_when_it_is_asked_for(full_device: Path) -> None:
    with DeferringFile(full_device) as file:
        assert file.write(b"abc") == 3
        with pytest.raises(OSError, match="No space left"):
            file.check()


def test_a_full_disk_leaves_the_earlier_file_and_no_temporary_one(tmp_path: Path, full_device: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("before")

    def write() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            full_device.write_text("x")

    with pytest.raises(UserError, match=r"a\.txt: cannot be written: No space left on device"):
        write()
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "before"


def test_an_error_of_another_file_is_not_the_stores(tmp_path: Path) -> None:
    with pytest.raises(PermissionError, match="image"), StoreWriter(tmp_path / "a.h5", 1, (6, 5)):
        raise PermissionError(13, "image")
    assert not list(tmp_path.iterdir())


def test_space_is_checked_before_tensors_and_checkpoints_are_written(tmp_path: Path, full_disk: None) -> None:
    tensors = {"a": torch.zeros(2000), "b": torch.zeros(10, dtype=torch.uint8)}
    assert tensor_bytes({"x": [tensors, 3], "y": (tensors["a"],)}) == 16010
    with pytest.raises(UserError, match=r"8\.4 kB needed for a\.safetensors, 1\.0 kB free"):
        write_tensors(tmp_path / "a.safetensors", tensors)
    with (
        RunState(tmp_path / "state", {}, 0).locked() as state,
        pytest.raises(UserError, match=r"8\.4 kB needed for step-000000003\.pt, 1\.0 kB free"),
    ):
        state.save(tensors, 3)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["lock", "state"]


@pytest.mark.parametrize(
    ("out", "file", "line"),
    [
        ("page.html", False, "page.html is no folder"),
        ("page.html/deep/er", False, "page.html is no folder"),
        ("folder", True, "is a folder; expected the name of a file"),
        ("page.html/page.html", True, "page.html is no folder"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_before_the_work(
    tmp_path: Path, out: str, file: bool, line: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "page.html").touch()
    with pytest.raises(UserError) as error:
        check_out(tmp_path / out, file=file)
    assert line in str(error.value)


def test_writable_outputs_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "page.html").touch()
    check_out(tmp_path)
    check_out(tmp_path / "new" / "folder")
    check_out(tmp_path / "page.html", file=True)
    check_out(tmp_path / "new" / "page.html", file=True)
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"], "nothing is made"
    with pytest.raises(OSError, match="File name too long"):
        check_out(tmp_path / ("x" * 300))


def test_a_folder_without_permission_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests may run as root, whom the system refuses nothing but a read-only file system."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UserError, match="cannot be written to: no permission, or a read-only file system"):
        check_out(tmp_path / "new")


def test_safetensors_files_have_the_permissions_of_other_files(tmp_path: Path) -> None:
    """The library makes them for their owner alone, which locks out others of a shared folder."""
    (tmp_path / "plain").touch()
    write_tensors(tmp_path / "a.safetensors", {"a": torch.zeros(2)})
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "plain"]


def test_arrays_and_tensors_make_the_same_file(tmp_path: Path) -> None:
    """In whatever order they are given and lie in memory, numbers without a dimension included."""
    tensors = {
        "conv.weight": torch.randn(3, 2, 4, 4).contiguous(memory_format=torch.channels_last),
        "batches": torch.tensor(7),
        "bias": torch.randn(5, dtype=torch.float64),
        "empty": torch.zeros(0, 3),
        "a": torch.randn(4, 3).T,
    }
    write_tensors(tmp_path / "tensors.safetensors", {name: tensor.contiguous() for name, tensor in tensors.items()})
    write_arrays(tmp_path / "arrays.safetensors", arrays_of(tensors))
    first, second = (tmp_path / f"{name}.safetensors" for name in ("tensors", "arrays"))
    assert first.read_bytes() == second.read_bytes()
    assert first.stat().st_mode == second.stat().st_mode
