"""The pretrain stage: store → backbone weights, history."""

from octdino.pretrain.run import pretrain

__all__ = ["pretrain"]
