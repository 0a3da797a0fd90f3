"""A SLURM for all tests of this folder."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.box import Box, missing
from tests.workflow.conftest import warm

__all__ = ["warm"]  # workflows of these tests start warm, too


@pytest.fixture(scope="session")
def slurm() -> Iterator[Box]:
    """A running cluster of one node."""
    if reason := missing():
        pytest.skip(reason)
    box = Box(Path(tempfile.mkdtemp(prefix="slurm.", dir="/tmp")))  # pytest's own folder would shut munge out
    try:
        box.up()
        yield box
    finally:
        box.down()
