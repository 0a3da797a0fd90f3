"""VICReg: its loss against lightly's, its three terms, and batches too small for a variance."""

import pytest
import torch
from lightly.loss import VICRegLoss

from octdino.config.methods import VicregSettings
from octdino.pretrain.methods.vicreg import Vicreg, vicreg_loss, vicreg_terms
from tests.pretrain.test_methods import loss_of, make_batch, tiny


def vicreg(**changes) -> Vicreg:
    torch.manual_seed(0)
    return Vicreg(VicregSettings(**{"width": 16, **changes}).resolved(100), tiny, 4)


@pytest.mark.parametrize("weights", [(25.0, 25.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)])
@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("batch", [2, 9])
def test_vicreg_loss_equals_lightlys(weights, scale, batch):
    torch.manual_seed(1)
    a, b = ((torch.randn(batch, 12) * scale + shift).requires_grad_() for shift in (0.0, 0.5))
    ours, theirs = vicreg_loss(a, b, *weights), VICRegLoss(*weights)(a, b)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    pairs = zip(torch.autograd.grad(ours, (a, b)), torch.autograd.grad(theirs, (a, b)), strict=True)
    for mine, other in pairs:
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5 * max(1.0, other.abs().max().item()))


def test_default_weights_are_the_papers():
    a, b = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(vicreg_loss(a, b), VICRegLoss()(a, b), rtol=1e-5, atol=1e-5)
    s = VicregSettings()
    assert (s.invariance, s.variance, s.covariance) == (25, 25, 1)


def test_terms_equal_values_computed_by_hand():
    """Two scans, two dimensions: deviations sqrt(2) and 2 sqrt(2), covariance 4; the second branch is constant."""
    a = torch.tensor([[0.0, 0.0], [2.0, 4.0]])
    b = torch.zeros(2, 2)
    terms = vicreg_terms(a, b)
    assert terms.invariance.item() == pytest.approx((4 + 16) / 4)
    assert terms.variance.item() == pytest.approx((0 + (1 - 1e-4**0.5)) / 2)
    assert terms.covariance.item() == pytest.approx(2 * 4**2 / 2)


def test_identical_views_and_constant_embeddings_have_finite_gradients():
    a = torch.full((5, 4), 0.3, requires_grad=True)
    loss = vicreg_loss(a, a)
    assert loss.item() == pytest.approx(25 * 0.99, rel=1e-5)
    assert torch.isfinite(torch.autograd.grad(loss, a)[0]).all()
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(3))
    assert vicreg_terms(x, x).invariance == 0


def test_one_scan_has_only_the_invariance_term():
    a, b = (torch.randn(1, 6, requires_grad=True) for _ in range(2))
    loss = vicreg_loss(a, b)
    torch.testing.assert_close(loss, 25 * (a - b).square().mean())
    gradient = torch.autograd.grad(loss, a)[0]
    torch.testing.assert_close(gradient, 50 * (a - b) / 6)


def test_loss_stays_in_float32_under_autocast():
    a, b = torch.randn(2, 16, 32, generator=torch.Generator().manual_seed(4))
    plain = vicreg_terms(a, b)
    with torch.autocast("cpu", torch.bfloat16):
        assert (a @ b.T).dtype == torch.bfloat16
        cast = vicreg_terms(a, b)
    assert cast == plain


@pytest.mark.parametrize("size", [1, 6])
def test_loss_compares_the_two_views_of_each_scan(size):
    method = vicreg(invariance=3, variance=2, covariance=0.5)
    batch = make_batch(method, size=size)
    loss, scalars = loss_of(method, batch)
    embeddings = method.network["head"](method.network["backbone"](batch.views[0].flatten(0, 1)))
    torch.testing.assert_close(loss, vicreg_loss(*embeddings.chunk(2), 3, 2, 0.5))
    assert set(scalars) == {"invariance", "variance", "covariance"}
    total = 3 * scalars["invariance"] + 2 * scalars["variance"] + 0.5 * scalars["covariance"]
    torch.testing.assert_close(loss.detach(), total)
    loss.backward()
    assert not any(value.requires_grad for value in scalars.values())
    assert all(torch.isfinite(p.grad).all() for p in method.trained.parameters())


def test_expander_has_three_layers_of_resolved_width():
    method = vicreg()
    shapes = [tuple(m.weight.shape) for m in method.network["head"] if isinstance(m, torch.nn.Linear)]
    assert shapes == [(16, 4), (16, 16), (16, 16)]
    assert method.exported is method.network["backbone"]
    assert [VicregSettings().resolved(n).width for n in (1_000, 30_000, 1_000_000)] == [512, 1024, 8192]
