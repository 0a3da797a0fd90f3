"""Ground-truth masks: lesions of the phantom, objects of VOC, cropped and resized as the store's images were."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from octdino.errors import UserError
from octdino.scans.image_files import read_image

VOID = 255  # VOC: the void border, which belongs to no object
VOC_CLASSES = 20


@dataclass(frozen=True)
class Truth:
    """Ground-truth masks of N scans, coded, at the store's size, of one of two kinds.

    Attributes:
        bits: bit i of a pixel says that label i is there; labels may lie over each other. Without it a pixel has the
            number of its class, 0 for none, `VOID` for the void border.
        classes: whole numbers [N, H, W].
        objects: whole numbers [N, H, W], from 1; the same as `classes` where objects are not told apart.
        there: bool [N], whether the scan has a mask.
        labels: how many of the manifest's labels are classes 0.. of `class_masks`; 0 where they are something else.
    """

    bits: bool
    classes: Tensor
    objects: Tensor
    there: np.ndarray
    labels: int

    def label_masks(self, rows: np.ndarray) -> Tensor:
        """Return the mask of each label: bool [n, L, H, W]."""
        return _planes(self.classes[rows], self.bits, self.labels)

    def class_masks(self, rows: np.ndarray) -> Tensor:
        """Return the mask of each class, in the order of their numbers: bool [n, K, H, W]; K as the rows need it."""
        return _planes(self.classes[rows], self.bits, _largest(self.classes[rows], self.bits))

    def object_masks(self, rows: np.ndarray) -> Tensor:
        """Return the mask of each object: bool [n, M, H, W]."""
        return _planes(self.objects[rows], self.bits, _largest(self.objects[rows], self.bits))

    def void(self, rows: np.ndarray) -> Tensor:
        """Return the void pixels: bool [n, H, W]."""
        classes = self.classes[rows]
        return torch.zeros_like(classes, dtype=torch.bool) if self.bits else classes == VOID


def _planes(coded: Tensor, bits: bool, count: int) -> Tensor:
    numbers = torch.arange(count, dtype=coded.dtype)[:, None, None]
    if bits:
        return torch.bitwise_and(coded[:, None] >> numbers, 1).bool()
    return coded[:, None] == numbers + 1


def _largest(coded: Tensor, bits: bool) -> int:
    """Return the number of planes: the highest bit or number in use."""
    if bits:
        return max(1, int(coded.max()).bit_length())
    return max(1, int(coded.where(coded != VOID, 0).max()))


def read_truth(
    root: Path, paths: Sequence[str], boxes: np.ndarray, size: Sequence[int], labels: Sequence[str]
) -> Truth:
    """Read the masks of N scans.

    A PNG with a palette holds numbers as in PASCAL VOC: its classes stand in a folder `SegmentationClass`, its objects
    under the same name in `SegmentationObject`; where that is missing a class is one object. Any other PNG holds bits,
    bit i for label i.

    Args:
        root: the cohort's folder; paths: masks below it, "" where a scan has none.
        boxes: int [N, 4], top, left, height, width of what the store kept of each file's image.
        size: height and width of the store's images.
        labels: the manifest's label columns.

    Raises:
        UserError: a mask is missing, no image, of another kind than the first, or smaller than its scan.
    """
    nothing = torch.zeros(*size, dtype=torch.uint8)
    classes, objects, kinds = [nothing] * len(paths), [nothing] * len(paths), {}
    for row, path in enumerate(paths):
        if not path:
            continue
        classes[row], kinds[path] = _read(root / path, boxes[row], size)
        other = path.replace("SegmentationClass", "SegmentationObject")
        told_apart = other != path and (root / other).is_file()
        objects[row] = _read(root / other, boxes[row], size)[0] if told_apart else classes[row]
    if len(set(kinds.values())) > 1:
        first, *_, last = sorted(kinds, key=lambda path: kinds[path])
        raise UserError(f"{root / last}: has a palette, {root / first} has none; expected masks of one kind")
    bits = not any(kinds.values())
    named = len(labels) if bits or len(labels) == VOC_CLASSES else 0
    return Truth(bits, torch.stack(classes), torch.stack(objects), np.array([bool(path) for path in paths]), named)


def _read(path: Path, box: np.ndarray, size: Sequence[int]) -> tuple[Tensor, bool]:
    """The coded mask [H, W], uint8 where it has a palette and int32 where it has bits, and whether it has one."""
    try:
        image = read_image(path)
        palette = image.mode == "P"
        coded = np.asarray(image).astype(np.uint8 if palette else np.int32)
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such mask, but the manifest names it; is --masks-root the cohort's root?"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: the mask cannot be read: {error}") from None
    top, left, height, width = (int(value) for value in box)
    if coded.ndim != 2 or top + height > coded.shape[0] or left + width > coded.shape[1]:
        raise UserError(
            f"{path}: a mask of {' x '.join(map(str, coded.shape))}, but the store kept {height} x {width} pixels at "
            f"{top}, {left} of its scan; expected one channel of the scan's size"
        )
    kept = Image.fromarray(coded[top : top + height, left : left + width])
    return torch.from_numpy(np.array(kept.resize((size[1], size[0]), Image.Resampling.NEAREST))), palette
