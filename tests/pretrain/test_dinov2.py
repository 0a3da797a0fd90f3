"""DINOv2: losses and gradients against naive loops and lightly, masks, and what its networks see."""

import copy
import math

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from lightly.loss import IBOTPatchLoss, KoLeoLoss
from pydantic import ValidationError

from octdino.config import AugmentSettings, ModelSettings
from octdino.config.methods import Dinov2Settings
from octdino.errors import UserError
from octdino.models import create_backbone
from octdino.pretrain.methods.base import Batch
from octdino.pretrain.methods.dino import dino_loss
from octdino.pretrain.methods.dinov2 import BLOCKS, Dinov2, _add, draw_masks, ibot_loss, koleo_loss, random_blocks

STUDENT_TEMP, TEACHER_TEMP = 0.1, 0.04


def gradient(loss, inputs):
    return torch.autograd.grad(loss, inputs, retain_graph=True)[0]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# iBOT

MASKS = {
    "several images": [[1, 0, 1, 1], [0, 1, 0, 0], [1, 1, 1, 1]],
    "one without": [[1, 0, 1, 1], [0, 0, 0, 0], [0, 1, 0, 0]],
    "one image": [[0, 1, 1, 0]],
    "one patch": [[0, 0, 1, 0]],
}


def logits_of(mask, scale):
    """Teacher's and student's, [M, K]."""
    teacher, student = torch.randn(2, int(mask.sum()), 11, generator=generator(1)) * scale
    return teacher, student.requires_grad_()


def our_ibot(teacher, student, mask):
    return ibot_loss(torch.log_softmax(student / STUDENT_TEMP, -1), torch.softmax(teacher / TEACHER_TEMP, -1), mask)


def naive_ibot(teacher, student, mask):
    total, row = torch.zeros(()), 0
    for image in mask:
        for _ in range(int(image.sum())):
            p = torch.softmax(teacher[row] / TEACHER_TEMP, -1)
            log_q = torch.log_softmax(student[row] / STUDENT_TEMP, -1)
            total = total - sum(a * b for a, b in zip(p, log_q, strict=True)) / image.sum()
            row += 1
    return total / len(mask)


@pytest.mark.parametrize("mask", MASKS.values(), ids=[name.replace(" ", "-") for name in MASKS])
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_ibot_equals_lightly_and_the_double_loop(mask, scale):
    mask = torch.tensor(mask, dtype=torch.bool)
    teacher, student = logits_of(mask, scale)
    ours = our_ibot(teacher, student, mask)
    lightly = IBOTPatchLoss(output_dim=11, teacher_temp=TEACHER_TEMP, student_temp=STUDENT_TEMP)
    for theirs in (lightly(teacher, student, mask.view(-1, 2, 2)), naive_ibot(teacher, student, mask)):
        assert ours > 0
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(gradient(ours, student), gradient(theirs, student), rtol=1e-5, atol=1e-5)


def test_ibot_weighs_images_alike_however_many_patches_they_hide():
    mask = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0]], dtype=torch.bool)
    teacher = torch.eye(2)[[0, 0, 0, 0, 1]]
    student = torch.tensor([[0.9, 0.1]] * 4 + [[0.5, 0.5]]).log()
    assert ibot_loss(student, teacher, mask).item() == pytest.approx((-math.log(0.9) - math.log(0.5)) / 2)


# KoLeo


@pytest.mark.parametrize("batch", [2, 9])
def test_koleo_equals_lightly_when_all_groups_differ(batch):
    features = (torch.randn(batch, 6, generator=generator()) * 7).requires_grad_()
    ours, theirs = koleo_loss(features, torch.arange(batch)), KoLeoLoss()(features)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient(ours, features), gradient(theirs, features), rtol=1e-5, atol=1e-5)


def naive_koleo(features, groups):
    x = F.normalize(features, dim=-1)
    terms = []
    for i in range(len(x)):
        distances = [(x[i] - x[j]).norm() for j in range(len(x)) if groups[j] != groups[i]]
        terms += [-torch.log(min(distances))] if distances else []
    return sum(terms) / len(terms)


@pytest.mark.parametrize("groups", [[0, 0, 1, 2, 1], [3, 3, 3, 3, 1]])
def test_koleo_looks_for_neighbours_in_other_groups(groups):
    features = torch.randn(5, 6, generator=generator())
    features[1] = features[0] + 1e-3  # a neighbouring slice: the nearest of all, of the same group
    features.requires_grad_()
    ours, naive = koleo_loss(features, torch.tensor(groups)), naive_koleo(features, groups)
    torch.testing.assert_close(ours, naive, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient(ours, features), gradient(naive, features), rtol=1e-5, atol=1e-5)
    assert ours < koleo_loss(features, torch.arange(5)) - 0.5


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_koleo_of_exact_copies_is_finite(scale):
    row = torch.randn(6, generator=generator())
    features = (torch.stack([row, row, row, -row]) * scale).requires_grad_()
    loss = koleo_loss(features, torch.arange(4))
    assert 5 < loss < 20, "copies are the worst there is"
    assert torch.isfinite(gradient(loss, features)).all()
    assert gradient(loss, features).norm() < 1 / scale


def test_koleo_of_near_copies_has_a_bounded_gradient():
    row = F.normalize(torch.randn(6, generator=generator()), dim=0)
    for distance in (1e-7, 1e-6, 1e-5, 1e-4, 1e-3):
        features = torch.stack([row, row + distance * torch.eye(6)[0]]).requires_grad_()
        assert gradient(koleo_loss(features, torch.arange(2)), features).norm() < 1e4


@pytest.mark.parametrize("groups", [[0], [0, 0, 0]])
def test_koleo_without_any_other_group_is_zero(groups):
    features = torch.randn(len(groups), 6, generator=generator()).requires_grad_()
    loss = koleo_loss(features, torch.tensor(groups))
    assert loss == 0
    assert torch.equal(gradient(loss, features), torch.zeros_like(features))


def test_koleo_does_not_suffer_from_bfloat16():
    features = torch.randn(16, 64, generator=generator()) * 0.01 + 1  # distances bfloat16 products would not see
    expected = koleo_loss(features, torch.arange(16))
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(koleo_loss(features, torch.arange(16)), expected)


# Masks


@pytest.mark.parametrize("grid", [(14, 14), (6, 6), (4, 4), (5, 9)])
@pytest.mark.parametrize("ratios", [(0.1, 0.5), (0.3, 0.3), (0.01, 0.02), (0.9, 1.0)])
def test_masks_hide_a_share_within_bounds_of_a_share_of_images(grid, ratios):
    mask = draw_masks(40, grid, 0.5, ratios, generator())
    patches = grid[0] * grid[1]
    assert mask.shape == (40, patches)
    assert mask.dtype == torch.bool
    hidden = mask.sum(1)
    chosen = hidden[hidden > 0]
    assert len(chosen) == 20
    assert (chosen >= ratios[0] * patches).all()
    assert (chosen < ratios[1] * patches + 1).all()
    if ratios == (0.1, 0.5) and patches > 100:  # one image a stratum of ratios
        low, high = (0.1 * patches, 0.5 * patches)
        expected = low + (high - low) * (torch.arange(20) + 0.5) / 20
        assert (chosen.sort()[0] - expected).abs().max() < (high - low) / 40 + 1


def test_masks_follow_the_generator():
    first, again, other = (draw_masks(12, (14, 14), 0.5, (0.1, 0.5), generator(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_every_image_and_every_patch_may_be_masked():
    masks = torch.stack([draw_masks(4, (6, 6), 0.5, (0.1, 0.5), generator(seed)) for seed in range(60)])
    assert masks.any((0, 2)).all()
    share = masks.float().mean((0, 1))
    assert share.min() > 0.03
    assert share.max() < 0.35


@pytest.mark.parametrize(("count", "probability", "chosen"), [(1, 0.1, 1), (2, 0.5, 1), (3, 1.0, 3), (10, 0.2, 2)])
def test_at_least_one_image_is_masked(count, probability, chosen):
    mask = draw_masks(count, (4, 4), probability, (0.1, 0.5), generator())
    assert mask.any(1).sum() == chosen


def test_masks_are_blocks_and_not_scattered_patches():
    """A masked patch's neighbour is masked far more often than the mask's share."""
    mask = draw_masks(200, (14, 14), 1.0, (0.3, 0.3), generator()).view(-1, 14, 14)
    beside = (mask[:, :, 1:] & mask[:, :, :-1]).sum() / mask[:, :, 1:].sum()
    assert beside > 0.75
    scattered = draw_masks(200, (14, 14), 1.0, (0.3, 0.3), generator()).flatten(1)
    scattered = scattered[:, torch.randperm(196, generator=generator())].view(-1, 14, 14)
    assert (scattered[:, :, 1:] & scattered[:, :, :-1]).sum() / scattered[:, :, 1:].sum() < 0.35


def test_blocks_are_rectangles_of_the_wanted_area_and_aspect():
    drawn = torch.rand(4, 500, generator=generator())
    left = torch.full((500,), 40)
    blocks = random_blocks(drawn, (30, 30), left).view(500, 30, 30)
    height, width = blocks.any(2).sum(1), blocks.any(1).sum(1)
    assert torch.equal(blocks.sum((1, 2)), height * width)
    area = (4 + drawn[0] * 36).sqrt()
    aspect = (height / width).log().abs()
    assert ((height * width).sqrt() - area).abs().max() < 1
    assert aspect.max() < math.log(1 / 0.3) + math.log(2)  # rounding to whole patches
    assert (height > width).any()
    assert (width > height).any()


def test_blocks_reach_the_target_nearly_always_before_single_patches_fill_up():
    target = torch.full((300,), 98)
    filled = torch.zeros(300, 196, dtype=torch.bool)
    for drawn in torch.rand(BLOCKS, 4, 300, generator=generator()):
        filled = _add(filled, target, random_blocks(drawn, (14, 14), target - filled.sum(1)))
        assert (filled.sum(1) <= target).all()
    assert (target - filled.sum(1)).float().mean() < 2


# The method

TABLE = pd.DataFrame({"eye": list("aabbcd"), "patient": list("aaaacc")})


def vit(**args):
    return create_backbone(ModelSettings(timm="test_vit", args={"patch_size": 8, **args}), 1, 32)


def dinov2(args=None, **changes):
    torch.manual_seed(0)
    sizes = {"prototypes": 16, "hidden_dim": 8, "bottleneck_dim": 8}
    return Dinov2(Dinov2Settings(**{**sizes, **changes}).resolved(100), lambda: vit(**(args or {})), 64)


def make_batch(method, size=6, large=32, small=16, local=2, progress=0.5):
    kinds = method.views(AugmentSettings(global_size=large, local_size=small, local_views=local))
    return Batch(
        views=[torch.randn(kind.count, size, 1, kind.size, kind.size, generator=generator(1)) for kind in kinds],
        drawn=method.draw(size, generator()),
        targets=method.targets(TABLE)[:size],
        progress=progress,
    )


def loss_of(method, batch):
    with torch.no_grad():
        taught = method.teach(batch)
    return method.loss(method.encode(batch), taught, batch)


@pytest.mark.parametrize("shared_head", [False, True])
@pytest.mark.parametrize("centering", ["sinkhorn", "mean"])
def test_a_step_on_large_and_small_views(shared_head, centering):
    method = dinov2({"drop_path_rate": 0.1}, shared_head=shared_head, centering=centering)
    assert ("patch_head" in method.student) == ("patch_head" in method.teacher) == (not shared_head)
    batch = make_batch(method, large=96, small=48)
    assert batch.drawn["mask"].shape == (2, 6, 144)
    loss, scalars = loss_of(method, batch)
    loss.backward()
    assert scalars.keys() == {"teacher_entropy", "kl", "dino", "ibot", "koleo"}
    expected = scalars["dino"] + scalars["ibot"] + 0.1 * scalars["koleo"]
    torch.testing.assert_close(loss.detach(), expected)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in method.trained.parameters())
    before = copy.deepcopy(method.teacher)
    with torch.no_grad():
        for parameter in method.student.parameters():
            parameter.add_(1.0)
    method.after_step(0.0)
    moved = zip(before.named_parameters(), method.teacher.named_parameters(), strict=True)
    assert all(not torch.equal(old, new) for (_, old), (_, new) in moved)


def test_the_loss_is_what_the_paper_adds_up():
    """Put together anew from the networks, with softmax targets of the untouched centre."""
    method = dinov2(centering="mean", head_norm=False, koleo_weight=0.3, patch_weight=2.0)
    batch = make_batch(method)
    (large, small), mask, s = batch.views, batch.drawn["mask"], method.settings
    temp = method.teacher_temp(batch.progress)
    student, teacher = method.student, method.teacher
    views, patch_rows, taught_views, taught_rows = [], [], [], []
    for view, hidden in zip(large, mask, strict=True):
        pooled, patches = student["backbone"](view, hidden)
        views.append(pooled)
        patch_rows.append(student["patch_head"](patches[hidden]))
        tokens = teacher["backbone"].vit.forward_features(view)
        taught_views.append(teacher["head"](tokens[:, 0]))
        taught_rows.append(teacher["patch_head"](tokens[:, 1:][hidden]))
    koleo = sum(koleo_loss(view, batch.targets[:, 0]) for view in views)
    views += [student["backbone"].vit(view) for view in small]
    log_views = torch.stack([torch.log_softmax(student["head"](view) / s.student_temp, -1) for view in views])
    dino = dino_loss(log_views, torch.softmax(torch.stack(taught_views) / temp, -1))
    log_rows = torch.log_softmax(torch.cat(patch_rows) / s.student_temp, -1)
    ibot = ibot_loss(log_rows, torch.softmax(torch.cat(taught_rows) / temp, -1), mask.flatten(0, 1))
    loss, _ = loss_of(method, batch)
    torch.testing.assert_close(loss, dino + 2.0 * ibot + 0.3 * koleo, rtol=1e-5, atol=1e-5)


def test_the_teacher_sees_whole_images_and_the_student_masked_ones():
    method = dinov2()
    batch = make_batch(method)
    changed = copy.deepcopy(batch)
    image, patch = batch.drawn["mask"][0].nonzero()[0].tolist()
    row, column = divmod(patch, 4)
    changed.views[0][0, image, :, row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] += 5
    with torch.no_grad():
        before, after = method.encode(batch), method.encode(changed)
        assert all(torch.equal(before[key], after[key]) for key in before)
        before, after = method.teach(batch), method.teach(changed)
    assert not torch.allclose(before["patches"][0, image], after["patches"][0, image], atol=1e-3)
    assert not torch.allclose(before["views"][0, image], after["views"][0, image], atol=1e-3)
    assert torch.equal(before["views"][1], after["views"][1])


def test_the_teacher_starts_equal_shares_no_storage_and_is_not_trained():
    method = dinov2()
    for network in method.student:
        pairs = zip(method.student[network].parameters(), method.teacher[network].parameters(), strict=True)
        for ours, theirs in pairs:
            assert torch.equal(ours, theirs)
            assert ours.data_ptr() != theirs.data_ptr()
            assert ours.requires_grad
            assert not theirs.requires_grad


def test_only_the_student_drops_paths():
    method = dinov2({"drop_path_rate": 0.5})
    batch = make_batch(method)
    with torch.no_grad():
        assert not torch.equal(method.encode(batch)["patches"], method.encode(batch)["patches"])
        assert torch.equal(method.teach(batch)["patches"], method.teach(batch)["patches"])


def test_features_have_the_images_on_their_second_axis():
    """What accumulation relies on: a part's features are the whole's rows."""
    method = dinov2()
    batch = make_batch(method)
    with torch.no_grad():
        for features in (method.encode, method.teach):
            whole = features(batch)
            parts = [features(part) for part in batch.parts(3)]
            for key, value in whole.items():
                joined = torch.cat([part[key] for part in parts], dim=1)
                torch.testing.assert_close(joined, value, rtol=1e-5, atol=1e-5)
    assert whole["patches"].shape == (2, 6, 16, 64)


@pytest.mark.parametrize(("progress", "moves"), [(0.0, False), (0.9, True)])
@pytest.mark.parametrize("shared_head", [False, True])
def test_the_prototypes_of_both_heads_are_frozen_at_first(progress, moves, shared_head):
    method = dinov2(freeze_last_layer=0.5, shared_head=shared_head)
    heads = [method.student[name] for name in method.student if name != "backbone"]
    assert len(heads) == 2 - shared_head
    loss_of(method, make_batch(method))[0].backward()
    method.before_step(progress)
    for head in heads:
        assert (head.prototypes.weight.grad is not None) == moves
        assert head.mlp[0].weight.grad.abs().sum() > 0


def test_the_centres_of_views_and_patches_are_their_own():
    method = dinov2(centering="mean", center_momentum=0.9)
    batch = make_batch(method)
    with torch.no_grad():
        taught = method.teach(batch)
        views = method.teacher["head"](taught["views"].flatten(0, 1))
        patches = method.teacher["patch_head"](taught["patches"][batch.drawn["mask"]])
    loss_of(method, batch)
    torch.testing.assert_close(method.center.center, 0.1 * views.mean(0), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(method.patch_center.center, 0.1 * patches.mean(0), rtol=1e-4, atol=1e-6)
    assert method.patch_center.usage.sum() == batch.drawn["mask"].sum(), "masked patches only"


def test_an_epochs_measures_are_of_views_and_of_patches():
    method = dinov2()
    loss_of(method, make_batch(method))
    scalars = method.end_epoch()
    measures = {"mean_entropy", "prototypes_used", "ln_k"}
    assert scalars.keys() == measures | {f"patch_{name}" for name in measures}
    assert scalars["patch_prototypes_used"] > 1 / 16
    assert method.patch_center.usage.sum() == 0


@pytest.mark.parametrize(("apart", "groups"), [("all", 6), ("other_eyes", 4), ("other_patients", 2)])
def test_koleo_knows_which_scans_are_alike(apart, groups):
    targets = dinov2(koleo_neighbours=apart).targets(TABLE)
    assert targets.shape == (6, 1)
    assert len(targets.unique()) == groups


@pytest.mark.parametrize("centering", ["sinkhorn", "mean"])
def test_it_works_in_bfloat16(centering):
    method = dinov2(centering=centering)
    batch = make_batch(method)
    plain = copy.deepcopy(method)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = method.encode(batch)["patches"]
        loss, scalars = loss_of(method, batch)
    assert not torch.equal(rounded, method.encode(batch)["patches"]), "autocast must do something here"
    loss.backward()
    assert loss.dtype == torch.float32
    assert all(value.dtype == torch.float32 and torch.isfinite(value) for value in scalars.values())
    assert all(torch.isfinite(p.grad).all() for p in method.trained.parameters() if p.grad is not None)
    assert loss.item() == pytest.approx(loss_of(plain, batch)[0].item(), rel=0.1)


def test_one_image_is_enough():
    method = dinov2()
    loss, scalars = loss_of(method, make_batch(method, size=1))
    assert torch.isfinite(loss)
    assert scalars["koleo"] == 0
    assert scalars["ibot"] > 0


def test_users_get_the_teachers_plain_vit():
    method = dinov2()
    plain = vit()
    plain.load_state_dict(method.exported.state_dict())
    assert method.exported is method.teacher["backbone"].vit
    images = torch.randn(2, 1, 32, 32)
    assert torch.equal(plain.eval()(images), method.exported.eval()(images))


def test_a_resnet_is_refused_with_one_line():
    def resnet():
        return create_backbone(ModelSettings(timm="test_resnet"), 1, 32)

    with pytest.raises(UserError, match=r"masks patches.*vision transformer.*not a ResNet.*backbones"):
        Dinov2(Dinov2Settings().resolved(100), resnet, resnet().num_features)


def test_the_learning_rate_is_the_papers_at_1024_images():
    assert Dinov2Settings().peak_lr(1024) == pytest.approx(4e-3)


@pytest.mark.parametrize("ratio", [(0.5, 0.1), (0.0, 0.5), (0.1, 1.1)])
def test_impossible_mask_ratios_are_refused(ratio):
    with pytest.raises(ValidationError, match="mask_ratio: 0 < low <= high <= 1"):
        Dinov2Settings(mask_ratio=ratio)
