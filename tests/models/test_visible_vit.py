"""A vision transformer on visible patches only: timm's own on the same tokens, with fixed positions and less work."""

import pytest
import timm
import torch
from lightly.models import utils as lightly
from lightly.models.modules import MaskedVisionTransformerTIMM
from torch.utils.flop_counter import FlopCounterMode

from octdino.errors import UserError
from octdino.models.masked_vit import VisibleViT

KINDS = {
    "any size": {"dynamic_img_size": True},
    "fixed size": {},
    "no class token": {"class_token": False, "global_pool": "avg"},
    "registers": {"reg_tokens": 2, "no_embed_class": True},
    "embedded registers": {"reg_tokens": 2, "dynamic_img_size": True},
    "norm before the blocks": {"pre_norm": True},
}


def small_vit(size=32, name="test_vit", in_chans=1, **args):
    return timm.create_model(name, in_chans=in_chans, num_classes=0, img_size=size, patch_size=8, **args).eval()


@pytest.fixture(params=KINDS, ids=lambda kind: kind.replace(" ", "-"))
def vit(request):
    torch.manual_seed(0)
    return small_vit(**KINDS[request.param])


def images(size=32, channels=1):
    return torch.randn(3, channels, size, size, generator=torch.Generator().manual_seed(1))


def some_visible(count=4, patches=16):
    return torch.rand(3, patches, generator=torch.Generator().manual_seed(2)).argsort(1)[:, :count]


def test_it_equals_timms_layers_on_the_gathered_tokens(vit):
    encoder, visible = VisibleViT(vit, sin_cos=True), some_visible()
    for image, kept, found in zip(images(), visible, encoder(images(), visible), strict=True):
        patches = vit.patch_embed.proj(image[None]).flatten(2).transpose(1, 2)[0]
        positions = vit.pos_embed[0, -16:]
        prefix = [token[0] for token in (vit.cls_token, vit.reg_token) if token is not None]  # their positions are 0
        tokens = torch.cat([*prefix, torch.stack([patches[index] + positions[index] for index in kept])])
        expected = vit.norm(vit.blocks(vit.norm_pre(tokens[None])))[0]
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_all_patches_visible_is_the_plain_vit(vit):
    encoder = VisibleViT(vit, sin_cos=True)
    torch.testing.assert_close(encoder(images(), torch.arange(16).expand(3, -1)), vit.forward_features(images()))


@pytest.mark.parametrize("channels", [1, 3])
def test_it_equals_lightly(channels):
    vit = small_vit(in_chans=channels)
    encoder, visible = VisibleViT(vit, sin_cos=True), some_visible()
    theirs = MaskedVisionTransformerTIMM(vit, weight_initialization="skip", pos_embed_initialization="skip")
    kept = torch.cat([torch.zeros(3, 1, dtype=torch.int64), visible + 1], dim=1)  # with the class token
    expected = theirs.encode(images(channels=channels), idx_keep=kept)
    torch.testing.assert_close(encoder(images(channels=channels), visible), expected, rtol=1e-5, atol=1e-5)


def test_masked_pixels_are_not_seen_and_the_others_are(vit):
    encoder, visible = VisibleViT(vit, sin_cos=True), torch.tensor([[0, 5, 7]] * 3)
    changed = images()
    changed[:, :, 8:16, 16:24] += 5  # patch 6
    assert torch.equal(encoder(images(), visible), encoder(changed, visible))
    changed[:, :, 8:16, 24:32] += 5  # patch 7
    assert not torch.allclose(encoder(images(), visible), encoder(changed, visible), atol=1e-3)


@pytest.mark.parametrize("args", [{}, {"reg_tokens": 2}, {"class_token": False, "global_pool": "avg"}])
def test_positions_are_lightlys_fixed_ones(args):
    vit = small_vit(**args)
    expected = torch.nn.Parameter(torch.ones_like(vit.pos_embed))
    lightly.initialize_2d_sine_cosine_positional_embedding(expected, num_prefix_tokens=vit.num_prefix_tokens)
    VisibleViT(vit, sin_cos=True)
    torch.testing.assert_close(vit.pos_embed.detach(), expected.detach(), rtol=0, atol=1e-6)
    assert not vit.pos_embed.requires_grad


def test_trained_positions_are_kept_and_not_trained():
    vit = small_vit()
    before = vit.pos_embed.detach().clone()
    VisibleViT(vit, sin_cos=False)
    assert torch.equal(vit.pos_embed, before)
    assert not vit.pos_embed.requires_grad


def test_its_weights_load_into_timm_and_give_the_same_features():
    encoder, plain = VisibleViT(small_vit(dynamic_img_size=True), sin_cos=True), small_vit(dynamic_img_size=True)
    plain.load_state_dict(encoder.vit.state_dict())
    for size in (32, 48):
        assert torch.equal(plain(images(size)), encoder.vit(images(size)))


def test_the_blocks_process_only_visible_tokens():
    encoder, seen = VisibleViT(small_vit(size=96), sin_cos=True), []
    encoder.vit.blocks[0].register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[1]))
    flops = []
    for count in (144, 36):
        with FlopCounterMode(display=False) as counter:
            encoder(images(96), some_visible(count, 144))
        flops.append(counter.get_flop_counts()["VisibleViT.vit.blocks"])
    assert seen == [145, 37]
    assert sum(flops[1].values()) / sum(flops[0].values()) < 37 / 145, "attention falls with the square"


def test_no_hook_stays_behind_after_an_error():
    encoder = VisibleViT(small_vit(), sin_cos=True)
    with pytest.raises(RuntimeError):
        encoder(images(), torch.tensor([[99]] * 3))
    assert not encoder.vit.patch_drop._forward_hooks


@pytest.mark.parametrize(("size", "grid"), [(32, (4, 4)), (96, (12, 12))])
def test_grid_of_views(size, grid):
    assert VisibleViT(small_vit(), sin_cos=True).grid(size) == grid


@pytest.mark.parametrize(
    ("size", "message"),
    [(36, r"augment\.global_size: 36 px; expected a multiple of the patch size, 8"), (8, "8 px is one patch")],
)
def test_views_that_patches_do_not_divide_raise_user_error(size, message):
    with pytest.raises(UserError, match=message):
        VisibleViT(small_vit(), sin_cos=True).grid(size)


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("test_resnet", {}, r"vision transformer \(vit_\*\), not a ResNet; .*pretrain\.variants\.<name>\.backbones"),
        ("test_vit", {"patch_drop_rate": 0.2}, "patch_drop_rate must be 0"),
        ("test_vit", {"pos_embed": "none"}, "position embeddings"),
        ("test_vit", {"embed_dim": 54, "num_heads": 3}, "embed_dim that is a multiple of 4, not 54"),
        ("vit_tiny_r_s16_p8_224", {"depth": 1}, "input are patches"),
    ],
)
def test_models_that_cannot_be_masked_raise_user_error_of_one_line(name, args, message):
    with pytest.raises(UserError, match=message) as caught:
        VisibleViT(timm.create_model(name, num_classes=0, **args), sin_cos=True)
    assert "\n" not in str(caught.value)
