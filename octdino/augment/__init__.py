"""Data augmentation: random views of a batch of images, on the device that trains."""

from octdino.augment.batch_augment import Augment, View
from octdino.augment.geometry import resize
from octdino.augment.intensity import standardize

__all__ = ["Augment", "View", "resize", "standardize"]
