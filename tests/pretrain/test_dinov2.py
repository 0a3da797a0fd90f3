"""DINOv2: inputs of its networks, which are trained, and what is exported."""

import copy

import pandas as pd
import pytest
import torch
from pydantic import ValidationError

from octdino.config import AugmentSettings, ModelSettings
from octdino.config.methods import Dinov2Settings
from octdino.errors import UserError
from octdino.models.backbones import create_backbone
from octdino.pretrain.methods.dino import dino_loss
from octdino.pretrain.methods.dinov2 import Dinov2, ibot_loss, koleo_loss
from octdino.pretrain.methods.method import Batch


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


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
        sampled=method.sample(size, generator()),
        targets=method.targets(TABLE)[:size],
        progress=progress,
    )


def loss_of(method, batch):
    with torch.no_grad():
        teacher_features = method.encode_teacher(batch)
    return method.loss(method.encode(batch), teacher_features, batch)


@pytest.mark.parametrize("shared_head", [False, True])
@pytest.mark.parametrize("centering", ["sinkhorn", "mean"])
def test_step_on_large_and_small_views_has_finite_loss_and_moves_teacher(shared_head, centering):
    method = dinov2({"drop_path_rate": 0.1}, shared_head=shared_head, centering=centering)
    assert ("patch_head" in method.student) == ("patch_head" in method.teacher) == (not shared_head)
    batch = make_batch(method, large=96, small=48)
    assert batch.sampled["mask"].shape == (2, 6, 144)
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
    method.after_step(0.0, torch.tensor(True))
    moved = zip(before.named_parameters(), method.teacher.named_parameters(), strict=True)
    assert all(not torch.equal(old, new) for (_, old), (_, new) in moved)


def test_loss_is_sum_of_dino_ibot_and_koleo():
    """Recomputed from the networks, with softmax targets of the initial center."""
    method = dinov2(centering="mean", head_norm=False, koleo_weight=0.3, patch_weight=2.0)
    batch = make_batch(method)
    (large, small), mask, s = batch.views, batch.sampled["mask"], method.settings
    temp = method.teacher_temp(batch.progress)
    student, teacher = method.student, method.teacher
    views, patch_rows, teacher_views, teacher_rows = [], [], [], []
    for view, hidden in zip(large, mask, strict=True):
        pooled, patches = student["backbone"](view, hidden)
        views.append(pooled)
        patch_rows.append(student["patch_head"](patches[hidden]))
        tokens = teacher["backbone"].vit.forward_features(view)
        teacher_views.append(teacher["head"](tokens[:, 0]))
        teacher_rows.append(teacher["patch_head"](tokens[:, 1:][hidden]))
    koleo = sum(koleo_loss(view, batch.targets[:, 0]) for view in views)
    views += [student["backbone"].vit(view) for view in small]
    log_views = torch.stack([torch.log_softmax(student["head"](view) / s.student_temp, -1) for view in views])
    dino = dino_loss(log_views, torch.softmax(torch.stack(teacher_views) / temp, -1))
    log_rows = torch.log_softmax(torch.cat(patch_rows) / s.student_temp, -1)
    ibot = ibot_loss(log_rows, torch.softmax(torch.cat(teacher_rows) / temp, -1), mask.flatten(0, 1))
    loss, _ = loss_of(method, batch)
    torch.testing.assert_close(loss, dino + 2.0 * ibot + 0.3 * koleo, rtol=1e-5, atol=1e-5)


def test_teacher_sees_whole_images_and_student_masked_ones():
    method = dinov2()
    batch = make_batch(method)
    changed = copy.deepcopy(batch)
    image, patch = batch.sampled["mask"][0].nonzero()[0].tolist()
    row, column = divmod(patch, 4)
    changed.views[0][0, image, :, row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] += 5
    with torch.no_grad():
        before, after = method.encode(batch), method.encode(changed)
        assert all(torch.equal(before[key], after[key]) for key in before)
        before, after = method.encode_teacher(batch), method.encode_teacher(changed)
    assert not torch.allclose(before["patches"][0, image], after["patches"][0, image], atol=1e-3)
    assert not torch.allclose(before["views"][0, image], after["views"][0, image], atol=1e-3)
    assert torch.equal(before["views"][1], after["views"][1])


def test_teacher_starts_equal_shares_no_storage_and_is_not_trained():
    method = dinov2()
    for network in method.student:
        pairs = zip(method.student[network].parameters(), method.teacher[network].parameters(), strict=True)
        for ours, theirs in pairs:
            assert torch.equal(ours, theirs)
            assert ours.data_ptr() != theirs.data_ptr()
            assert ours.requires_grad
            assert not theirs.requires_grad


def test_only_student_has_drop_path():
    method = dinov2({"drop_path_rate": 0.5})
    batch = make_batch(method)
    with torch.no_grad():
        assert not torch.equal(method.encode(batch)["patches"], method.encode(batch)["patches"])
        assert torch.equal(method.encode_teacher(batch)["patches"], method.encode_teacher(batch)["patches"])


def test_second_axis_of_features_is_images():
    """GradCache relies on it: the features of a chunk are rows of those of the batch."""
    method = dinov2()
    batch = make_batch(method)
    with torch.no_grad():
        for features in (method.encode, method.encode_teacher):
            whole = features(batch)
            parts = [features(part) for part in batch.chunks(3)]
            for key, value in whole.items():
                joined = torch.cat([part[key] for part in parts], dim=1)
                torch.testing.assert_close(joined, value, rtol=1e-5, atol=1e-5)
    assert whole["patches"].shape == (2, 6, 16, 64)


@pytest.mark.parametrize(("progress", "moves"), [(0.0, False), (0.9, True)])
@pytest.mark.parametrize("shared_head", [False, True])
def test_prototypes_of_both_heads_are_frozen_at_first(progress, moves, shared_head):
    method = dinov2(freeze_last_layer=0.5, shared_head=shared_head)
    heads = [method.student[name] for name in method.student if name != "backbone"]
    assert len(heads) == 2 - shared_head
    loss_of(method, make_batch(method))[0].backward()
    method.before_step(progress)
    for head in heads:
        assert (head.prototypes.weight.grad is not None) == moves
        assert head.mlp[0].weight.grad.abs().sum() > 0


def test_views_and_patches_have_separate_centers():
    method = dinov2(centering="mean", center_momentum=0.9)
    batch = make_batch(method)
    with torch.no_grad():
        teacher_features = method.encode_teacher(batch)
        views = method.teacher["head"](teacher_features["views"].flatten(0, 1))
        patches = method.teacher["patch_head"](teacher_features["patches"][batch.sampled["mask"]])
    loss_of(method, batch)
    torch.testing.assert_close(method.center.center, 0.1 * views.mean(0), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(method.patch_center.center, 0.1 * patches.mean(0), rtol=1e-4, atol=1e-6)
    probability = torch.softmax(patches / method.teacher_temp(batch.progress), -1)  # the center was 0
    used = method.patch_center.usage.nonzero()[:, 0].tolist()
    assert used == probability.argmax(-1).unique().tolist(), "of masked patches only"


def test_epoch_scalars_contain_measures_of_views_and_of_patches():
    method = dinov2()
    loss_of(method, make_batch(method))
    scalars = method.end_epoch()
    measures = {"mean_entropy", "prototypes_used", "ln_k"}
    assert scalars.keys() == measures | {f"patch_{name}" for name in measures}
    assert scalars["patch_prototypes_used"] > 1 / 16
    assert method.patch_center.usage.sum() == 0


@pytest.mark.parametrize(("apart", "groups"), [("all", 6), ("other_eyes", 4), ("other_patients", 2)])
def test_koleo_groups_follow_koleo_neighbors(apart, groups):
    targets = dinov2(koleo_neighbors=apart).targets(TABLE)
    assert targets.shape == (6, 1)
    assert len(targets.unique()) == groups


@pytest.mark.parametrize("centering", ["sinkhorn", "mean"])
def test_step_in_bfloat16_is_finite(centering):
    method = dinov2(centering=centering)
    batch = make_batch(method)
    plain = copy.deepcopy(method)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = method.encode(batch)["patches"]
        loss, scalars = loss_of(method, batch)
    assert not torch.equal(rounded, method.encode(batch)["patches"]), "otherwise autocast is not tested"
    loss.backward()
    assert loss.dtype == torch.float32
    assert all(value.dtype == torch.float32 and torch.isfinite(value) for value in scalars.values())
    assert all(torch.isfinite(p.grad).all() for p in method.trained.parameters() if p.grad is not None)
    assert loss.item() == pytest.approx(loss_of(plain, batch)[0].item(), rel=0.1)


def test_batch_of_one_image_works():
    method = dinov2()
    loss, scalars = loss_of(method, make_batch(method, size=1))
    assert torch.isfinite(loss)
    assert scalars["koleo"] == 0
    assert scalars["ibot"] > 0


def test_teachers_plain_vit_is_exported():
    method = dinov2()
    plain = vit()
    plain.load_state_dict(method.exported.state_dict())
    assert method.exported is method.teacher["backbone"].vit
    images = torch.randn(2, 1, 32, 32)
    assert torch.equal(plain.eval()(images), method.exported.eval()(images))


def test_resnet_raises_user_error():
    def resnet():
        return create_backbone(ModelSettings(timm="test_resnet"), 1, 32)

    with pytest.raises(UserError, match=r"masks patches.*vision transformer.*not a ResNet.*backbones"):
        Dinov2(Dinov2Settings().resolved(100), resnet, resnet().num_features)


def test_learning_rate_at_batch_1024_is_the_papers():
    assert Dinov2Settings().peak_lr(1024) == pytest.approx(4e-3)


@pytest.mark.parametrize("ratio", [(0.5, 0.1), (0.0, 0.5), (0.1, 1.1)])
def test_invalid_mask_ratios_raise_user_error(ratio):
    with pytest.raises(ValidationError, match="mask_ratio: 0 < low <= high <= 1"):
        Dinov2Settings(mask_ratio=ratio)


def test_views_of_every_size_pass_through_the_module_that_compile_compiles():
    """`compile` compiles the student's `backbone`; a view given to the network inside it would not be compiled."""
    method, sizes = dinov2(), []
    method.student["backbone"].register_forward_hook(lambda _, given, __: sizes.append(given[0].shape[-1]))
    batch = make_batch(method)
    encoded = method.encode(batch)
    assert sizes == [32, 16]
    direct = [method.student["backbone"].get_submodule("vit")(view) for view in batch.views[1]]
    torch.testing.assert_close(encoded["views"][2:], torch.stack(direct))
