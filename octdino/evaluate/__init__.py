"""The evaluate stage: predictions → metrics with intervals, paired comparisons, figures."""

from octdino.evaluate.evaluation import evaluate

__all__ = ["evaluate"]
