"""The first convolution of published weights, fitted to the channels of the scans and to one standardization."""

import torch
from timm.models import adapt_input_conv
from torch import Tensor, nn

from octdino.config.preprocessor import PublishedInput

Tensors = dict[str, Tensor]


def first_convolutions(backbone: nn.Module) -> tuple[str, ...]:
    """Return the names of the layers that see the image."""
    convs = getattr(backbone, "pretrained_cfg", {}).get("first_conv")
    if not convs:
        return (next(iter(backbone.state_dict())).rpartition(".")[0],)
    return (convs,) if isinstance(convs, str) else tuple(convs)


def fit_first_convolution(tensors: Tensors, backbone: nn.Module, published: PublishedInput | None) -> Tensors:
    """Return the tensors with first convolutions for the backbone's channels.

    Weights for RGB are summed where scans are gray, which is the same as repeating the gray image in all three
    channels. Weights for gray images see the mean of the channels of color images.

    Args:
        published: of weights whose mean and deviation differ between channels: a gray scan is standardized by the means
            of both, and the difference goes into weight and bias, so that the output is that of the published network
            on the gray image in all channels. Without padding this is exact; with padding, or without a bias, the
            weights are scaled and the mean's difference is left out.
    """
    for name in first_convolutions(backbone):
        module, weight = dict(backbone.named_modules()).get(name), tensors.get(f"{name}.weight")
        if not isinstance(module, nn.Conv2d) or weight is None or weight.dim() != 4 or module.groups != 1:
            continue
        channels = module.in_channels
        if weight.shape[1] == channels:
            continue
        if weight.shape[1] == 1:
            tensors = tensors | {f"{name}.weight": weight.expand(-1, channels, -1, -1) / channels}
        elif weight.shape[1] == 3:
            bias = tensors.get(f"{name}.bias") if module.padding in ((0, 0), "valid") else None
            folded = _folded(weight, bias, published) if channels == 1 and published else None
            tensors = tensors | {f"{name}.weight": folded[0] if folded else adapt_input_conv(channels, weight)}
            if folded and bias is not None:
                tensors = tensors | {f"{name}.bias": folded[1]}
    return tensors


def _folded(weight: Tensor, bias: Tensor | None, published: PublishedInput) -> tuple[Tensor, Tensor] | None:
    """Return weight [D, 1, h, w] and bias [D] for a gray image z = (g - m) / s: sum over c of W_c * (g - m_c) / s_c."""
    gray = published.for_channels(1)
    if gray is None or published.mean is None or published.std is None or len(published.mean) != 3:
        return None
    (m,), (s,) = gray
    mean, std = (torch.tensor(each, dtype=torch.float64)[:, None, None] for each in (published.mean, published.std))
    scaled = weight.to(torch.float64) / std
    shift = (scaled * (m - mean)).sum((1, 2, 3))
    one = (s * scaled.sum(1, keepdim=True)).to(weight.dtype)
    return one, (shift if bias is None else bias.to(torch.float64) + shift).to(weight.dtype)
