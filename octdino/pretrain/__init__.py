"""The pretrain stage: store → backbone weights, history."""

from octdino.pretrain.pretraining import pretrain

__all__ = ["pretrain"]
