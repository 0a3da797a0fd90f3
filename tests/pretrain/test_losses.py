"""Losses and gradients against naive double loops and lightly's implementations."""

import math

import pytest
import torch
import torch.nn.functional as F
from lightly.loss import DINOLoss, NTXentLoss
from lightly.loss.swav_loss import sinkhorn as lightly_sinkhorn

from octdino.models.heads import PrototypeHead
from octdino.pretrain.methods.dino import dino_loss, sinkhorn
from octdino.pretrain.methods.simclr import nt_xent
from octdino.pretrain.methods.supcon import UNKNOWN, supcon_loss

VALUES, GROUPS = torch.tensor([0, 0, 1, 2, 1, 3, 3, 3]), torch.arange(8)


def gradient(loss, *inputs):
    return torch.autograd.grad(loss, inputs, retain_graph=True)


@pytest.mark.parametrize("views", [2, 6])
@pytest.mark.parametrize("scale", [1.0, 50.0])
@pytest.mark.parametrize("batch", [1, 5])
def test_dino_loss_equals_the_double_loop(views, scale, batch):
    torch.manual_seed(0)
    logits = (torch.randn(views, batch, 11) * scale).requires_grad_()
    teacher = torch.softmax(torch.randn(2, batch, 11) * scale, -1)
    student = torch.log_softmax(logits, -1)
    loss = dino_loss(student, teacher)
    pairs = [-(teacher[t] * student[s]).sum(-1).mean() for t in range(2) for s in range(views) if s != t]
    naive = torch.stack(pairs).mean()
    torch.testing.assert_close(loss, naive, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient(loss, logits), gradient(naive, logits), rtol=1e-5, atol=1e-5)


def test_dino_loss_equals_lightly():
    torch.manual_seed(1)
    student, teacher, temp = torch.randn(6, 7, 13, requires_grad=True), torch.randn(2, 7, 13), 0.04
    theirs = DINOLoss(output_dim=13, student_temp=0.1)
    expected = theirs(list(teacher), list(student), teacher_temp=temp)
    ours = dino_loss(torch.log_softmax(student / 0.1, -1), torch.softmax(teacher / temp, -1))  # center still zero
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient(ours, student), gradient(expected, student), rtol=1e-5, atol=1e-5)


def test_dino_loss_of_uniform_outputs_is_ln_k():
    flat = torch.full((4, 3, 64), 1 / 64)
    assert dino_loss(flat.log(), flat[:2]).item() == pytest.approx(math.log(64), abs=1e-5)


@pytest.mark.parametrize("temperature", [0.07, 0.5])
@pytest.mark.parametrize("batch", [1, 2, 9])
@pytest.mark.parametrize("kind", ["random", "identical views", "huge"])
def test_nt_xent_equals_lightly(temperature, batch, kind):
    torch.manual_seed(2)
    embeddings = torch.randn(2 * batch, 8) * (1e4 if kind == "huge" else 1)
    if kind == "identical views":
        embeddings = embeddings[:batch].repeat(2, 1)
    embeddings.requires_grad_()
    ours = nt_xent(embeddings, torch.arange(batch), temperature)
    theirs = NTXentLoss(temperature=temperature)(*embeddings.chunk(2))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient(ours, embeddings), gradient(theirs, embeddings), rtol=1e-5, atol=1e-5)


def naive_supcon(embeddings, values, temperature):
    z = F.normalize(embeddings, dim=-1)
    values = values.repeat(2)
    batch, total = len(values) // 2, 0.0
    for i in range(len(z)):
        others = [a for a in range(len(z)) if a != i]
        denominator = sum(torch.exp(z[i] @ z[a] / temperature) for a in others)
        same = [p for p in others if (values[p] == values[i] != UNKNOWN) or p % batch == i % batch]
        terms = [torch.log(torch.exp(z[i] @ z[p] / temperature) / denominator) for p in same]
        total = total - sum(terms) / len(same)
    return total / len(z)


@pytest.mark.parametrize("values", [[0, 0, 1, 2, 1], [0, 0, 0, 0, 0], [0, UNKNOWN, 0, UNKNOWN, 3], [0], [UNKNOWN]])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_supcon_equals_the_double_loop(values, scale):
    torch.manual_seed(3)
    batch, values = len(values), torch.tensor(values)
    embeddings = (torch.randn(2 * batch, 6) * scale).requires_grad_()
    ours, naive = supcon_loss(embeddings, values, torch.arange(batch), 0.2), naive_supcon(embeddings, values, 0.2)
    torch.testing.assert_close(ours, naive, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient(ours, embeddings), gradient(naive, embeddings), rtol=1e-5, atol=1e-5)


def test_supcon_without_known_values_is_simclr():
    torch.manual_seed(4)
    embeddings = torch.randn(12, 5)
    unknown = torch.full((6,), UNKNOWN)
    torch.testing.assert_close(
        supcon_loss(embeddings, unknown, torch.arange(6), 0.3), nt_xent(embeddings, torch.arange(6), 0.3)
    )


def test_sinkhorn_equals_lightly():
    logits = torch.rand(12, 7, generator=torch.Generator().manual_seed(5)) * 2 - 1
    theirs = lightly_sinkhorn(logits, iterations=3, epsilon=0.05)
    torch.testing.assert_close(sinkhorn(logits, 0.05), theirs, rtol=1e-4, atol=1e-6)


def test_sinkhorn_is_balanced_and_does_not_overflow():
    logits = torch.randn(64, 8, generator=torch.Generator().manual_seed(6)) * 100
    once = sinkhorn(logits, 0.04)
    assert torch.isfinite(once).all()
    torch.testing.assert_close(once.sum(1), torch.ones(64))
    settled = sinkhorn(logits / 100, 0.5, iterations=200)
    torch.testing.assert_close(settled.sum(0), torch.full((8,), 64 / 8), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "loss", [lambda z: nt_xent(z, torch.arange(8), 0.1), lambda z: supcon_loss(z, VALUES, GROUPS, 0.1)]
)
def test_losses_stay_in_float32_under_autocast(loss):
    embeddings = torch.randn(16, 32, generator=torch.Generator().manual_seed(0))
    plain = loss(embeddings)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss(embeddings), plain)


def test_similarities_to_prototypes_stay_in_float32_under_autocast():
    torch.manual_seed(0)
    head = PrototypeHead(8, 16, 16, 32, norm=False, bottleneck_norm=False)
    head.mlp = torch.nn.Identity()  # earlier layers may be bfloat16
    features = torch.randn(4, 16)
    plain = head(features)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(head(features), plain)
