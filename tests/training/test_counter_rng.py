"""Numbers of a key are a published generator's, evenly spread, and independent of each other."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from octdino.training.counter_rng import CounterRng, hashed, image_keys

STEP = 0x9E3779B97F4A7C15


def signed(x):
    return (x + 2**63) % 2**64 - 2**63


def test_the_hash_is_splitmix64s():
    """The first numbers of SplitMix64 from the seed 1234567, as its users publish them."""
    states = torch.tensor([signed(1234567 + k * STEP) for k in range(1, 6)])
    expected = [
        6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821,
    ]  # fmt: skip
    assert [x % 2**64 for x in hashed(states).tolist()] == expected


def test_draws_are_uniform_and_do_not_know_each_other():
    draws = CounterRng(image_keys(3, torch.arange(200_000)))
    a, b = draws.uniform(0, 1), draws.uniform(0, 1)
    for x in (a, b):
        counts = torch.histc(x, 50, 0, 1)
        chi2 = ((counts - 4000) ** 2 / 4000).sum()
        assert chi2 < 49 + 5 * math.sqrt(2 * 49)
    pairs = {"two draws": (a, b), "neighbours": (a[1:], a[:-1])}
    pairs["two seeds"] = (a, CounterRng(image_keys(4, torch.arange(200_000))).uniform(0, 1))
    for name, (x, y) in pairs.items():
        assert torch.corrcoef(torch.stack([x, y]))[0, 1].abs() < 5 / math.sqrt(200_000), name


@given(st.integers(0, 2**63 - 1), st.floats(-10, 10), st.floats(0.001, 10), st.integers(1, 1000))
def test_draws_keep_their_bounds(seed, low, width, limit):
    draws = CounterRng(image_keys(seed, torch.arange(50)))
    x = draws.uniform(low, low + width)
    assert (x >= low - 1e-5).all()
    assert (x <= low + width + 1e-5).all()
    whole = draws.below(limit)
    assert 0 <= whole.min() <= whole.max() < limit


@pytest.mark.parametrize(("probability", "expected"), [(0.0, 0.0), (0.3, 0.3), (1.0, 1.0)])
def test_probabilities(probability, expected):
    chosen = CounterRng(image_keys(0, torch.arange(100_000))).chosen(probability)
    assert chosen.float().mean() == pytest.approx(expected, abs=0.005 * (0 < probability < 1))
