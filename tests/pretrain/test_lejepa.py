"""LeJEPA: the statistic of normality against closed forms, directions, gradients, and what it does to embeddings."""

import math

import pytest
import torch

from octdino.config.methods import LejepaSettings
from octdino.pretrain.methods.lejepa import (
    Lejepa,
    epps_pulley,
    prediction_loss,
    random_directions,
    sigreg,
)
from tests.pretrain.test_methods import loss_of, make_batch, tiny

WHOLE = {"knots": 401, "limit": 10.0}  # the integral over all t, as good as exact


def lejepa(**changes) -> Lejepa:
    torch.manual_seed(0)
    sizes = {"hidden_dim": 16, "out_dim": 8, "directions": 32}
    return Lejepa(LejepaSettings(**{**sizes, **changes}).resolved(100), tiny, 4)


def exact(x: torch.Tensor) -> float:
    """Return the statistic over all t in closed form: every term is the integral of a cosine times a Gaussian."""
    n = len(x)
    pairs = torch.exp(-(x[:, None] - x[None, :]).square() / 2).sum() / n**2
    single = torch.exp(-x.square() / 4).sum() * 2 / (n * math.sqrt(2))
    return n * math.sqrt(2 * math.pi) * (pairs - single + 1 / math.sqrt(3)).item()


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (0.1, 0.0), (1.0, 2.0), (5.0, -1.0), (0.0, 0.0)])
@pytest.mark.parametrize("count", [1, 40])
def test_statistic_equals_its_closed_form(scale, shift, count):
    x = torch.randn(count, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * scale + shift
    assert epps_pulley(x, **WHOLE).item() == pytest.approx(exact(x), rel=1e-4, abs=1e-4)


def test_statistic_equals_a_sum_over_both_signs_of_t():
    """The quadrature of the authors: 17 knots from 0 to 3, of which the mirrored half is not computed."""
    x = torch.randn(25, generator=torch.Generator().manual_seed(1)).tolist()
    knots = [-3 + 6 * k / 32 for k in range(33)]
    total = 0.0
    for k, t in enumerate(knots):
        empirical = sum(complex(math.cos(t * v), math.sin(t * v)) for v in x) / len(x)
        height = abs(empirical - math.exp(-t * t / 2)) ** 2 * math.exp(-t * t / 2)
        total += height * (6 / 32) * (0.5 if k in (0, 32) else 1)
    assert epps_pulley(torch.tensor(x)).item() == pytest.approx(len(x) * total, rel=1e-4)


def test_equal_samples_have_the_known_value():
    """All at 0: N sqrt(2 pi) (1 - sqrt(2) + 1 / sqrt(3)), which grows with N: a collapse is seen the better."""
    known = math.sqrt(2 * math.pi) * (1 - math.sqrt(2) + 1 / math.sqrt(3))
    for count in (1, 10):
        assert epps_pulley(torch.zeros(count), **WHOLE).item() == pytest.approx(count * known, rel=1e-4)


@pytest.mark.parametrize("count", [4, 16])
def test_mean_of_normal_samples_is_the_known_one_for_every_sample_size(count):
    x = torch.randn(20_000, count, generator=torch.Generator().manual_seed(2))
    known = math.sqrt(2 * math.pi) * (1 - 1 / math.sqrt(3))
    assert epps_pulley(x, **WHOLE).mean().item() == pytest.approx(known, rel=0.03)


def test_other_distributions_have_larger_statistics():
    generator = torch.Generator().manual_seed(3)
    normal = torch.randn(2000, generator=generator)
    uniform = (torch.rand(2000, generator=generator) - 0.5) * math.sqrt(12)  # mean and variance of the normal
    two = normal.sign()
    values = [epps_pulley(x).item() for x in (normal, uniform, two, 3 * normal, normal + 1)]
    assert values[0] == min(values)
    assert min(values[1:]) > 3 * values[0]


def test_sigreg_is_the_mean_over_views_and_directions():
    generator = torch.Generator().manual_seed(4)
    z, directions = torch.randn(3, 9, 5, generator=generator), random_directions(5, 7, 1)
    single = [epps_pulley(z[v] @ directions[:, m]) for v in range(3) for m in range(7)]
    torch.testing.assert_close(sigreg(z, directions), torch.stack(single).mean())


def test_sigreg_sees_a_correlation_that_no_coordinate_shows():
    x = torch.randn(1, 500, 1, generator=torch.Generator().manual_seed(5))
    assert sigreg(x.expand(1, 500, 4), random_directions(4, 256, 0)) > 10
    assert epps_pulley(x[0, :, 0]) < 5


def test_directions_are_unit_vectors_of_the_seed():
    first = random_directions(6, 50, 7)
    torch.testing.assert_close(first.norm(dim=0), torch.ones(50))
    assert torch.equal(first, random_directions(6, 50, 7))
    assert not torch.equal(first, random_directions(6, 50, 8))
    many = random_directions(6, 20_000, 0)  # uniform on the sphere: covariance 1 / 6
    torch.testing.assert_close(many @ many.T / 20_000, torch.eye(6) / 6, atol=0.01, rtol=0)


def test_prediction_is_the_distance_to_the_mean_of_the_large_views():
    z = torch.randn(4, 3, 2, generator=torch.Generator().manual_seed(6))
    total = 0.0
    for b in range(3):
        for d in range(2):
            center = (z[0, b, d] + z[1, b, d]) / 2
            total += sum((z[v, b, d] - center) ** 2 for v in range(4))
    torch.testing.assert_close(prediction_loss(z, 2), total / 24)
    assert prediction_loss(z[:1].expand(4, 3, 2), 2) == 0


def test_gradient_reaches_every_view():
    z = torch.randn(4, 6, 3, generator=torch.Generator().manual_seed(7)).requires_grad_()
    for loss in (prediction_loss(z, 2), sigreg(z, random_directions(3, 16, 0))):
        (gradient,) = torch.autograd.grad(loss, z)
        assert torch.isfinite(gradient).all()
        assert (gradient.flatten(1).norm(dim=1) > 1e-4).all()


def test_loss_weighs_prediction_and_sigreg_of_all_views():
    method = lejepa(regularization=0.3)
    batch = make_batch(method, size=6)
    assert [view.shape[0] for view in batch.views] == [2, 3]
    loss, scalars = loss_of(method, batch)
    backbone, head = method.network["backbone"], method.network["head"]
    z = head(torch.cat([backbone(view.flatten(0, 1)) for view in batch.views])).view(5, 6, 8)
    directions = random_directions(8, 32, int(batch.sampled["directions"][0, 0]))
    torch.testing.assert_close(scalars["prediction"], prediction_loss(z, 2).detach())
    torch.testing.assert_close(scalars["sigreg"], sigreg(z, directions).detach())
    torch.testing.assert_close(loss, 0.7 * scalars["prediction"] + 0.3 * scalars["sigreg"])


def test_directions_differ_from_step_to_step_and_not_from_scan_to_scan():
    method = lejepa()
    seeds = [method.sample(4, torch.Generator().manual_seed(step))["directions"] for step in (0, 1)]
    assert all(seed.shape == (1, 4) and seed.unique().numel() == 1 for seed in seeds)
    assert seeds[0][0, 0] != seeds[1][0, 0]


def test_loss_stays_in_float32_under_autocast():
    z = torch.randn(2, 8, 4, generator=torch.Generator().manual_seed(8))
    plain = sigreg(z, random_directions(4, 16, 0)), prediction_loss(z, 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert (sigreg(z, random_directions(4, 16, 0)), prediction_loss(z, 2)) == plain


def test_training_makes_embeddings_normal_and_alike_between_views():
    """A toy in a second: views are noisy copies of 256 random vectors; an untrained head is far from N(0, 1)."""
    torch.manual_seed(0)
    signal = torch.randn(256, 4)
    net = torch.nn.Sequential(torch.nn.Linear(12, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4))
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)

    def views():
        return torch.cat([signal.expand(2, 256, 4), torch.randn(2, 256, 8)], dim=-1)  # 8 of 12 columns are noise

    def scores():
        with torch.no_grad():
            z = net(views())
        return prediction_loss(z, 2).item() / z.var().item(), sigreg(z, random_directions(4, 256, 0)).item()

    before = scores()
    for step in range(300):
        z = net(views())
        loss = 0.95 * prediction_loss(z, 2) + 0.05 * sigreg(z, random_directions(4, 64, step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = scores()
    assert after[0] < before[0] / 4, "share of the variance that differs between views"
    assert after[1] < before[1] / 4
    assert after[1] < 4


def test_defaults_follow_the_number_of_scans():
    small, large = LejepaSettings().resolved(10_000), LejepaSettings().resolved(1_000_000)
    assert (small.hidden_dim, small.out_dim, small.directions) == (512, 16, 256)
    assert (large.hidden_dim, large.out_dim, large.directions) == (2048, 128, 1024)
    assert small.regularization == 0.02
