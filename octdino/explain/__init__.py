"""The explain stage: store + backbone → attention, maps a label, masks, Jaccard, neighbours."""

from octdino.explain.explanation import explain

__all__ = ["explain"]
