"""Optimizers: schedules per parameter group, the EMA teacher, fused steps that can be skipped."""

import copy

import pytest
import torch
from torch import nn

from octdino.config import ModelSettings
from octdino.models.backbones import create_backbone
from octdino.training.optimizers import (
    average_,
    ema_update,
    layer_decay_groups,
    make_optimizer,
    parameter_groups,
    set_schedule,
    step_if,
)


def test_schedule_sets_lr_scale_and_weight_decay_per_group():
    optimizer = torch.optim.AdamW(parameter_groups(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))), lr=0)
    optimizer.param_groups[0]["lr_scale"] = 0.1
    set_schedule(optimizer, 0.5, 0.04)
    assert [(g["lr"], g["weight_decay"]) for g in optimizer.param_groups] == [(0.05, 0.04), (0.5, 0.0)]


def test_ema_update_leaves_buffers_unchanged_and_can_be_skipped():
    teacher, student = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    with torch.no_grad():
        student.weight.fill_(2)
        student.running_mean.fill_(5)
    ema_update(teacher, student, 0.75, torch.tensor(False))
    assert torch.equal(teacher.weight, torch.ones(3)), "a skipped step changes no average"
    ema_update(teacher, student, 0.75, torch.tensor(True))
    assert torch.equal(teacher.weight, torch.full((3,), 1.25))
    assert torch.equal(teacher.running_mean, torch.zeros(3))


@pytest.mark.parametrize("foreach", [True, False])
@pytest.mark.parametrize("weight", [0.0, 0.004, 0.3, 1.0])
def test_average_per_tensor_and_foreach_equals_the_formula(weight, foreach):
    torch.manual_seed(0)
    shapes = [(5, 3, 3, 3), (7,), (4, 6), ()]
    averages, current = [[torch.randn(shape) for shape in shapes] for _ in range(2)]
    averages[0], before = averages[0].to(memory_format=torch.channels_last), [each.clone() for each in averages]
    average_(averages, current, torch.tensor(weight), foreach)
    for found, first, value in zip(averages, before, current, strict=True):
        torch.testing.assert_close(found.double(), (1 - weight) * first.double() + weight * value.double(),
                                   rtol=1e-6, atol=1e-6, check_stride=False)  # fmt: skip
        assert weight or torch.equal(found, first)


PLAIN = {"adamw": torch.optim.AdamW, "sgd": lambda groups, lr: torch.optim.SGD(groups, lr, momentum=0.9)}


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize("skipped", [None, 0, 2])
def test_fused_optimizer_equals_plain_one_and_skips_a_step_without_effect(kind, skipped):
    """The plain one makes no step where the other skips one."""
    torch.manual_seed(0)
    mine = nn.Sequential(nn.Conv2d(8, 16, 3, bias=False), nn.BatchNorm2d(16)).to(memory_format=torch.channels_last)
    other = copy.deepcopy(mine)
    optimizers = make_optimizer(kind, parameter_groups(mine)), PLAIN[kind](parameter_groups(other), lr=0.0)
    for step in range(4):
        x, target = torch.randn(4, 8, 8, 8), torch.randn(4, 16, 6, 6)
        for network, optimizer in zip((mine, other), optimizers, strict=True):
            set_schedule(optimizer, 0.01 * (step + 1), 0.1)
            (network(x) * target).mean().backward()
        if step == skipped:
            for parameter in mine.parameters():
                parameter.grad.fill_(torch.nan)
            step_if(optimizers[0], torch.tensor(False))
            for a, b in zip(mine.buffers(), other.buffers(), strict=True):
                b.copy_(a)
        else:
            step_if(optimizers[0], torch.tensor(True))
            optimizers[1].step()
        for network in (mine, other):
            network.zero_grad()
    for a, b in zip(mine.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", PLAIN)
def test_step_copies_no_kernel_in_channels_last_and_keeps_its_form(kind):
    layer = nn.Conv2d(8, 16, 3).to(memory_format=torch.channels_last)
    optimizer = make_optimizer(kind, parameter_groups(layer))
    for _ in range(2):  # the first one makes the optimizer's state
        layer(torch.randn(2, 8, 5, 5)).sum().backward()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as recorded:
            step_if(optimizer, torch.tensor(True))
        assert "aten::clone" not in {event.key for event in recorded.key_averages()}
        for tensor in (layer.weight, layer.weight.grad, *optimizer.state[layer.weight].values()):
            assert tensor.ndim == 0 or (tensor.shape, tensor.stride()) == ((16, 8, 3, 3), (72, 1, 24, 8))
        layer.zero_grad()


def test_layer_decay_scales_each_block_by_its_distance_to_the_head():
    """The scales of the paper, written out for a transformer of three blocks."""
    model = ModelSettings(timm="vit_tiny_patch16_224", args={"embed_dim": 16, "depth": 3, "num_heads": 2})
    backbone = create_backbone(model, 1, 32)
    names = {parameter: name for name, parameter in backbone.named_parameters()}
    scales = {"patch_embed": 1 / 16, "cls_token": 1 / 16, "pos_embed": 1 / 16, "norm": 1 / 2}
    scales |= {"blocks.0": 1 / 8, "blocks.1": 1 / 4, "blocks.2": 1 / 2}
    groups = layer_decay_groups(backbone, 0.5)
    grouped = [parameter for group in groups for parameter in group["params"]]
    assert set(grouped) == set(names)
    assert len(grouped) == len(names), "each parameter is in one group"
    for group in groups:
        for parameter in group["params"]:
            (part,) = [part for part in scales if names[parameter].startswith(f"{part}.") or names[parameter] == part]
            assert group["lr_scale"] == scales[part], names[parameter]
            assert group["decays"] == (parameter.ndim > 1), names[parameter]
