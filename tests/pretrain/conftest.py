"""What the tests of pretraining share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from octdino.pretrain.trainer import Trainer
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


@pytest.fixture
def counted_flops() -> None:
    """Count the FLOPs of each run of the test, as octdino does."""


@pytest.fixture(autouse=True)
def uncounted_flops(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Count no FLOPs, a fifth of the time of runs as short as here, unless the test asks for `counted_flops`."""
    if "counted_flops" not in request.fixturenames:
        monkeypatch.setattr(Trainer, "count_flops", lambda self: setattr(self.throughput.mfu, "flops_per_image", 1.0))
