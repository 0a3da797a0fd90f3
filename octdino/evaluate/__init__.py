"""The evaluate stage: predictions → metrics with intervals, paired comparisons, figures."""

from octdino.evaluate.run import evaluate

__all__ = ["evaluate"]
