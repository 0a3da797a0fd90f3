"""Convolutions that oneDNN (torch's CPU library) computes wrongly, computed another way with the same result.

Two defects, both of the weight gradient on CPUs, seen with torch 2.13.0 (oneDNN 3.12.0) and 2.15.0 (3.13.3):

1. bfloat16: where some kernel position meets nothing but padding (a 3x3 kernel with stride 2 and padding 1 on a 1x1
   feature map: small views of a ResNet), its gradient, which is 0, is read from memory that was never written: NaN,
   or another number in each run. Any channels, batch size, number of threads and memory format; of 8,000 random
   convolutions without such a position none was wrong. These run in float32.
2. float32, channels last, AVX2: a strided 1x1 convolution of fewer than 8 channels writes past its work space and
   ends in a crash, a hang or wrong numbers (https://github.com/uxlfoundation/oneDNN/issues/6035). With stride 1 it is
   right, so the input is subsampled first.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEW_CHANNELS = 16  # no fewer than a block of oneDNN's on any CPU


def avoid_onednn_defects(network: nn.Module) -> nn.Module:
    """`network`, its `nn.Conv2d` (also of subclasses) guarded in place; parameters and their names stay as they are."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and not isinstance(module, SafeConv2d):
            cls = type(module)
            module.__class__ = type(cls.__name__, (SafeConv2d, cls), {})
    return network


def meets_only_padding(size: int, kernel: int, stride: int, padding: int, dilation: int = 1) -> bool:
    """Whether, along one axis, some kernel position lies outside of the input wherever the kernel is placed.

    Args:
        size: of the input, in pixels without padding.
        kernel, stride, padding, dilation: of the convolution.
    """
    last = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride  # index of the last placement
    starts = range(-padding, last * stride - padding + 1, stride)
    return any(all(not 0 <= start + tap * dilation < size for start in starts) for tap in range(kernel))


class SafeConv2d(nn.Conv2d):
    """Conv2d that avoids the shapes whose gradients oneDNN computes wrongly on CPUs."""

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return super().forward(x)
        if isinstance(self.padding, tuple):
            if self.kernel_size == (1, 1) and self.padding == (0, 0) and max(self.stride) > 1:
                if self.in_channels < FEW_CHANNELS and type(self).__mro__[2] is nn.Conv2d:  # no other use of the weight
                    x = x[:, :, :: self.stride[0], :: self.stride[1]]
                    return F.conv2d(x, self.weight, self.bias, groups=self.groups)
            elif any(map(meets_only_padding, x.shape[-2:], self.kernel_size, self.stride, self.padding, self.dilation)):
                with torch.autocast("cpu", enabled=False):
                    return super().forward(x.to(self.weight.dtype))
        return super().forward(x)
