"""Random views of a batch of images, made on the device that trains."""

from octdino.augment.batch_augment import Augment, View
from octdino.augment.geometry import resize
from octdino.augment.intensity import standardise

__all__ = ["Augment", "View", "resize", "standardise"]
