"""Seeds derived from a run's seed."""

from octdino.training.random_seeds import seed_of


def test_seeds_depend_on_every_part():
    seeds = {seed_of(a, b, c) for a in range(5) for b in ("views", "order") for c in range(5)}
    assert len(seeds) == 50
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seed_of(1, "views", 2) == seed_of(1, "views", 2)
