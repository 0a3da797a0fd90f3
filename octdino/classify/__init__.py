"""The classify stage: store, backbone and labels → predictions, one folder an arm."""

from octdino.classify.train_arm import classify

__all__ = ["classify"]
