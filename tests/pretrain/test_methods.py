"""Networks of all methods: teacher, center, exported weights, groups of scans."""

import copy
import math
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from octdino.config import METHODS, AugmentSettings, ModelSettings
from octdino.config.methods import DinoSettings, SupconSettings
from octdino.errors import UserError
from octdino.models.backbones import create_backbone
from octdino.pretrain.methods import method_class
from octdino.pretrain.methods.dino import Dino
from octdino.pretrain.methods.method import Batch
from octdino.pretrain.methods.supcon import UNKNOWN, Supcon
from octdino.training.optimizers import parameter_groups


def tiny() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def dino(**changes) -> Dino:
    torch.manual_seed(0)
    sizes = {"prototypes": 16, "hidden_dim": 8, "bottleneck_dim": 8}
    return Dino(DinoSettings(**{**sizes, **changes}).resolved(100), tiny, 4)


def make_batch(method, size=4, progress=0.0, targets=None):
    kinds = method.views(AugmentSettings(global_size=32, local_size=16, local_views=3))
    return Batch(
        views=[torch.randn(kind.count, size, 1, kind.size, kind.size) for kind in kinds],
        sampled=method.sample(size, torch.Generator().manual_seed(0)),
        targets=torch.zeros(size, 0, dtype=torch.int64) if targets is None else targets,
        progress=progress,
    )


def loss_of(method, batch):
    with torch.no_grad():
        teacher_features = method.encode_teacher(batch)
    return method.loss(method.encode(batch), teacher_features, batch)


def storages(module):
    return {tensor.untyped_storage().data_ptr() for tensor in module.state_dict().values()}


def test_teacher_starts_equal_and_shares_no_storage():
    method = dino()
    for ours, theirs in zip(method.student.parameters(), method.teacher.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert not storages(method.student) & storages(method.teacher)
    assert not any(p.requires_grad for p in method.teacher.parameters())


def test_teacher_is_the_closed_form_of_the_moving_average():
    method = dino(momentum=0.9)
    start = copy.deepcopy(method.teacher)
    with torch.no_grad():
        for parameter in method.student.parameters():
            parameter.add_(1.0)
    for _ in range(5):
        method.after_step(0.0, torch.tensor(True))
    for before, after in zip(start.parameters(), method.teacher.parameters(), strict=True):
        torch.testing.assert_close(after, before + (1 - 0.9**5), rtol=1e-5, atol=1e-6)


def test_teacher_ignores_the_student_at_the_end():
    method = dino()
    before = copy.deepcopy(method.teacher)
    with torch.no_grad():
        for parameter in method.student.parameters():
            parameter.add_(1.0)
    method.after_step(1.0, torch.tensor(True))
    for ours, theirs in zip(before.parameters(), method.teacher.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-7)


@pytest.mark.parametrize(("progress", "moves"), [(0.0, False), (0.9, True)])
def test_prototypes_are_frozen_at_first(progress, moves):
    method = dino(freeze_last_layer=0.5)
    optimizer = torch.optim.SGD(method.trained.parameters(), lr=0.1)
    before = method.student["head"].prototypes.weight.clone()
    loss_of(method, make_batch(method, progress=progress))[0].backward()
    method.before_step(progress)
    optimizer.step()
    assert (not torch.equal(before, method.student["head"].prototypes.weight)) == moves
    assert method.student["backbone"][0].weight.grad is not None


def test_center_is_moving_average_of_teacher_logits():
    method = dino(center_momentum=0.9)
    batch = make_batch(method)
    with torch.no_grad():
        logits = method.teacher["head"](method.teacher["backbone"](batch.views[0].flatten(0, 1)))
    loss_of(method, batch)
    torch.testing.assert_close(method.center.center, 0.1 * logits.mean(0), rtol=1e-4, atol=1e-6)


def test_sinkhorn_replaces_the_center():
    method = dino(centering="sinkhorn", prototypes=8)
    method.center.center[0] += 1e3  # would dominate if it were used
    _, scalars = loss_of(method, make_batch(method, size=16, progress=0.5))
    assert method.center.usage.count_nonzero() > 1
    assert scalars["teacher_entropy"] > 0


def test_teacher_temperature_warms_up():
    method = dino(teacher_temp_start=0.04, teacher_temp=0.07, teacher_temp_warmup=0.5)
    assert [round(method.teacher_temp(p), 4) for p in (0, 0.25, 0.5, 1)] == [0.04, 0.055, 0.07, 0.07]


def test_epoch_scalars_show_collapse():
    method = dino()
    method.center.usage[3] = 1
    method.center.mean_probability[3] = 8.0
    scalars = method.end_epoch()
    assert scalars["prototypes_used"] == 1 / 16
    assert scalars["mean_entropy"] == pytest.approx(0, abs=1e-6)
    assert scalars["ln_k"] == pytest.approx(math.log(16))
    assert method.center.usage.sum() == 0


def build(name, model="test_vit"):
    """Return a method on a small network of a family."""
    settings = METHODS[name]().resolved(100)
    spec = ModelSettings(timm=model, args={"patch_size": 8} if "vit" in model else {})
    dim = create_backbone(spec, 1, 32).num_features
    return method_class(settings)(settings, lambda: create_backbone(spec, 1, 32), dim), dim


MASKED = {("dinov2", "test_resnet"), ("mae", "test_resnet")}  # a ResNet has no patches to mask
FAMILIES = [pair for pair in product(METHODS, ("test_resnet", "test_vit")) if pair not in MASKED]


def test_masked_method_of_network_without_patches_raises_user_error():
    for pair in MASKED:
        with pytest.raises(UserError, match="needs a vision transformer"):
            build(*pair)


@pytest.fixture(params=FAMILIES, ids=lambda pair: "-".join(pair))
def built(request):
    return build(*request.param)


def test_biases_and_norms_do_not_decay(built):
    method, _ = built
    decaying, others = parameter_groups(method.trained)
    assert decaying["decays"]
    assert not others["decays"]
    assert others["weight_decay"] == 0
    for module in method.trained.modules():
        for name, parameter in module.named_parameters(recurse=False):
            kernel = isinstance(module, nn.Linear | nn.Conv2d) and name == "weight"
            if parameter.requires_grad and (kernel or parameter.ndim == 1):  # a ViT's tokens are neither
                assert any(p is parameter for p in decaying["params"]) == kernel
    trained = [p for p in method.trained.parameters() if p.requires_grad]
    assert len(decaying["params"]) + len(others["params"]) == len(trained)


def test_every_method_steps_on_every_backbone_family_it_supports(built):
    method, dim = built
    table = {"cst": [1.0, 2, 1, np.nan], "bcva": 1.0, "eye": list("aabb"), "patient": list("aabb")}
    batch = make_batch(method, progress=0.5, targets=method.targets(pd.DataFrame(table)))
    loss, scalars = loss_of(method, batch)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(value) for value in scalars.values())
    trained = [p for p in method.trained.parameters() if p.requires_grad]
    assert trained
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in trained)
    images = batch.views[0].flatten(0, 1)  # one or two large views of four scans
    assert method.exported(images).shape == (len(images), dim)


@pytest.mark.parametrize("name", METHODS)
def test_exported_weights_have_timms_own_names(name):
    method, _ = build(name)
    plain = create_backbone(ModelSettings(timm="test_vit", args={"patch_size": 8}), 1, 32)
    plain.load_state_dict(method.exported.state_dict())


def test_only_student_has_drop_path():
    rates = {"drop_path_rate": 0.3, "proj_drop_rate": 0.2, "patch_drop_rate": 0.5, "drop_rate": 0.4}
    model = ModelSettings(timm="test_vit", args={"patch_size": 8, **rates})
    method = Dino(DinoSettings().resolved(100), lambda: create_backbone(model, 1, 32), 64)
    images = torch.randn(16, 1, 32, 32)
    torch.manual_seed(0)
    for network, repeats in ((method.student["backbone"], False), (method.teacher["backbone"], True)):
        assert network.training
        assert torch.equal(network(images), network(images)) == repeats


def test_teacher_batch_norm_uses_statistics_of_its_own_batches():
    """Buffers come from the teacher's own forward passes and are never averaged from the student's."""
    method = dino(momentum=0.5)
    student, teacher = (network["backbone"][1] for network in (method.student, method.teacher))
    batch = make_batch(method)
    with torch.no_grad():
        values = method.teacher["backbone"][0](batch.views[0].flatten(0, 1))  # [8, 4, 15, 15]
    loss_of(method, batch)
    moved = teacher.running_mean.clone()
    torch.testing.assert_close(moved, 0.1 * values.mean((0, 2, 3)), rtol=1e-4, atol=1e-6)
    assert not torch.allclose(moved, student.running_mean), "the student's batches include small views"
    method.after_step(0.0, torch.tensor(True))
    assert torch.equal(teacher.running_mean, moved)


def test_supcon_bins_measured_values_and_codes_missing_as_unknown():
    method = Supcon(SupconSettings(positives=["cst", "eye"], cst_bin=25).resolved(100), tiny, 4)
    table = pd.DataFrame({"cst": [250.0, 274.0, 276.0, np.nan], "eye": ["a", "b", "a", ""]})
    _, cst, eye = method.targets(table).unbind(1)
    assert cst[0] == cst[1] != cst[2]
    assert cst[3] == UNKNOWN
    assert eye[0] == eye[2] != eye[1]
    assert eye[3] == UNKNOWN


def test_supcon_on_column_without_values_raises_user_error():
    method = Supcon(SupconSettings(positives=["cst"]).resolved(100), tiny, 4)
    with pytest.raises(UserError, match="positives: no scan has a known cst"):
        method.targets(pd.DataFrame({"cst": [np.nan, np.nan], "eye": "a", "patient": "a"}))
