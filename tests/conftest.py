"""Fixtures for all tests."""

import gc
import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.warm_server import warm_programs

# Before torch is imported: small tensors on several threads are slower than on one, and tests run side by side.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Threads of jobs that wait for each other sleep: where other tests keep the cores busy, spinning takes three times as
# long.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

LONG = ("test_kills.py", "test_processes.py", "test_blocks_run.py", "test_presets.py", "test_benchmarks.py")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Import and collect without the garbage collector, whose later passes leave out what is there by then."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the files of minutes to the front: begun last, one of them would keep one process busy alone at the end."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


def pytest_unconfigure() -> None:
    """Let the garbage collector see everything again; nanobind reports as leaks what it leaves out at the end."""
    gc.unfreeze()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real tables and images: OCTDINO_SHARED_DATA, or ../shared/data beside the repository."""
    named = os.environ.get("OCTDINO_SHARED_DATA")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no real tables and images here: set OCTDINO_SHARED_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with `octdino`, `snakemake` and `warm-python` that start warm."""
    folder = tmp_path_factory.mktemp("warm")
    with warm_programs(folder):
        yield folder
