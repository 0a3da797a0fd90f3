"""The small cohort that the tests of pretraining share."""

from pathlib import Path

import pytest

from tests.small import write_small_cohort


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the store of the small cohort, for reading only."""
    return write_small_cohort(tmp_path_factory.mktemp("cohort"))
