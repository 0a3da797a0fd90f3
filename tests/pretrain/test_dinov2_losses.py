"""DINOv2: iBOT's and KoLeo's losses and gradients against naive loops and lightly."""

import math

import pytest
import torch
import torch.nn.functional as F
from lightly.loss import IBOTPatchLoss, KoLeoLoss

from octdino.pretrain.methods.dinov2 import ibot_loss, koleo_loss

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
    """Return the teacher's and the student's logits, [M, K]."""
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


def test_ibot_weighs_images_equally_whatever_their_masked_share():
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
def test_koleo_searches_neighbors_in_other_groups(groups):
    features = torch.randn(5, 6, generator=generator())
    features[1] = features[0] + 1e-3  # a neighboring slice: the nearest of all, of the same group
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
    assert 5 < loss < 20, "exact copies have the largest loss"
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


def test_koleo_stays_in_float32_under_autocast():
    features = torch.randn(16, 64, generator=generator()) * 0.01 + 1  # distances below the resolution of bfloat16
    expected = koleo_loss(features, torch.arange(16))
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(koleo_loss(features, torch.arange(16)), expected)
