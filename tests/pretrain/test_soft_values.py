"""SupCon with measured values as soft targets: weights of pairs, the loss against a loop, hard bins as before."""

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from octdino.config.methods import SupconSettings
from octdino.pretrain.methods.supcon import Supcon, near_values, supcon_loss, weighted_supcon_loss
from tests.pretrain.test_methods import loss_of, make_batch, tiny

TABLE = pd.DataFrame({
    "cst": [250.0, 251.0, 260.0, 275.0, np.nan], "bcva": [70.0, 72.0, 74.9, 75.1, 20.0], "eye": list("aabbc"),
    "patient": list("aabbc"), "visit": "V1",
})  # fmt: skip


def supcon(**changes) -> Supcon:
    torch.manual_seed(0)
    return Supcon(SupconSettings(hidden_dim=16, out_dim=8, **changes).resolved(100), tiny, 4)


def test_weights_fall_linearly_over_a_bin() -> None:
    method = supcon(positives=["cst"], soft=True)
    weights = near_values(method.targets(TABLE)[:, 1])
    apart = np.abs(np.subtract.outer([250.0, 251, 260, 275], [250.0, 251, 260, 275]))
    np.testing.assert_allclose(weights[:4, :4], np.maximum(1 - apart / 25, 0), atol=1e-3)
    assert (weights[4] == 0).all()
    assert (weights[:, 4] == 0).all()


def test_values_across_a_bin_s_edge_are_near_and_those_within_one_need_not_be() -> None:
    """Letters 74.9 and 75.1 are in two bins of 5, 70 and 74.9 in one."""
    hard, soft = supcon(positives=["bcva"]).targets(TABLE)[:, 1], supcon(positives=["bcva"], soft=True).targets(TABLE)
    weights = near_values(soft[:, 1])
    assert hard[2] != hard[3]
    assert weights[2, 3] == pytest.approx(1 - 0.2 / 5, abs=2e-3)
    assert hard[0] == hard[2]
    assert weights[0, 2] == pytest.approx(1 - 4.9 / 5, abs=2e-3)


def test_weighted_loss_equals_the_loop() -> None:
    torch.manual_seed(1)
    x = torch.randn(8, 6, requires_grad=True)
    weights = torch.tensor([[1.0, 0.5, 0, 0.2], [0.5, 1, 0.7, 0], [0, 0.7, 1, 0], [0.2, 0, 0, 0]])
    groups, z = torch.tensor([0, 1, 1, 2]), F.normalize(x, dim=-1)
    total = 0.0
    for i in range(8):
        weight = {a: 1.0 if a % 4 == i % 4 else float(weights[i % 4, a % 4]) for a in range(8) if a != i}
        others = [a for a in weight if weight[a] or groups[a % 4] != groups[i % 4]]
        summed = torch.log(sum(torch.exp(z[i] @ z[a] / 0.3) for a in others))
        parts = [w * (z[i] @ z[a] / 0.3 - summed) for a, w in weight.items() if w]
        total = total - sum(parts) / sum(weight.values())
    ours = weighted_supcon_loss(x, weights, groups, 0.3)
    torch.testing.assert_close(ours, total / 8, rtol=1e-5, atol=1e-5)
    for mine, other in zip(torch.autograd.grad(ours, x), torch.autograd.grad(total / 8, x), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)


def test_soft_and_equal_values_add_up() -> None:
    method = supcon(positives=["cst", "eye"], soft=True)
    batch = make_batch(method, size=5, targets=method.targets(TABLE))
    z, temperature = method.embed(method.encode(batch)), method.settings.temperature
    alone = torch.arange(5)
    expected = weighted_supcon_loss(z, near_values(batch.targets[:, 1]), alone, temperature)
    expected = expected + supcon_loss(z, torch.tensor([0, 0, 1, 1, 2]), alone, temperature)
    torch.testing.assert_close(loss_of(method, batch)[0], expected)


def test_equal_values_as_soft_targets_are_the_hard_ones() -> None:
    table = TABLE.assign(cst=[250.0, 250, 500, 500, np.nan])
    losses = []
    for soft in (False, True):
        method = supcon(positives=["cst"], soft=soft)
        torch.manual_seed(2)
        losses.append(loss_of(method, make_batch(method, size=5, targets=method.targets(table)))[0])
    torch.testing.assert_close(*losses)
