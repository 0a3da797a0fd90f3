"""Schedules of learning rate, weight decay and momentum as functions of training progress (0 to 1)."""

import math


def cosine(progress: float, start: float, end: float) -> float:
    """Return the value at `progress` of half a cosine from `start` at 0 to `end` at 1."""
    return end + (start - end) * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0))) / 2


def warmup_cosine(progress: float, peak: float, end: float, warmup: float) -> float:
    """Return a linear warm-up to `peak` over `warmup`, then half a cosine to `end` (Loshchilov & Hutter 2017)."""
    if progress < warmup:
        return peak * progress / warmup
    return cosine((progress - warmup) / (1 - warmup), peak, end)
