"""The explain stage: store + backbone + embeddings → attention, maps per label, masks, Jaccard, neighbors."""

from octdino.explain.explanation import explain

__all__ = ["explain"]
