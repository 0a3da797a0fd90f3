"""octdino: self-supervised pretraining on retinal OCT B-scans, compared fairly."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # both import torch or pandas, which settings and --help do without
    from octdino.inference.api import Predictor
    from octdino.inference.run_results import RunResults

__version__ = "0.2.0"  # the release that is being prepared, or this very one: CONTRIBUTING.md, "A release"

# Raise a stage's number in the commit that changes its results: the workflow then runs it again, and what follows it.
STAGES = {
    "cohort": 3,
    "pretrain": 3,
    "embed": 2,
    "classify": 5,
    "evaluate": 6,
    "audit": 3,
    "explain": 5,
    "report": 8,
    "inference": 3,
}


def made_by(stage: str) -> str:
    """What made a file, as its metadata says it: 0.2.0+pretrain.1."""
    return f"{__version__}+{stage}.{STAGES[stage]}"


def load(*models: str | Path, precision: str = "float32") -> "Predictor":
    """Read one model folder, or several that are to predict together: see `octdino.inference.api.Predictor`.

    Args:
        precision: float32, as in training's own predictions; bfloat16; or auto, as in pretraining.

    Raises:
        octdino.errors.UserError: no model folder, or a damaged one.
    """
    from octdino.inference.api import load_predictor

    return load_predictor(*models, precision=precision)


def results(folder: str | Path) -> "RunResults":
    """Return the tables of results/{cohort} as data frames: see `octdino.inference.run_results.RunResults`.

    Raises:
        octdino.errors.UserError: it is not such a folder.
    """
    from octdino.inference.run_results import open_results

    return open_results(folder)
