"""Class maps of new scans, and overlays of them."""

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import colormaps
from PIL import Image
from torch import Tensor

from octdino.errors import UserError
from octdino.inference.scan_model import ScanModel
from octdino.models.saliency import label_maps
from octdino.scans.pictures import to_image

STRONGEST = 0.6  # opacity of an overlay where the map is 1


def class_maps(model: ScanModel, images: np.ndarray) -> np.ndarray:
    """Return one map per scan and label: float32 [N, L, H, W] from 0 to 1, each scaled to its own range.

    Args:
        images: preprocessed scans, uint8 [N, C, H, W].

    Raises:
        UserError: the head is neither linear nor fine-tuned, or the network has no map.
    """
    if model.metadata.head.kind != "linear":
        raise UserError(f"{model.folder}: {model.metadata.arm} has no class maps; expected a linear or finetune arm")
    backbone, tensors = model.network.backbone, model.tensors
    found: list[Tensor] = []
    for batch in model.network.batches(images):
        weight, bias = (tensors[name].float().to(batch.device) for name in ("weight", "bias"))
        maps = label_maps(backbone, batch, weight, bias, model.metadata.readout)
        if maps is None:
            raise UserError(f"{model.folder}: a {type(backbone).__name__} has no class maps")
        found.append(F.interpolate(maps[0].float().cpu(), size=images.shape[2:], mode="bilinear"))
    joined = torch.cat(found)
    low, high = joined.amin((2, 3), keepdim=True), joined.amax((2, 3), keepdim=True)
    return ((joined - low) / (high - low).clamp(min=1e-12)).numpy()


def overlay(image: np.ndarray, class_map: np.ndarray) -> Image.Image:
    """Return a scan with a map laid over it in color.

    Args:
        image: uint8 [C, H, W]; class_map: float [H, W] from 0 to 1.
    """
    base = np.asarray(to_image(image).convert("RGB"), np.float32) / 255
    color = np.asarray(colormaps["inferno"](class_map))[..., :3]
    alpha = STRONGEST * class_map[..., None]
    return Image.fromarray(np.rint(255 * (base * (1 - alpha) + color * alpha)).astype(np.uint8))
