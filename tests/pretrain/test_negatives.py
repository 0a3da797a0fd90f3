"""The setting `negatives`: scans of one group are not negatives of each other, in any contrastive method."""

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from octdino.config import METHODS
from octdino.pretrain.methods import method_class
from octdino.pretrain.methods.method import scan_groups
from octdino.pretrain.methods.moco import EMPTY, batch_loss, queue_loss
from octdino.pretrain.methods.simclr import nt_xent
from octdino.pretrain.methods.supcon import UNKNOWN, supcon_loss
from tests.pretrain.test_methods import loss_of, make_batch, tiny

GROUPS = [[0, 1, 2, 3, 4], [0, 0, 1, 1, 2], [5, 7, 5, 7, 5], [3, 3, 3, 3, 3]]
TEMPERATURE = 0.3


def log_share(z, i, positive, others):
    """log of the positive's share among itself and the negatives `others`, one exponential at a time."""
    terms = [torch.exp(z[i] @ z[a] / TEMPERATURE) for a in others]
    return z[i] @ z[positive] / TEMPERATURE - torch.log(sum(terms))


def naive_nt_xent(embeddings, groups):
    z, batch = F.normalize(embeddings, dim=-1), len(groups)
    total = 0.0
    for i in range(2 * batch):
        partner = (i + batch) % (2 * batch)
        others = [a for a in range(2 * batch) if a == partner or groups[a % batch] != groups[i % batch]]
        total = total - log_share(z, i, partner, others)
    return total / (2 * batch)


def naive_supcon(embeddings, values, groups):
    z, batch = F.normalize(embeddings, dim=-1), len(groups)
    total = 0.0
    for i in range(2 * batch):
        positives, others = [], []
        for a in range(2 * batch):
            s, t = i % batch, a % batch
            positive = a != i and (s == t or values[s] == values[t] != UNKNOWN)
            if positive:
                positives.append(a)
            if positive or (a != i and groups[s] != groups[t]):
                others.append(a)
        total = total - sum(log_share(z, i, p, others) for p in positives) / len(positives)
    return total / (2 * batch)


def naive_queue_loss(query, key, groups, queue, queue_groups):
    q, k = F.normalize(query, dim=-1), F.normalize(key, dim=-1)
    total = 0.0
    for i in range(len(q)):
        positive = q[i] @ k[i] / TEMPERATURE
        shares = [torch.exp(positive)]
        for j in range(len(queue)):
            if queue_groups[j] not in (EMPTY, groups[i]):
                shares.append(torch.exp(q[i] @ queue[j] / TEMPERATURE))
        total = total + torch.log(sum(shares)) - positive
    return total / len(q)


def naive_batch_loss(query, key, groups):
    q, k = F.normalize(query, dim=-1), F.normalize(key, dim=-1)
    total = 0.0
    for i in range(len(q)):
        kept = [j for j in range(len(k)) if j == i or groups[j] != groups[i]]
        total = total + torch.log(sum(torch.exp(q[i] @ k[j] / TEMPERATURE) for j in kept)) - q[i] @ k[i] / TEMPERATURE
    return 2 * TEMPERATURE * total / len(q)


def assert_same(ours, naive, x):
    torch.testing.assert_close(ours, naive, rtol=1e-5, atol=1e-5)
    gradients = torch.autograd.grad(ours, x)[0], torch.autograd.grad(naive, x)[0]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("groups", GROUPS)
def test_simclr_equals_the_double_loop(groups):
    torch.manual_seed(0)
    x = torch.randn(10, 6, requires_grad=True)
    assert_same(nt_xent(x, torch.tensor(groups), TEMPERATURE), naive_nt_xent(x, groups), x)


@pytest.mark.parametrize("values", [[0, 0, 1, 2, 1], [0, UNKNOWN, 0, UNKNOWN, 3], [4, 4, 4, 4, 4]])
@pytest.mark.parametrize("groups", GROUPS)
def test_supcon_equals_the_double_loop(groups, values):
    torch.manual_seed(1)
    x = torch.randn(10, 6, requires_grad=True)
    ours = supcon_loss(x, torch.tensor(values), torch.tensor(groups), TEMPERATURE)
    assert_same(ours, naive_supcon(x, values, groups), x)


@pytest.mark.parametrize("groups", GROUPS)
def test_moco_v2_equals_the_double_loop(groups):
    torch.manual_seed(2)
    x, key, queue = torch.randn(5, 6, requires_grad=True), torch.randn(5, 6), F.normalize(torch.randn(9, 6), dim=-1)
    queue_groups = [0, 0, 3, 5, 1, 7, 2, EMPTY, EMPTY]
    ours = queue_loss(x, key, torch.tensor(groups), queue, torch.tensor(queue_groups), TEMPERATURE)
    assert_same(ours, naive_queue_loss(x, key, groups, queue, queue_groups), x)


@pytest.mark.parametrize("groups", GROUPS)
def test_moco_v3_equals_the_double_loop(groups):
    torch.manual_seed(3)
    x, key = torch.randn(5, 6, requires_grad=True), torch.randn(5, 6)
    assert_same(batch_loss(x, key, torch.tensor(groups), TEMPERATURE), naive_batch_loss(x, key, groups), x)


def losses(x, groups):
    """Each contrastive loss of 10 rows; supcon's values are unknown, so that only views of a scan are positives."""
    unknown = torch.full((5,), UNKNOWN)
    queue = F.normalize(torch.randn(4, 6, generator=torch.Generator().manual_seed(4)), dim=-1)
    return {
        "simclr": nt_xent(x, groups, TEMPERATURE),
        "supcon": supcon_loss(x, unknown, groups, TEMPERATURE),
        "moco v2": queue_loss(x[:5], x[5:], groups, queue, torch.zeros(4, dtype=torch.int64), TEMPERATURE),
        "moco v3": batch_loss(x[:5], x[5:], groups, TEMPERATURE),
    }


def test_batch_of_one_group_has_zero_loss_and_gradient():
    x = torch.randn(10, 6, generator=torch.Generator().manual_seed(5)).requires_grad_()
    for name, loss in losses(x, torch.zeros(5, dtype=torch.int64)).items():
        assert loss.item() == pytest.approx(0, abs=1e-6), name
        assert torch.autograd.grad(loss, x)[0].abs().max() < 1e-6, name
    for name, loss in losses(x, torch.arange(5) + 1).items():
        assert loss > 0.1, name


def test_positives_of_one_group_have_a_gradient():
    """A whole batch of one group and one value: no negatives, but positives that differ."""
    x = torch.randn(10, 6, generator=torch.Generator().manual_seed(6)).requires_grad_()
    loss = supcon_loss(x, torch.zeros(5, dtype=torch.int64), torch.zeros(5, dtype=torch.int64), TEMPERATURE)
    gradient = torch.autograd.grad(loss, x)[0]
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() > 1e-3


TABLE = pd.DataFrame(
    {
        "patient": ["p", "p", "p", "q", "q", "", ""],
        "eye": ["p-L", "p-L", "p-R", "", "", "x", "y"],
        "cst": np.nan,
        "bcva": 70.0,
    },
    index=[10, 11, 12, 13, 14, 15, 16],  # a manifest's rows need not begin at 0
)


def pairs(groups):
    """Return the pairs of different rows in one group."""
    return {(i, j) for i in range(len(groups)) for j in range(i) if groups[i] == groups[j]}


@pytest.mark.parametrize(
    ("negatives", "together"),
    [("all", set()), ("other_eyes", {(1, 0)}), ("other_patients", {(1, 0), (2, 0), (2, 1), (4, 3)})],
)
@pytest.mark.parametrize("missing", ["", None, np.nan])
def test_groups_are_scans_eyes_or_patients_and_unknown_ones_are_separate(negatives, together, missing):
    groups = scan_groups(TABLE.replace("", missing), negatives)
    assert groups.dtype == torch.int64
    assert groups.shape == (7,)
    assert groups.min() >= 0, "EMPTY is no scan's group"
    assert pairs(groups.tolist()) == together


def contrastive(name, negatives, **changes):
    torch.manual_seed(0)
    settings = METHODS[name](negatives=negatives, hidden_dim=16, out_dim=8, **changes).resolved(100)
    return method_class(settings)(settings, tiny, 4)


KINDS = [("simclr", {}), ("supcon", {}), ("moco", {"version": "v2"}), ("moco", {"version": "v3"})]


@pytest.mark.parametrize(("name", "changes"), KINDS, ids=["simclr", "supcon", "moco-v2", "moco-v3"])
def test_negatives_setting_changes_the_loss(name, changes):
    """Seven scans of one patient, all different: no negatives with `other_patients`, all with `all`."""
    table = TABLE.assign(patient="p", cst=100.0 * np.arange(7))
    found = {}
    for negatives in ("all", "other_patients"):
        method = contrastive(name, negatives, **changes)
        batch = make_batch(method, size=7, targets=method.targets(table))
        for _ in range(2):  # the second step has the first one's queue
            found[negatives], _ = loss_of(method, batch)
            found[negatives].backward()
            assert all(torch.isfinite(p.grad).all() for p in method.trained.parameters())
    assert found["other_patients"].item() == pytest.approx(0, abs=1e-6)
    assert found["all"] > 0.1


def test_earlier_keys_of_a_scan_are_not_its_negatives():
    """With one scan, even with `negatives: all`, the queue contains only its own keys."""
    method = contrastive("moco", "all", version="v2")
    batch = make_batch(method, size=1, targets=method.targets(TABLE.iloc[:1]))
    for _ in range(3):
        loss, scalars = loss_of(method, batch)
        assert loss == 0
    assert scalars["queue_filled"] > 0
    other = make_batch(method, size=1, targets=torch.tensor([[1]]))
    assert loss_of(method, other)[0] > 0
