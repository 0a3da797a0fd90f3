"""Which of timm's two forms of attention is faster: torch's fused kernel, or two batched products with a softmax.

On CPUs in bfloat16 the backward pass of the fused kernel (`_scaled_dot_product_flash_attention_for_cpu_backward`) is
slower than the products while an image has few tokens; it saves memory that is not short then. Forward alone and in
float32 it is as fast or faster. Forward and backward of ViT-S/16 on a core of an Intel Xeon with AMX, CPU time fused
relative to products:

    tokens       9     36    196    576   1024
    bfloat16  2.13   1.63   1.31   1.37   1.01
    float32   0.99   0.98   0.94   0.85   0.76
"""

from typing import Any

import torch
from torch import nn

FEW_TOKENS = 600  # per image, below which products are faster


def choose_attention(network: nn.Module) -> nn.Module:
    """Let each attention layer of timm choose its form per call; where timm is set to products only, they stay.

    Networks in training mode use products: with GradCache the pass without gradients then has the same rounding as the
    one with them.
    """
    for module in network.modules():
        if getattr(module, "fused_attn", False) is True:
            module.register_forward_pre_hook(_choose)
    return network


def products_are_faster(tokens: torch.Tensor) -> bool:
    """Return whether two products train faster on `tokens` [B, N, D], with autocast as it is now."""
    few = tokens.ndim == 3 and tokens.shape[1] <= FEW_TOKENS
    half = torch.is_autocast_enabled("cpu") or tokens.dtype == torch.bfloat16
    return few and half and tokens.device.type == "cpu"


def _choose(module: Any, inputs: tuple[Any, ...]) -> None:
    fused = not (module.training and products_are_faster(inputs[0]))
    if module.fused_attn != fused:  # a compiled network sees no change where there is none
        module.fused_attn = fused
