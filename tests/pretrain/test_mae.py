"""Masked autoencoder: masks, loss and gradients compared with lightly and with loops, and what is exported."""

import copy

import pytest
import torch
from lightly.models import utils as lightly
from lightly.models.modules import MaskedVisionTransformerDecoderTIMM, MaskedVisionTransformerTIMM
from pydantic import ValidationError

from octdino.augment import View
from octdino.config import AugmentSettings, ModelSettings
from octdino.config.methods import MaeSettings
from octdino.errors import UserError
from octdino.models.backbones import create_backbone
from octdino.pretrain.methods.mae import Mae, normalize_patches, reconstruction_errors, visible_patches
from octdino.pretrain.methods.method import Batch
from octdino.training.optimizers import make_optimizer, parameter_groups


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def vit(channels=1, size=32, **args):
    return create_backbone(ModelSettings(timm="test_vit", args={"patch_size": 8, **args}), channels, size)


def mae(channels=1, size=32, args=None, **changes):
    """Return a method on a small vision transformer for views of `size` px."""
    torch.manual_seed(0)
    settings = MaeSettings(**{"decoder_dim": 32, "decoder_depth": 1, **changes}).resolved(100)
    method = Mae(settings, lambda: vit(channels, size, **(args or {})), 64)
    method.views(AugmentSettings(global_size=size))
    return method


def make_batch(method, count=6, channels=1, size=32):
    return Batch(
        views=[torch.randn(1, count, channels, size, size, generator=generator(1))],
        sampled=method.sample(count, generator()),
        targets=torch.zeros(count, 0, dtype=torch.int64),
        progress=0.5,
    )


def loss_of(method, batch):
    return method.loss(method.encode(batch), method.encode_teacher(batch), batch)[0]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("args", [{}, {"reg_tokens": 2}, {"class_token": False, "global_pool": "avg"}])
def test_loss_and_gradients_equal_lightlys(channels, args):
    method = mae(channels, args=args)
    batch = make_batch(method, channels=channels)
    images, order = batch.views[0][0], batch.sampled["order"][0]
    theirs = copy.deepcopy(method)
    backbone, parts = theirs.exported, theirs.network["decoder"]
    prefix = backbone.num_prefix_tokens
    encoder = MaskedVisionTransformerTIMM(backbone, weight_initialization="skip", pos_embed_initialization="skip")
    decoder = MaskedVisionTransformerDecoderTIMM(
        16, 32, 1, 1, num_prefix_tokens=prefix, mask_token=parts.mask_token, initialize_weights=False
    )
    lightly.initialize_2d_sine_cosine_positional_embedding(decoder.pos_embed, num_prefix_tokens=prefix)
    decoder.blocks, decoder.norm = parts.blocks, parts.norm
    first = torch.arange(prefix).expand(6, -1)
    kept, masked = torch.cat([first, order[:, :4] + prefix], 1), order[:, 4:] + prefix
    tokens = parts.embed(encoder.encode(images, idx_keep=kept))
    hidden = lightly.repeat_token(parts.mask_token, (6, 16 + prefix))
    decoded = decoder(lightly.set_at_index(hidden, kept, tokens))
    predicted = parts.predict(lightly.get_at_index(decoded, masked))
    target = lightly.get_at_index(lightly.patchify(images, 8), masked - prefix)
    expected = torch.nn.MSELoss()(predicted, lightly.normalize_mean_var(target))
    loss = loss_of(method, batch)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    loss.backward()
    expected.backward()
    for (name, ours), other in zip(method.named_parameters(), theirs.parameters(), strict=True):
        if ours.requires_grad and "fc_norm" not in name:  # after the average over patches, which the decoder replaces
            torch.testing.assert_close(ours.grad, other.grad, rtol=1e-3, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
            assert ours.grad.abs().sum() > 0, name


def test_error_is_mean_over_masked_patches_and_their_pixels():
    predicted, pixels = torch.randn(2, 3, 5), torch.randn(2, 3, 5) * 7 + 2
    expected = []
    for image in range(2):
        total = 0.0
        for patch in range(3):
            values = pixels[image, patch].tolist()
            mean = sum(values) / 5
            variance = sum((value - mean) ** 2 for value in values) / 4
            for guess, value in zip(predicted[image, patch].tolist(), values, strict=True):
                total += (guess - (value - mean) / (variance + 1e-6) ** 0.5) ** 2
        expected.append(total / 15)
    assert reconstruction_errors(predicted, pixels).tolist() == pytest.approx(expected, rel=1e-5)


def test_error_of_the_mean_of_each_patch_is_one_and_of_black_patches_zero():
    pixels = torch.randn(2, 3, 64)
    pixels[1] = -1.5
    nothing = torch.zeros(2, 3, 64)
    assert reconstruction_errors(nothing, pixels).tolist() == pytest.approx([63 / 64, 0.0], abs=1e-4)


def test_targets_do_not_depend_on_brightness_and_contrast():
    pixels = torch.randn(2, 3, 64)
    assert torch.allclose(normalize_patches(pixels)[0], normalize_patches(4 * pixels - 3)[0], atol=1e-4)


@pytest.mark.parametrize(
    ("patches", "ratio", "visible"),
    [(196, 0.75, 49), (36, 0.75, 9), (16, 0.75, 4), (9, 0.75, 2), (4, 0.9, 1), (4, 0.1, 3), (100, 0.9, 10)],
)
def test_number_of_visible_patches(patches, ratio, visible):
    assert visible_patches(patches, ratio) == visible


@pytest.mark.parametrize(("patches", "ratio"), [(196, 0.75), (36, 0.75), (64, 0.5)])
def test_number_of_visible_patches_equals_lightlys(patches, ratio):
    kept, masked = lightly.random_token_mask((2, patches), ratio, mask_class_token=True)
    assert (kept.shape[1], masked.shape[1]) == (
        visible_patches(patches, ratio),
        patches - visible_patches(patches, ratio),
    )


def test_masks_are_of_each_image_alone_uniform_and_a_function_of_the_generator():
    method = mae()
    order = method.sample(4000, generator(3))["order"]
    assert torch.equal(order, method.sample(4000, generator(3))["order"])
    assert not torch.equal(order, method.sample(4000, generator(4))["order"])
    assert torch.equal(order.sort(-1)[0], torch.arange(16).expand(1, 4000, -1))
    share = (order[0, :, :4, None] == torch.arange(16)).sum((0, 1)) / 4000
    assert (share - 0.25).abs().max() < 0.03  # 4 standard deviations
    assert len(order[0, :, :4].sort(-1)[0].unique(dim=0)) > 1300, "of 1,820 possible masks"


def test_masks_are_sorted_on_the_device_and_equal_noise_has_one_order(monkeypatch):
    assert mae().to("meta").sample(2, generator())["order"].device.type == "meta"
    noise = torch.randint(0, 4, (1, 3, 256), generator=generator())
    monkeypatch.setattr(torch, "rand", lambda *_, **__: noise.float())
    expected = [sorted(range(256), key=values.__getitem__) for values in noise[0].tolist()]  # Python's sort is stable
    assert mae(size=128).sample(3, generator())["order"][0].tolist() == expected


@pytest.mark.parametrize(("place", "seen"), [(0, True), (-1, False)])
def test_only_visible_patches_change_the_prediction(place, seen):
    method = mae()
    batch = make_batch(method, count=1)
    order = batch.sampled["order"][0]
    changed = batch.views[0][0].clone()
    row, column = divmod(order[0, place].item(), 4)
    changed[:, :, row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] += torch.randn(8, 8, generator=generator())
    with torch.no_grad():
        before, pixels = method.predict(batch.views[0][0], order)
        after, _ = method.predict(changed, order)
    assert torch.equal(before, after) == (not seen)
    assert before.shape == pixels.shape == (1, 12, 64), "loss and prediction are of masked patches"


def test_view_is_one_crop_and_nothing_else():
    augment = AugmentSettings(global_size=32)
    assert mae().views(augment) == [View(1, 32, (0.2, 1.0), crop_only=True)]
    assert mae(crop_only=False, crop_scale=(0.5, 0.9)).views(augment) == [View(1, 32, (0.5, 0.9), crop_only=False)]


def test_positions_are_fixed_and_those_of_earlier_weights_are_kept():
    torch.manual_seed(0)
    plain = vit().pos_embed.detach().clone()
    assert not torch.equal(mae().exported.pos_embed, plain)
    assert torch.equal(mae(init="imagenet").exported.pos_embed, plain)
    trained = parameter_groups(mae().trained)
    assert not any(p.shape == plain.shape for group in trained for p in group["params"])


def test_exported_weights_are_the_encoders_in_a_plain_vit():
    method, plain = mae(args={"drop_path_rate": 0.1}), vit()
    plain.load_state_dict(method.exported.state_dict())
    images = torch.randn(2, 1, 32, 32)
    tokens = method.network["backbone"].eval()(images, torch.arange(16).expand(2, -1))
    torch.testing.assert_close(plain.eval()(images), tokens[:, 0])


def test_step_in_bfloat16_is_finite_and_loss_is_float32():
    method = mae()
    batch = make_batch(method)
    plain = loss_of(method, batch).item()
    with torch.autocast("cpu", torch.bfloat16):
        loss = loss_of(method, batch)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(plain, rel=0.05)
    assert loss.item() != plain, "otherwise autocast is not tested"
    assert all(torch.isfinite(p.grad).all() for p in method.trained.parameters() if p.requires_grad)


def test_reconstruction_keeps_visible_patches_and_blanks_masked_ones():
    method = mae().eval()
    images = torch.randn(3, 1, 32, 32) * 2 + 1
    with torch.no_grad():
        pictures = method.reconstruct(images, generator())
    assert list(pictures) == ["scan", "visible", "reconstruction"]
    blank = pictures["visible"].isnan()
    assert blank.float().mean() == 0.75
    assert torch.equal(pictures["scan"], images)
    for name in ("visible", "reconstruction"):
        assert torch.equal(pictures[name][~blank], images[~blank])
    assert not torch.isclose(pictures["reconstruction"], images)[blank].all()


def test_perfect_prediction_reconstructs_the_scan(monkeypatch):
    method = mae(3).eval()
    images = torch.randn(3, 3, 32, 32) * 2 + 1
    predict = method.predict

    def exact(*args):
        _, pixels = predict(*args)
        return normalize_patches(pixels)[0], pixels

    monkeypatch.setattr(method, "predict", exact)
    torch.testing.assert_close(method.reconstruct(images, generator())["reconstruction"], images, rtol=0, atol=1e-4)


def test_optimizer_has_the_papers_betas():
    for settings, expected in ((MaeSettings(), (0.9, 0.95)), (MaeSettings(betas=(0.8, 0.9)), (0.8, 0.9))):
        optimizer = make_optimizer("adamw", parameter_groups(mae().trained), settings.adam_betas)
        assert [group["betas"] for group in optimizer.param_groups] == [expected] * 2


def test_from_500000_scans_on_the_recipe_is_the_papers():
    settings = MaeSettings().resolved(1_281_167)
    assert settings.peak_lr(4096) == pytest.approx(2.4e-3)
    assert (settings.decoder_dim, settings.decoder_depth, settings.mask_ratio) == (512, 8, 0.75)
    assert (settings.weight_decay, settings.weight_decay_end, settings.adam_betas) == (0.05, 0.05, (0.9, 0.95))
    assert MaeSettings(lr=0.002).resolved(100).peak_lr(256) == 0.002


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop_scale": (0.5, 0.1)}, "crop_scale: 0 < low <= high <= 1"),
        ({"betas": (0.9, 1.0)}, "betas: 0 <= beta < 1"),
        ({"mask_ratio": 1.0}, "mask_ratio"),
        ({"decoder_dim": 40}, "decoder_dim"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        MaeSettings(**changes)


def test_views_that_the_patches_do_not_divide_raise_user_error():
    with pytest.raises(UserError, match="multiple of the patch size, 8"):
        mae().views(AugmentSettings(global_size=36))
