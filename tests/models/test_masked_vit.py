"""A masked ViT hides exactly the masked patches, and is otherwise timm's own."""

import pytest
import timm
import torch
from lightly.models.modules import MaskedVisionTransformerTIMM

from octdino.errors import UserError
from octdino.models.masked_vit import MaskedViT

KINDS = {
    "any size": {},
    "fixed size": {"dynamic_img_size": False},
    "no class token": {"class_token": False, "global_pool": "avg"},
    "registers": {"reg_tokens": 2, "no_embed_class": True},
    "patches averaged": {"global_pool": "avg", "fc_norm": False},
}


@pytest.fixture(params=KINDS, ids=lambda kind: kind.replace(" ", "-"))
def vit(request):
    torch.manual_seed(0)
    return small_vit(**KINDS[request.param])


def small_vit(**args):
    return timm.create_model("test_vit", in_chans=1, num_classes=0, img_size=32, patch_size=8, **args).eval()


def images(size=32):
    return torch.randn(3, 1, size, size, generator=torch.Generator().manual_seed(1))


def some_mask(patches=16):
    mask = torch.rand(3, patches, generator=torch.Generator().manual_seed(2)) < 0.4
    mask[1] = False
    assert mask[0].any()
    return mask


def test_without_a_mask_it_is_the_plain_vit(vit):
    masked = MaskedViT(vit)
    pooled, patches = masked(images())
    assert torch.equal(pooled, vit(images()))
    assert torch.equal(patches, vit.forward_features(images())[:, vit.num_prefix_tokens :])
    assert patches.shape == (3, 16, vit.embed_dim)
    nothing = masked(images(), torch.zeros(3, 16, dtype=torch.bool))
    torch.testing.assert_close(nothing, (pooled, patches))


def test_with_a_mask_it_equals_lightly(vit):
    masked = MaskedViT(vit)
    theirs = MaskedVisionTransformerTIMM(
        vit, mask_token=masked.mask_token, weight_initialization="skip", pos_embed_initialization="skip"
    )
    none = torch.zeros(3, vit.num_prefix_tokens, dtype=torch.bool)
    tokens = theirs.encode(images(), mask=torch.cat([none, some_mask()], dim=1))
    pooled, patches = masked(images(), some_mask())
    torch.testing.assert_close(patches, tokens[:, vit.num_prefix_tokens :], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(pooled, vit.forward_head(tokens, pre_logits=True), rtol=1e-5, atol=1e-5)
    plain = masked(images())
    assert not torch.allclose(pooled[0], plain[0][0], atol=1e-3), "the mask must change something"
    torch.testing.assert_close(pooled[1], plain[0][1])


def test_views_of_other_sizes_equal_lightly():
    vit = small_vit()
    masked = MaskedViT(vit)
    theirs = MaskedVisionTransformerTIMM(
        vit, mask_token=masked.mask_token, weight_initialization="skip", pos_embed_initialization="skip"
    )
    assert masked.grid(48) == (6, 6)
    mask = some_mask(36)
    tokens = theirs.encode(images(48), mask=torch.cat([torch.zeros(3, 1, dtype=torch.bool), mask], dim=1))
    torch.testing.assert_close(masked(images(48), mask)[1], tokens[:, 1:], rtol=1e-5, atol=1e-5)


def test_masked_pixels_are_not_seen_and_the_others_are(vit):
    mask = torch.zeros(3, 16, dtype=torch.bool)
    mask[:, 6] = True  # second row, third column
    changed = images()
    changed[:, :, 8:16, 16:24] += 5
    masked = MaskedViT(vit)
    assert torch.equal(masked(images(), mask)[1], masked(changed, mask)[1])
    changed[:, :, 8:16, 24:32] += 5
    assert not torch.allclose(masked(images(), mask)[1], masked(changed, mask)[1], atol=1e-3)


def test_the_token_learns_from_masked_patches_only():
    masked = MaskedViT(small_vit())
    assert 0 < masked.mask_token.std() < 0.03
    first = masked(images(), some_mask())[0].square()[:, 0]  # their sum is fixed by the last norm
    (learns,) = torch.autograd.grad(first[0], masked.mask_token, retain_graph=True)
    assert learns.abs().sum() > 0
    (unmasked,) = torch.autograd.grad(first[1], masked.mask_token)
    assert unmasked.abs().sum() == 0
    assert not masked.vit.patch_embed._forward_hooks, "nothing stays behind in timm's model"


def test_drop_path_and_bfloat16_work():
    masked = MaskedViT(small_vit(drop_path_rate=0.5)).train()
    with torch.autocast("cpu", torch.bfloat16):
        first, second = masked(images(), some_mask()), masked(images(), some_mask())
    assert torch.isfinite(first[1]).all()
    assert not torch.equal(first[1], second[1])


def test_what_it_keeps_of_timm_has_timms_own_names():
    assert MaskedViT(small_vit()).vit.state_dict().keys() == small_vit().state_dict().keys()


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("test_resnet", {}, r"vision transformer \(vit_\*\), not a ResNet; .*pretrain\.variants\.<name>\.backbones"),
        ("test_vit", {"patch_drop_rate": 0.2}, "patch_drop_rate must be 0"),
    ],
)
def test_models_that_cannot_be_masked_are_one_clear_line(name, args, message):
    with pytest.raises(UserError, match=message) as caught:
        MaskedViT(timm.create_model(name, num_classes=0, **args))
    assert "\n" not in str(caught.value)
