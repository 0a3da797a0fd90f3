"""Convolutions at the sizes where oneDNN's weight gradients are wrong."""

import itertools
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from timm.layers import StdConv2d
from torch import nn

from octdino.config import ModelSettings
from octdino.models.backbones import create_backbone
from octdino.models.convolutions import avoid_onednn_defects, meets_only_padding

# The C library fills freed and new memory with 0x7f (as bfloat16: 3.4e38) and aborts where its heap is corrupted.
POISONED = {"MALLOC_PERTURB_": "128", "MALLOC_MMAP_MAX_": "0", "MALLOC_CHECK_": "3"}
GRADIENTS = """
import torch
from torch import nn
from octdino.models.convolutions import avoid_onednn_defects
torch.manual_seed(0)
for channels, kernel, stride, size in {cases}:
    plain = nn.Conv2d(channels, 16, kernel, stride, kernel // 2)
    guarded = avoid_onednn_defects(nn.Sequential(plain)).to(memory_format=torch.channels_last)
    images = torch.randn(16, channels, size, size).contiguous(memory_format=torch.channels_last)
    weight = plain.weight.detach().double().requires_grad_()
    nn.functional.conv2d(images.double(), weight, None, stride, kernel // 2).sum().backward()
    for _ in range(5):
        guarded.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled={bfloat16}):
            features = guarded(images)
        features.float().sum().backward()
        torch.testing.assert_close(plain.weight.grad.double(), weight.grad, rtol=0.02, atol=0.3)
"""


def run_poisoned(cases: list[tuple[int, int, int, int]], bfloat16: bool, **env: str) -> None:
    """Weight gradients of (channels, kernel, stride, size) against float64, in a process with poisoned memory."""
    code = GRADIENTS.format(cases=cases, bfloat16=bfloat16)
    subprocess.run([sys.executable, "-c", code], env={**os.environ, **POISONED, **env}, check=True, timeout=300)


def test_bfloat16_weight_gradients_where_the_kernel_meets_only_padding_are_those_of_float64() -> None:
    run_poisoned([(8, 3, 2, 1), (64, 3, 2, 1), (16, 5, 2, 1), (128, 7, 1, 2), (8, 3, 2, 4)], bfloat16=True)


def test_strided_1x1_convolutions_of_few_channels_corrupt_no_memory_on_avx2() -> None:
    cases = [(channels, 1, 2, size) for channels in (1, 4, 8) for size in (4, 16)]
    run_poisoned(cases, bfloat16=False, ONEDNN_MAX_CPU_ISA="AVX2", ATEN_CPU_CAPABILITY="avx2")


@pytest.mark.parametrize("kernel", [1, 2, 3, 5, 7])
def test_meets_only_padding_is_where_a_convolution_of_ones_has_no_gradient(kernel: int) -> None:
    for size, stride, dilation in itertools.product(range(1, 9), (1, 2, 3), (1, 2)):
        for padding in {0, kernel // 2, kernel - 1}:
            if size + 2 * padding < dilation * (kernel - 1) + 1:
                continue
            weight = torch.ones(1, 1, kernel, dtype=torch.float64, requires_grad=True)
            image = torch.ones(1, 1, size, dtype=torch.float64)
            F.conv1d(image, weight, stride=stride, padding=padding, dilation=dilation).sum().backward()
            assert weight.grad is not None
            assert meets_only_padding(size, kernel, stride, padding, dilation) == bool((weight.grad == 0).any())


@pytest.mark.parametrize(
    ("arguments", "size"),
    [
        ({"kernel_size": 3, "stride": 2, "padding": 1}, 1),
        ({"kernel_size": 3, "stride": 2, "padding": 1}, 7),
        ({"kernel_size": 1, "stride": 2}, 7),
        ({"kernel_size": 1, "stride": (2, 1), "groups": 2}, 6),
        ({"kernel_size": 1, "stride": 2, "padding": 1}, 5),
        ({"kernel_size": 3, "padding": "same", "bias": False}, 1),
    ],
)
def test_a_guarded_convolution_computes_what_the_plain_one_does(arguments: dict[str, object], size: int) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(4, 6, **arguments)
    guarded = avoid_onednn_defects(nn.Sequential(nn.Conv2d(4, 6, **arguments)))
    guarded.load_state_dict({f"0.{name}": value for name, value in plain.state_dict().items()})
    image = torch.randn(3, 4, size, size)
    torch.testing.assert_close(guarded(image), plain(image))


def test_a_convolution_that_changes_its_weight_still_does() -> None:
    torch.manual_seed(0)
    standardised = StdConv2d(8, 16, 1, stride=2)
    image = torch.randn(2, 8, 6, 6)
    expected = standardised(image)
    assert not torch.allclose(expected, F.conv2d(image, standardised.weight, standardised.bias, 2))
    torch.testing.assert_close(avoid_onednn_defects(nn.Sequential(standardised))(image), expected)


def test_guarding_twice_is_guarding_once_and_names_stay() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3))
    names = list(network.state_dict())
    once = type(avoid_onednn_defects(network)[0])
    assert type(avoid_onednn_defects(network)[0]) is once
    assert list(network.state_dict()) == names
    assert once.__name__ == "Conv2d"


def test_every_convolution_of_a_backbone_is_guarded() -> None:
    network = create_backbone(ModelSettings(timm="resnet18", args={"channels": [8, 8, 8, 8]}), 1, 32)
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    before = [type(module) for module in convolutions]
    avoid_onednn_defects(network)
    assert [type(module) for module in convolutions] == before
