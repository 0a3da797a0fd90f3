"""octdino: self-supervised pretraining on retinal OCT B-scans, compared fairly."""

__version__ = "0.1.0"

# Raise a stage's number in the commit that changes its results: the workflow then runs it again, and what follows it.
STAGES = {
    "cohort": 2,
    "pretrain": 2,
    "embed": 2,
    "classify": 4,
    "evaluate": 3,
    "audit": 3,
    "explain": 5,
    "report": 4,
}


def made_by(stage: str) -> str:
    """What made a file, as its metadata says it: 0.1.0+pretrain.1."""
    return f"{__version__}+{stage}.{STAGES[stage]}"
