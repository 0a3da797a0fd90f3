"""One evaluated cohort for all tests of the stage."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from octdino.evaluate import evaluate
from tests.evaluate.evaluated import SETTINGS
from tests.results import drawing, write_arm, write_cohort


@pytest.fixture(scope="session")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("results")
    write_cohort(root / "cohort")
    folders = [
        write_arm(root / "classify", root / "cohort", arm, fraction)
        for arm in ("scratch-finetune", "dino-linear", "simclr-linear", "clinical")
        for fraction in (0.3, 1.0)
    ]
    evaluate(SETTINGS, root / "cohort" / "manifest.csv", folders, root / "evaluate")
    return root


@pytest.fixture
def no_figures() -> Iterator[None]:
    """Let the stage write its tables only."""
    with drawing():
        yield
