"""Seeds derived from a run's seed: each step has its own, so a checkpoint holds no random state."""

import hashlib


def seed_of(*parts: int | str) -> int:
    """A 63-bit seed that depends on all `parts`: each step's randomness has its own, so none has to be saved."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "big") >> 1
