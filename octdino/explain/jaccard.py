"""Jaccard index of attention masks against ground-truth objects, by three protocols, void pixels left out or not.

paper: for each object the best IoU over heads, mean over the objects of an image (Caron et al. 2021, sec. 4.2.2 and
https://github.com/facebookresearch/dino/issues/54). largest: the image's largest class against its best head. union:
all classes together against their best head. The last two are of a widely copied script, which also counted VOC's void
border as foreground; `*_void` says by how much that changes the number.
"""

import numpy as np
import torch
from torch import Tensor

from octdino.explain.lesion_masks import Truth
from octdino.explain.regions import Maps

PROTOCOLS = ("paper", "largest", "union", "largest_void", "union_void")
CHUNK = 16  # images: objects x pixels of each are in memory


def pairwise_iou(heads: Tensor, objects: Tensor, valid: Tensor) -> Tensor:
    """Return the IoU of each head's mask with each object over the valid pixels: float32 [n, heads, M], NaN if empty.

    Args:
        heads: bool [n, heads, P]; objects: bool [n, M, P]; valid: bool [n, P].
    """
    seen, true = ((masks & valid[:, None]).float() for masks in (heads, objects))
    both = seen @ true.transpose(1, 2)
    either = seen.sum(-1)[:, :, None] + true.sum(-1)[:, None, :] - both
    return both / either


def best_head(heads: Tensor, objects: Tensor, valid: Tensor) -> Tensor:
    """Return the best IoU over heads of each object, [n, M]; NaN where the object has no valid pixel."""
    there = (objects & valid[:, None]).any(-1)
    return torch.where(there, pairwise_iou(heads, objects, valid).nan_to_num().amax(1), torch.nan)


def protocols(heads: Tensor, objects: Tensor, classes: Tensor, void: Tensor) -> dict[str, Tensor]:
    """Return each protocol's value per image, float32 [n], NaN where there is no object.

    Args:
        heads: bool [n, heads, P]; objects: bool [n, M, P]; classes: bool [n, K, P]; void: bool [n, P].
    """
    everywhere = torch.ones_like(void)
    index = classes.sum(-1).argmax(1)
    largest = classes[torch.arange(len(classes)), index][:, None]
    union = classes.any(1)[:, None]
    found = {"paper": best_head(heads, objects, ~void).nanmean(1)}
    for name, region in (("largest", largest), ("union", union)):
        found[name] = best_head(heads, region, ~void)[:, 0]
        with_void = best_head(heads, region | void[:, None], everywhere)[:, 0]
        found[f"{name}_void"] = torch.where(region[:, 0].any(-1), with_void, torch.nan)
    return found


def jaccard(maps: Maps, truth: Truth, mass: float, min_blob: float) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return each protocol's value per scan, [N], and the number of its objects, [N].

    Args:
        maps: of N scans, one per head.
        truth: of the same scans.
        mass, min_blob: how a head's map becomes its mask.
    """
    found: dict[str, list[Tensor]] = {name: [] for name in PROTOCOLS}
    counts = []
    for rows in torch.split(torch.arange(len(maps.native)), CHUNK):
        heads = maps.take(rows).masks(mass, min_blob).flatten(2)
        part = rows.numpy()
        objects, classes = truth.object_masks(part).flatten(2), truth.class_masks(part).flatten(2)
        void = truth.void(part).flatten(1)
        for name, values in protocols(heads, objects, classes, void).items():
            found[name].append(values)
        counts.append((objects & ~void[:, None]).any(-1).sum(1))
    return {name: torch.cat(parts).double().numpy() for name, parts in found.items()}, torch.cat(counts).numpy()
