"""Read-outs of a frozen backbone: which of its features become embeddings.

pooled: the model's own features before a classifier, [B, num_features].
layers: those of earlier layers before them. CNN: the means of the two stages before the last one. Vision transformer:
    the class tokens of the three blocks before the last one, after the final norm (the means over the patches where
    there is no class token), as in DINO's linear evaluation (Caron et al. 2021, appendix F.2: the last four blocks).
"""

from collections.abc import Iterable
from typing import Any, cast

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from octdino.config.names import Readout
from octdino.errors import UserError

STAGES = 3  # of a CNN, with the last one
BLOCKS = 4  # of a vision transformer, with the last one


def forward_layers(backbone: nn.Module, images: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Run a backbone once and return the maps and the features of its earlier layers, and its last output.

    Args:
        images: [B, C, S, S], standardized.

    Returns:
        Maps [B, D_i, h_i, w_i] and features [B, D_i] of the layers before the last one, in the network's order, and
        what `backbone.forward_features` returns.

    Raises:
        UserError: timm gives no intermediate layers of this network.
    """
    if not hasattr(backbone, "forward_intermediates"):
        raise UserError(
            f"embed.readout: layers: timm gives no earlier layers of a {type(backbone).__name__}; expected pooled"
        )
    if isinstance(backbone, VisionTransformer):
        count, tokens = min(BLOCKS, len(backbone.blocks)), backbone.cls_token is not None
        last, found = backbone.forward_intermediates(images, count, return_prefix_tokens=tokens, norm=True)
        if not tokens:
            return found[:-1], [each.mean((2, 3)) for each in found[:-1]], last
        return [patches for patches, _ in found[:-1]], [prefix[:, 0] for _, prefix in found[:-1]], last
    network: Any = backbone  # timm's methods, which nn.Module does not declare
    last, maps = network.forward_intermediates(images, indices=min(STAGES, len(network.feature_info)))
    return maps[:-1], [each.mean((2, 3)) for each in maps[:-1]], last


def read_out(backbone: nn.Module, images: Tensor, readout: Readout) -> Tensor:
    """Return the features [B, D] of standardized images [B, C, S, S]."""
    # `forward`, not the call: a training run may have compiled that for its own views.
    if readout == "pooled":
        return cast(Tensor, backbone.forward(images))
    _, earlier, last = forward_layers(backbone, images)
    network: Any = backbone
    return torch.cat([*earlier, network.forward_head(last, pre_logits=True)], 1)


@torch.no_grad()
def extract_features(backbone: nn.Module, batches: Iterable[Tensor], readout: Readout = "pooled") -> Tensor:
    """Return the embeddings of standardized batches [B, C, S, S]: float32 [N, D] on the CPU; eval mode, no gradient."""
    training = backbone.training
    backbone.eval()
    features = torch.cat([read_out(backbone, batch, readout).float().cpu() for batch in batches])
    backbone.train(training)
    return features
