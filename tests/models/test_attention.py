"""The form of attention follows what is faster, and changes the result by rounding only."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import nn

from octdino.config import ModelSettings
from octdino.models.attention import FEW_TOKENS
from octdino.models.backbones import create_backbone
from octdino.models.patch_decoder import PatchDecoder


@contextmanager
def counted_kernel_calls() -> Iterator[list[int]]:
    """Count calls of torch's fused attention."""
    calls: list[int] = []
    fused = F.scaled_dot_product_attention

    def count(*args, **kwargs):
        calls.append(args[0].shape[-2])
        return fused(*args, **kwargs)

    with patch.object(F, "scaled_dot_product_attention", count):
        yield calls


def calls_of(vit: nn.Module, *, bfloat16: bool, training: bool, size: int) -> list[int]:
    """Return the calls of the fused kernel in a forward pass."""
    vit.train(training)
    with (
        counted_kernel_calls() as calls,
        torch.autocast("cpu", torch.bfloat16, enabled=bfloat16),
    ):
        vit(torch.zeros(1, 1, size, size))
    return calls


def test_products_where_they_are_faster() -> None:
    """The choice is made per call, whatever the call before was."""
    vit = create_backbone(ModelSettings(timm="test_vit"), 1, 32)
    assert not calls_of(vit, bfloat16=True, training=True, size=32)
    assert calls_of(vit, bfloat16=True, training=False, size=32)
    assert not calls_of(vit, bfloat16=True, training=True, size=32)
    assert calls_of(vit, bfloat16=False, training=True, size=32)
    assert calls_of(vit, bfloat16=True, training=True, size=16 * 25), "625 patches"


def test_both_passes_of_gradcache_have_the_same_features() -> None:
    """The first has no gradients; the loss's gradients are taken at its features."""
    vit = create_backbone(ModelSettings(timm="test_vit"), 1, 32).train()
    x = torch.randn(4, 1, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            first = vit(x)
        assert torch.equal(vit(x).detach(), first)


def test_both_forms_have_the_same_result_and_gradient() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 1, 32, 32)
    found = []
    for few in (0, FEW_TOKENS):
        torch.manual_seed(1)
        vit = create_backbone(ModelSettings(timm="test_vit"), 1, 32)
        with patch("octdino.models.attention.FEW_TOKENS", few), torch.autocast("cpu", torch.bfloat16):
            features = vit(x)
        features.float().square().mean().backward()
        gradient = torch.cat([p.grad.flatten() for p in vit.parameters() if p.grad is not None])
        found.append((features.detach().float(), gradient))
    (a, da), (b, db) = found
    assert not torch.equal(a, b), "the same kernel twice"
    assert F.cosine_similarity(a, b).min() > 0.9995
    assert F.cosine_similarity(da, db, dim=0) > 0.999


def test_the_decoder_of_masked_pixels_chooses_too() -> None:
    decoder = PatchDecoder(in_dim=32, dim=32, depth=1, prefix=1, pixels=4)
    order = torch.arange(16).expand(2, 16)
    with counted_kernel_calls() as calls, torch.autocast("cpu", torch.bfloat16):
        decoder(torch.zeros(2, 1 + 4, 32), order, (4, 4))
    assert calls == []
