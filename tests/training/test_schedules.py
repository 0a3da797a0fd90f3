"""Learning-rate schedules compared with their closed forms."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octdino.training.schedules import cosine, warmup_cosine


def test_cosine_equals_closed_form():
    assert cosine(0, 3, 1) == 3
    assert cosine(1, 3, 1) == 1
    assert cosine(0.5, 3, 1) == pytest.approx(2)
    assert cosine(0.25, 1, 0) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)
    assert cosine(7, 3, 1) == 1


@given(st.floats(0, 1), st.floats(0, 0.5))
def test_warmup_cosine_stays_between_end_and_peak(progress, warmup):
    assert 0 <= warmup_cosine(progress, 1.0, 0.0, warmup) <= 1 + 1e-12


def test_warmup_is_linear_and_continuous_with_cosine():
    assert warmup_cosine(0, 2, 0, 0.1) == 0
    assert warmup_cosine(0.05, 2, 0, 0.1) == pytest.approx(1)
    assert warmup_cosine(0.1, 2, 0, 0.1) == pytest.approx(2)
    assert warmup_cosine(0.55, 2, 0, 0.1) == pytest.approx(1)
    assert warmup_cosine(1, 2, 0.5, 0.1) == pytest.approx(0.5)
