"""Localization metrics of saliency maps against ground-truth masks: IoU, pointing game and pixel AUROC."""

import numpy as np
import torch
from torch import Tensor

from octdino.explain.lesion_masks import Truth
from octdino.explain.regions import Maps

CHUNK = 32  # scans


def iou(predicted: Tensor, true: Tensor) -> Tensor:
    """Return the intersection over union of bool masks [..., P], float64 [...]; NaN where both are empty."""
    # monai.metrics.compute_iou returns the same numbers (a test compares), in float32; its import takes seconds.
    return (predicted & true).sum(-1).double() / (predicted | true).sum(-1)


def pointing(maps: Tensor, true: Tensor) -> Tensor:
    """Return whether a map's maximum lies in the mask (Zhang et al. 2016, pointing game): float64 [...] of [..., P].

    Where several pixels share the maximum, the share of them that do.
    """
    peak = maps == maps.amax(-1, keepdim=True)
    return (peak & true).sum(-1).double() / peak.sum(-1)


def pixel_auroc(maps: Tensor, true: Tensor) -> Tensor:
    """Return the AUROC of pixels inside against outside of the lesion, ties half: float64 [n] of [n, P].

    NaN where the lesion is nowhere or everywhere.
    """
    ordered = maps.sort(dim=-1).values
    below, up_to = (torch.searchsorted(ordered, maps, right=right) for right in (False, True))
    ranks = (below + up_to + 1).double() / 2  # from 1, the mean of those that tie
    inside = true.sum(-1).double()
    outside = true.shape[-1] - inside
    area = (ranks * true).sum(-1) - inside * (inside + 1) / 2
    return torch.where(inside * outside > 0, area / (inside * outside), torch.nan)


def iou_name(mass: float) -> str:
    """iou@60: of the mask that holds 60 % of the map's mass."""
    return f"iou@{100 * mass:g}"


def _metrics(maps: Maps, true: Tensor, masses: list[float]) -> dict[str, Tensor]:
    """Return the metrics of n pairs of a map [n, 1, h, w] and a lesion [n, P], float64 [n] each."""
    before, shown = maps.before().flatten(1), maps.pixels().flatten(1)
    found = {iou_name(mass): iou(before < mass, true) for mass in masses}
    return {**found, "pointing": pointing(shown, true), "pixel_auroc": pixel_auroc(shown, true)}


def chance(true: Tensor, masses: list[float]) -> dict[str, Tensor]:
    """Return the chance level: what a constant map, cut at random, reaches on bool masks [n, P]: each metric [n]."""
    share = true.double().mean(-1)
    found = {iou_name(mass): mass * share / (mass + share - mass * share) for mass in masses}
    return {**found, "pointing": share, "pixel_auroc": torch.full_like(share, 0.5)}


def measure(maps: Maps, truth: Truth, masses: list[float]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return each metric and its chance level, float64 [N, L], NaN where the scan lacks the lesion.

    Args:
        maps: of N scans, L maps per scan or one for all labels.
        truth: of the same scans, with L labels.
        masses: shares of a map's mass, for the IoU.
    """
    count, names = len(maps.native), [*map(iou_name, masses), "pointing", "pixel_auroc"]
    values, levels = ({name: np.full((count, truth.labels), np.nan) for name in names} for _ in range(2))
    for start in range(0, count, CHUNK):
        rows = np.arange(start, min(start + CHUNK, count))
        lesions = truth.label_masks(rows).flatten(2)
        scan, label = lesions.any(-1).nonzero().T
        true = lesions[scan, label]
        paired = maps.take(scan + start, label if maps.native.shape[1] > 1 else torch.zeros_like(label))
        for table, found in ((values, _metrics(paired, true, masses)), (levels, chance(true, masses))):
            for name, numbers in found.items():
                table[name][(scan + start).numpy(), label.numpy()] = numbers.numpy()
    return values, levels
