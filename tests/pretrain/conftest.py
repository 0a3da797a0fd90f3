"""What the tests of pretraining share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from octdino.training import throughput
from tests.small import write_small_cohort


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the store of the small cohort, for reading only."""
    return write_small_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(autouse=True, scope="session")
def short_ceiling() -> Iterator[None]:
    """Measure the ceiling of a run with one matrix product: runs here are as short as the usual measurement."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(throughput, "MATMUL_SECONDS", 0.0)
        yield
