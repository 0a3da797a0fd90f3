"""Random numbers that belong to an image, not to its place in a batch.

A counter-based generator: every number is a hash of the image's key and of how many numbers were drawn before it
(Salmon et al. 2011, https://doi.org/10.1145/2063384.2063405). So an image's views are the same whatever stands beside
it, on whatever device, and however many processes share the batch; and nothing waits for the device.
"""

from torch import Tensor

GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)  # 2^64 over the golden ratio, as a signed number: the step of SplitMix64
MIX = (0xBF58476D1CE4E5B9 - (1 << 64), 0x94D049BB133111EB - (1 << 64))


def hashed(x: Tensor) -> Tensor:
    """SplitMix64's finaliser (Steele et al. 2014, https://doi.org/10.1145/2660193.2660195): int64 to int64."""
    x = (x ^ _shift(x, 30)) * MIX[0]
    x = (x ^ _shift(x, 27)) * MIX[1]
    return x ^ _shift(x, 31)


def image_keys(seed: int, rows: Tensor) -> Tensor:
    """A key for each of the rows (int64 [B], what an image is known by): int64 [B]."""
    return hashed(hashed(rows * GOLDEN) + seed)


class CounterRng:
    """Numbers for the images of these keys, int64 of any shape; a call after another gives other numbers."""

    def __init__(self, keys: Tensor) -> None:
        self._keys, self._drawn = keys, 0

    def uniform(self, low: float, high: float) -> Tensor:
        """float32, one a key, in [low, high)."""
        self._drawn += 1
        bits = _shift(hashed(self._keys + (self._drawn * GOLDEN) % (1 << 63)), 40)
        return bits.float() * (2.0**-24 * (high - low)) + low

    def chosen(self, probability: float | Tensor) -> Tensor:
        """bool, one a key; `probability` is one for all, or a tensor that fits the keys' last axes."""
        return self.uniform(0, 1) < probability

    def below(self, limit: int) -> Tensor:
        """int64, one a key, in 0 .. limit - 1; `limit` at most 2^24."""
        return self.uniform(0, limit).long().clamp_(max=limit - 1)


def _shift(x: Tensor, bits: int) -> Tensor:
    """To the right, zeros coming in: torch's own shift brings in the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
