"""Counter-based random number generator: numbers that depend on an image's key, not on its place in a batch.

Every number is a hash of the image's key and of a counter of earlier numbers (Salmon et al. 2011,
https://doi.org/10.1145/2063384.2063405). So an image's views are the same in every batch, on every device, and with any
number of processes; and nothing waits for the device.
"""

from torch import Tensor

GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)  # 2^64 over the golden ratio, as a signed number: the step of SplitMix64
MIX = (0xBF58476D1CE4E5B9 - (1 << 64), 0x94D049BB133111EB - (1 << 64))


def splitmix64(x: Tensor) -> Tensor:
    """Hash int64 to int64 by SplitMix64's finalizer (Steele et al. 2014, https://doi.org/10.1145/2660193.2660195)."""
    x = (x ^ _shift(x, 30)) * MIX[0]
    x = (x ^ _shift(x, 27)) * MIX[1]
    return x ^ _shift(x, 31)


def image_keys(seed: int, rows: Tensor) -> Tensor:
    """Return a key per image, int64 [B], from the images' rows, int64 [B]."""
    return splitmix64(splitmix64(rows * GOLDEN) + seed)


class CounterRng:
    """Random numbers per key, int64 of any shape; each call returns new numbers."""

    def __init__(self, keys: Tensor) -> None:
        self._keys, self._counter = keys, 0

    def uniform(self, low: float, high: float) -> Tensor:
        """Return uniform float32 in [low, high), one per key."""
        self._counter += 1
        bits = _shift(splitmix64(self._keys + (self._counter * GOLDEN) % (1 << 63)), 40)
        return bits.float() * (2.0**-24 * (high - low)) + low

    def bernoulli(self, probability: float | Tensor) -> Tensor:
        """Return bool, one per key, true with `probability`: a number, or a tensor broadcast to the keys' last axes."""
        return self.uniform(0, 1) < probability

    def integers(self, limit: int) -> Tensor:
        """Return uniform int64 in 0 .. limit - 1, one per key; `limit` at most 2^24."""
        return self.uniform(0, limit).long().clamp_(max=limit - 1)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical shift to the right; torch's own shift is arithmetic."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
