"""The classify stage: store, backbone and labels → predictions, one folder an arm."""

from octdino.classify.run import classify

__all__ = ["classify"]
