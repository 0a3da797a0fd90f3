"""Counter-based random numbers equal published ones, are uniform, and are uncorrelated."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from octdino.training.counter_rng import CounterRng, image_keys, splitmix64

STEP = 0x9E3779B97F4A7C15


def signed(x):
    return (x + 2**63) % 2**64 - 2**63


def test_hash_equals_published_splitmix64():
    """The first numbers of SplitMix64 from the seed 1234567, as published."""
    states = torch.tensor([signed(1234567 + k * STEP) for k in range(1, 6)])
    expected = [
        6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821,
    ]  # fmt: skip
    assert [x % 2**64 for x in splitmix64(states).tolist()] == expected


def test_numbers_are_uniform_and_uncorrelated():
    rng = CounterRng(image_keys(3, torch.arange(200_000)))
    a, b = rng.uniform(0, 1), rng.uniform(0, 1)
    for x in (a, b):
        counts = torch.histc(x, 50, 0, 1)
        chi2 = ((counts - 4000) ** 2 / 4000).sum()
        assert chi2 < 49 + 5 * math.sqrt(2 * 49)
    pairs = {"two calls": (a, b), "neighbors": (a[1:], a[:-1])}
    pairs["two seeds"] = (a, CounterRng(image_keys(4, torch.arange(200_000))).uniform(0, 1))
    for name, (x, y) in pairs.items():
        assert torch.corrcoef(torch.stack([x, y]))[0, 1].abs() < 5 / math.sqrt(200_000), name


@given(st.integers(0, 2**63 - 1), st.floats(-10, 10), st.floats(0.001, 10), st.integers(1, 1000))
def test_numbers_are_within_bounds(seed, low, width, limit):
    rng = CounterRng(image_keys(seed, torch.arange(50)))
    x = rng.uniform(low, low + width)
    assert (x >= low - 1e-5).all()
    assert (x <= low + width + 1e-5).all()
    whole = rng.integers(limit)
    assert 0 <= whole.min() <= whole.max() < limit


@pytest.mark.parametrize(("probability", "expected"), [(0.0, 0.0), (0.3, 0.3), (1.0, 1.0)])
def test_bernoulli_has_the_given_probability(probability, expected):
    chosen = CounterRng(image_keys(0, torch.arange(100_000))).bernoulli(probability)
    assert chosen.float().mean() == pytest.approx(expected, abs=0.005 * (0 < probability < 1))
