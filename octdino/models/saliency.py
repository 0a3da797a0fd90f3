"""Saliency maps: attention of a ViT, and one map per label of a linear classifier (CAM, Grad-CAM, projection)."""

import logging
from typing import Any, cast

import torch
import torch.nn.functional as F
from timm.models.eva import Eva
from timm.models.vision_transformer import Attention, VisionTransformer
from torch import Tensor, nn

from octdino.config.names import Readout
from octdino.models.backbones import num_features
from octdino.models.readouts import forward_layers

log = logging.getLogger("octdino.explain")


def has_attention(backbone: nn.Module) -> bool:
    """Return whether `attention` can read this network."""
    return isinstance(backbone, VisionTransformer) and isinstance(getattr(backbone.blocks[-1], "attn", None), Attention)


def attention_query(backbone: nn.Module) -> str:
    """Return the name of the query token whose attention `attention` returns."""
    return "class token" if cast(VisionTransformer, backbone).cls_token is not None else "mean over patches"


def whole_patches(backbone: nn.Module, size: int) -> int:
    """Return the largest side up to `size` px that a ViT's patches divide; `size` for other networks."""
    if not isinstance(backbone, VisionTransformer | Eva):
        return size
    return size - size % int(backbone.patch_embed.patch_size[0])


@torch.no_grad()
def attention(backbone: nn.Module, images: Tensor) -> Tensor:
    """Return the last block's attention to the patches, per head (Caron et al. 2021, fig. 1): float32 [B, heads, h, w].

    Of the class token; of the mean over all patches where there is none. It is computed once more from what enters the
    block's attention, because fused kernels keep no weights. Rows sum to less than 1: prefix tokens get the rest.

    Args:
        backbone: a ViT for which `has_attention` is true, in eval mode.
        images: [B, C, S, S], standardized.
    """
    vit = cast(VisionTransformer, backbone)
    attn = cast(Attention, vit.blocks[-1].attn)
    entered: list[Tensor] = []
    with attn.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0])):
        vit.forward_features(images)
    x = entered[0]
    batch, tokens, _ = x.shape
    q, k, _ = attn.qkv(x).reshape(batch, tokens, 3, attn.num_heads, attn.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
    first = vit.num_prefix_tokens
    q = q[:, :, :1] if vit.cls_token is not None else q[:, :, first:]
    weights = (attn.q_norm(q) * attn.scale @ attn.k_norm(k).transpose(-2, -1)).softmax(-1)
    rows, columns = vit.patch_embed.dynamic_feat_size((images.shape[-2], images.shape[-1]))
    return cast(Tensor, weights[..., first:].mean(2).view(batch, attn.num_heads, rows, columns).float())


@torch.no_grad()
def last_map(backbone: nn.Module, images: Tensor) -> Tensor | None:
    """Return a CNN's last feature map [B, C, h, w], or the patches of a ViT after its last norms as such a map.

    None for networks whose features have another form.
    """
    network: Any = backbone  # timm's methods, which nn.Module does not declare
    found = network.forward_features(images)
    if isinstance(backbone, VisionTransformer | Eva):
        patches = backbone.fc_norm(found[:, backbone.num_prefix_tokens :])
        grid = backbone.patch_embed.dynamic_feat_size((images.shape[-2], images.shape[-1]))
        return cast(Tensor, patches.transpose(1, 2).unflatten(2, grid))
    if found.ndim != 4 or found.shape[1] != backbone.num_features:  # Swin's channels come last
        return None
    return cast(Tensor, found)


def label_maps(
    backbone: nn.Module, images: Tensor, weight: Tensor, bias: Tensor, readout: Readout = "pooled"
) -> tuple[Tensor, str] | None:
    """Return one map per label of a linear classifier [L, D], [L] on features: [B, L, h, w], and the map's name.

    Of several layers the map is the sum of theirs, on the grid of the finest: so its mean is still the logit, where it
    is for one layer. Grad-CAM's map is of the pooled features alone: its values are no parts of a logit.

    cam: the classifier at each place of the last feature map (Zhou et al. 2016), where pooling is a plain mean; the
    same as `monai.visualize.CAM`, which needs a forward pass per label. gradcam: MONAI's GradCAM (Selvaraju et al.
    2017) for CNNs that do more than that between map and features. projection: the same product as cam on the patches
    of a ViT; its classifier was trained on the pooled feature, often the class token, so the map shows which patches
    resemble that feature.
    None where the network has no map.
    """
    width = num_features(backbone)
    last = _pooled_maps(backbone, images, weight[:, -width:], bias)
    if last is None or last[1] == "gradcam" or readout == "pooled":
        return last
    result, name = last
    with torch.no_grad():
        earlier, _, _ = forward_layers(backbone, images)
    start = 0
    for each in earlier:  # the finest first
        own = torch.einsum("bchw,lc->blhw", each, weight[:, start : start + each.shape[1]])
        grid = (max(own.shape[2], result.shape[2]), max(own.shape[3], result.shape[3]))
        result = _enlarged(result, grid) + _enlarged(own, grid)
        start += each.shape[1]
    return result, name


def _enlarged(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """Repeat the values of maps [B, L, h, w] on a finer grid; the mean stays where the grid is a multiple."""
    return maps if maps.shape[2:] == grid else F.interpolate(maps, size=grid, mode="nearest-exact")


def _pooled_maps(backbone: nn.Module, images: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, str] | None:
    """`label_maps` of a classifier on pooled features."""
    found = last_map(backbone, images)
    if found is None:
        return None
    if isinstance(backbone, VisionTransformer | Eva):
        name = "projection"
    else:
        network: Any = backbone
        with torch.no_grad():
            pooled = network.forward_head(found, pre_logits=True)
        mean = found.mean((2, 3))
        if pooled.shape != mean.shape or not torch.allclose(pooled, mean, rtol=1e-3, atol=1e-4):
            return _gradcam(backbone, found, weight, bias), "gradcam"
        name = "cam"
    return torch.einsum("bchw,lc->blhw", found, weight) + bias[:, None, None], name


class FromMap(nn.Module):
    """What follows the last feature map: pooling and classifier."""

    def __init__(self, backbone: nn.Module, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.last = nn.Identity()
        self.backbone: Any = backbone
        self.head = nn.Linear(weight.shape[1], weight.shape[0]).to(weight.device)
        self.head.load_state_dict({"weight": weight, "bias": bias})

    def forward(self, found: Tensor) -> Tensor:
        """[B, C, h, w] to logits [B, L]."""
        pooled = self.backbone.forward_head(self.last(found), pre_logits=True)
        return cast(Tensor, self.head(pooled))


def _gradcam(backbone: nn.Module, found: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    from monai.visualize import GradCAM  # ten seconds of imports, for those networks only that need it

    cam = GradCAM(nn_module=FromMap(backbone, weight, bias), target_layers="last")
    leaf = found.detach().requires_grad_()
    return torch.cat([cam.compute_map(leaf, class_idx=label) for label in range(len(weight))], dim=1).detach()
