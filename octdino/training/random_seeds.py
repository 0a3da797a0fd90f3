"""Seeds derived from a run's seed: each step has its own, so a checkpoint holds no random state."""

import hashlib


def seed_of(*parts: int | str) -> int:
    """Return a 63-bit seed that depends on all `parts`, such as the run's seed, a purpose and a step."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "big") >> 1
