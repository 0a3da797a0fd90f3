"""What each method promises about its networks."""

import copy
import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from octdino.config import METHODS, AugmentSettings, ModelSettings
from octdino.config.methods import DinoSettings, SupconSettings
from octdino.models import create_backbone
from octdino.pretrain.methods import method_class
from octdino.pretrain.methods.dino import Dino
from octdino.pretrain.methods.supcon import UNKNOWN, Supcon
from octdino.training import parameter_groups


def tiny() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def dino(**changes) -> Dino:
    torch.manual_seed(0)
    sizes = {"prototypes": 16, "hidden_dim": 8, "bottleneck_dim": 8}
    return Dino(DinoSettings(**{**sizes, **changes}), tiny, 4)


def views(method, batch=4):
    kinds = method.views(AugmentSettings(global_size=32, local_size=16, local_views=3))
    return [torch.randn(kind.count * batch, 1, kind.size, kind.size) for kind in kinds]


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
        method.after_step(0.0)
    for before, after in zip(start.parameters(), method.teacher.parameters(), strict=True):
        torch.testing.assert_close(after, before + (1 - 0.9**5), rtol=1e-5, atol=1e-6)


def test_teacher_ignores_the_student_at_the_end():
    method = dino()
    before = copy.deepcopy(method.teacher)
    with torch.no_grad():
        for parameter in method.student.parameters():
            parameter.add_(1.0)
    method.after_step(1.0)
    for ours, theirs in zip(before.parameters(), method.teacher.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-7)


@pytest.mark.parametrize(("progress", "moves"), [(0.0, False), (0.9, True)])
def test_prototypes_are_frozen_at_first(progress, moves):
    method = dino(freeze_last_layer=0.5)
    optimizer = torch.optim.SGD(method.trained.parameters(), lr=0.1)
    before = method.student["head"].prototypes.weight.clone()
    method.loss(views(method), torch.zeros(4, 0), progress)[0].backward()
    method.before_step(progress)
    optimizer.step()
    assert (not torch.equal(before, method.student["head"].prototypes.weight)) == moves
    assert method.student["backbone"][0].weight.grad is not None


def test_the_centre_follows_the_teachers_mean():
    method = dino(center_momentum=0.9)
    batch = views(method)
    with torch.no_grad():
        logits = method.teacher["head"](method.teacher["backbone"](batch[0]))
    method.loss(batch, torch.zeros(4, 0), 0.0)
    torch.testing.assert_close(method.center, 0.1 * logits.mean(0), rtol=1e-4, atol=1e-6)


def test_sinkhorn_takes_the_centres_place():
    method = dino(centering="sinkhorn", prototypes=8)
    method.center += 1e3  # would decide everything if it were used
    _, scalars = method.loss(views(method, batch=16), torch.zeros(16, 0), 0.5)
    assert method.usage.count_nonzero() > 1
    assert scalars["teacher_entropy"] > 0


def test_teacher_temperature_warms_up():
    method = dino(teacher_temp_start=0.04, teacher_temp=0.07, teacher_temp_warmup=0.5)
    assert [round(method.teacher_temp(p), 4) for p in (0, 0.25, 0.5, 1)] == [0.04, 0.055, 0.07, 0.07]


def test_collapse_is_seen():
    method = dino()
    method.usage[3] = 8
    method.mean_probability[3] = 8.0
    scalars = method.end_epoch()
    assert scalars["prototypes_used"] == 1 / 16
    assert scalars["mean_entropy"] == pytest.approx(0, abs=1e-6)
    assert scalars["ln_k"] == pytest.approx(math.log(16))
    assert method.usage.sum() == 0


@pytest.mark.parametrize("name", METHODS)
def test_biases_and_norms_do_not_decay(name):
    settings = METHODS[name]()
    method = method_class(settings)(settings, tiny, 4)
    decaying, others = parameter_groups(method.trained)
    assert decaying["decays"]
    assert not others["decays"]
    assert others["weight_decay"] == 0
    kinds = (nn.Linear, nn.Conv2d)
    weights = {id(m.weight) for m in method.trained.modules() if isinstance(m, kinds)}
    assert {id(p) for p in decaying["params"]} == weights
    assert len(decaying["params"]) + len(others["params"]) == len(list(method.trained.parameters()))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("model", ["test_resnet", "test_vit"])
def test_every_method_steps_on_both_families(name, model):
    settings = METHODS[name]()
    method = method_class(settings)(
        settings, lambda: create_backbone(ModelSettings(timm=model), 1, 32), 0 or _dim(model)
    )
    batch = views(method)
    targets = method.targets(pd.DataFrame({"cst": [1.0, 2, 1, np.nan], "bcva": 1.0, "eye": "a", "patient": "a"}))
    loss, scalars = method.loss(batch, targets, 0.5)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(value) for value in scalars.values())
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in method.trained.parameters())
    assert method.exported(batch[0]).shape == (8, _dim(model))


def _dim(model):
    return create_backbone(ModelSettings(timm=model), 1, 32).num_features


def test_supcon_bins_measured_values_and_keeps_missing_apart():
    method = Supcon(SupconSettings(positives=["cst", "eye"], cst_bin=25), tiny, 4)
    table = pd.DataFrame({"cst": [250.0, 274.0, 276.0, np.nan], "eye": ["a", "b", "a", ""]})
    cst, eye = method.targets(table).unbind(1)
    assert cst[0] == cst[1] != cst[2]
    assert cst[3] == UNKNOWN
    assert eye[0] == eye[2] != eye[1]
    assert eye[3] == UNKNOWN
