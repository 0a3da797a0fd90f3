"""The explain stage: store + backbone → attention, maps a label, masks, Jaccard, neighbours."""

from octdino.explain.run import explain

__all__ = ["explain"]
