"""BYOL: its loss, and which networks are trained, averaged and exported."""

import copy

import pytest
import torch
from lightly.loss import NegativeCosineSimilarity

from octdino.config.methods import ByolSettings
from octdino.pretrain.methods.byol import Byol, byol_loss
from tests.pretrain.test_methods import loss_of, make_batch, storages, tiny


def byol(**changes) -> Byol:
    torch.manual_seed(0)
    return Byol(ByolSettings(**{"hidden_dim": 16, "out_dim": 8, **changes}).resolved(100), tiny, 4)


@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("batch", [1, 7])
def test_byol_loss_is_two_plus_twice_lightlys_loss(scale, batch):
    torch.manual_seed(1)
    prediction = (torch.randn(batch, 6) * scale).requires_grad_()
    target = torch.randn(batch, 6)
    ours, theirs = byol_loss(prediction, target), 2 + 2 * NegativeCosineSimilarity()(prediction, target)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    gradients = [torch.autograd.grad(loss, prediction)[0] * scale for loss in (ours, theirs)]
    assert gradients[0].abs().max() > 1e-3
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)


def test_byol_loss_is_zero_for_equal_and_four_for_opposite_vectors():
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(2)).requires_grad_()
    same = byol_loss(x, x.detach() * 3)
    assert same.item() == pytest.approx(0, abs=1e-6)
    assert torch.autograd.grad(same, x)[0].abs().max() < 1e-6
    assert byol_loss(x, -x).item() == pytest.approx(4, abs=1e-6)


def test_loss_sums_both_directions_between_views():
    method, naive = byol(), byol()
    batch = make_batch(method)
    loss, _ = loss_of(method, batch)
    images = batch.views[0].flatten(0, 1)
    predicted = naive.student["predictor"](naive.student["projector"](naive.student["backbone"](images)))
    target = naive.teacher["projector"](naive.teacher["backbone"](images))
    (p1, p2), (t1, t2) = predicted.chunk(2), target.chunk(2)
    torch.testing.assert_close(loss, byol_loss(p1, t2) + byol_loss(p2, t1))
    assert abs(loss - byol_loss(p1, t1) - byol_loss(p2, t2)) > 1e-3, "otherwise the pairing is not tested"


def test_student_has_gradients_and_teacher_has_none():
    method = byol()
    batch = make_batch(method)
    encoded = method.encode(batch)
    with torch.no_grad():
        teacher_features = method.encode_teacher(batch)
    teacher_features = {name: value.requires_grad_() for name, value in teacher_features.items()}
    method.loss(encoded, teacher_features, batch)[0].backward()
    assert teacher_features["views"].grad is None
    assert all(p.grad is None for p in method.teacher.parameters())
    for name in ("backbone", "projector", "predictor"):
        assert any(p.grad.abs().max() > 0 for p in method.student[name].parameters()), name


def test_teacher_has_no_predictor_and_shares_no_storage():
    method = byol()
    assert set(method.teacher) == {"backbone", "projector"}
    assert not storages(method.student) & storages(method.teacher)
    for name in method.teacher:
        for ours, theirs in zip(method.student[name].parameters(), method.teacher[name].parameters(), strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize(("end", "momenta"), [(1.0, (0.9, 0.95, 1.0)), (0.9, (0.9, 0.9, 0.9))])
def test_teacher_momentum_follows_the_cosine_schedule(end, momenta):
    """The cosine from `momentum` to 1 (sec. 3.3): at the start, half-way, and at the end; or to `momentum_end`."""
    method = byol(momentum=0.9, momentum_end=end)
    with torch.no_grad():
        for parameter in method.student.parameters():
            parameter.add_(1.0)
    for progress, momentum in zip((0.0, 0.5, 1.0), momenta, strict=True):
        before = copy.deepcopy(method.teacher)
        method.after_step(progress, torch.tensor(True))
        for name, network in method.teacher.items():
            triples = zip(
                before[name].parameters(), network.parameters(), method.student[name].parameters(), strict=True
            )
            for old, new, student in triples:
                torch.testing.assert_close(new, momentum * old + (1 - momentum) * student, rtol=1e-5, atol=1e-6)


def test_student_backbone_is_exported():
    method = byol()
    assert method.exported is method.student["backbone"]


def test_batch_of_one_scan_works_and_loss_stays_float32_in_bfloat16():
    method = byol()
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = loss_of(method, make_batch(method, size=1))
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in method.trained.parameters())


def test_default_sizes_for_a_large_cohort_are_the_papers():
    large, small = ByolSettings().resolved(1_000_000), ByolSettings().resolved(5_000)
    assert (large.hidden_dim, large.out_dim, large.momentum) == (4096, 256, 0.996)
    assert (small.hidden_dim, small.momentum) == (512, 0.99)
    assert ByolSettings(hidden_dim=64, momentum=0.5).resolved(5_000).momentum == 0.5
