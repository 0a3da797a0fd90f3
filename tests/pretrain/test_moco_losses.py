"""MoCo: losses of both versions compared with lightly's and double loops."""

import pytest
import torch
import torch.nn.functional as F
from lightly.loss import NTXentLoss

from octdino.pretrain.methods.moco import EMPTY, batch_loss, queue_loss


def unit(*shape):
    return F.normalize(torch.randn(*shape), dim=-1)


# The loss of v2.


@pytest.mark.parametrize("temperature", [0.2, 1e-3])
@pytest.mark.parametrize("batch", [1, 6])
def test_queue_loss_equals_lightly_with_a_memory_bank(batch, temperature):
    torch.manual_seed(1)
    query, key = torch.randn(batch, 8, requires_grad=True), torch.randn(batch, 8)
    theirs = NTXentLoss(temperature=temperature, memory_bank_size=(15, 8))
    queue = theirs.memory_bank.bank.clone()
    expected = theirs(query, key)
    ours = queue_loss(query, key, torch.arange(batch), queue, torch.arange(15) + 100, temperature)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    gradients = [torch.autograd.grad(loss, query)[0] * temperature for loss in (ours, expected)]
    assert gradients[0].abs().max() > 1e-3
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)


def test_empty_places_of_the_queue_are_no_negatives():
    torch.manual_seed(2)
    query, key, queue, groups = torch.randn(5, 8), torch.randn(5, 8), unit(12, 8), torch.arange(5)
    places = torch.arange(12) + 100
    places[7:] = EMPTY
    half = queue_loss(query, key, groups, queue, places, 0.2)
    torch.testing.assert_close(half, queue_loss(query, key, groups, queue[:7], places[:7], 0.2))
    assert abs(half - queue_loss(query, key, groups, queue, torch.arange(12) + 100, 0.2)) > 0.1


def test_identical_views_have_a_finite_loss_even_at_huge_logits():
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(3)).requires_grad_()
    queue = F.normalize(x.detach(), dim=-1)
    for loss in (
        queue_loss(x, x.detach(), torch.arange(4), queue, torch.arange(4) + 9, 1e-6),
        batch_loss(x, x.detach(), torch.arange(4), 1e-6),
        batch_loss(x * 1e10, x.detach() * 1e-10, torch.arange(4), 0.2),
    ):
        assert torch.isfinite(loss)
        assert torch.isfinite(torch.autograd.grad(loss, x)[0]).all()


# The loss of v3.


def naive_batch_loss(query, key, temperature):
    """-log of the positive's share of the softmax, one query and one key at a time."""
    q, k = F.normalize(query, dim=-1), F.normalize(key, dim=-1)
    total = 0.0
    for i in range(len(q)):
        terms = torch.stack([q[i] @ k[j] / temperature for j in range(len(k))])
        total = total + terms.logsumexp(0) - terms[i]
    return 2 * temperature * total / len(q)


@pytest.mark.parametrize("temperature", [0.2, 1e-3])
@pytest.mark.parametrize("batch", [1, 6])
def test_batch_loss_equals_the_double_loop(batch, temperature):
    torch.manual_seed(4)
    query, key = torch.randn(batch, 8, requires_grad=True), torch.randn(batch, 8)
    ours, naive = batch_loss(query, key, torch.arange(batch), temperature), naive_batch_loss(query, key, temperature)
    torch.testing.assert_close(ours, naive, rtol=1e-5, atol=1e-5)
    gradients = [torch.autograd.grad(loss, query)[0] for loss in (ours, naive)]
    assert (gradients[0].abs().max() > 1e-3) == (batch > 1)
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)


def test_losses_stay_in_float32_under_autocast():
    torch.manual_seed(5)
    query, key, queue, groups = torch.randn(5, 8), torch.randn(5, 8), unit(12, 8), torch.arange(5)

    def losses():
        places = torch.arange(12) + 100
        return queue_loss(query, key, groups, queue, places, 0.2), batch_loss(query, key, groups, 0.2)

    expected = losses()
    with torch.autocast("cpu", torch.bfloat16):
        assert (query @ queue.T).dtype == torch.bfloat16
        assert losses() == expected
