"""Whether two results folders hold the same bytes."""

import filecmp
import re
from pathlib import Path

import pandas as pd

from tests.pretrain.small_runs import TIMES


def files(results: Path) -> dict[str, Path]:
    """Files that must be equal: all but timings, states, event files, paths of the cohort, and pages with timings."""
    found = (path for path in results.rglob("*") if path.is_file())
    kept = {str(path.relative_to(results)): path for path in found}
    left_out = re.compile(r"/state/|/tensorboard/|/benchmarks/|/origin\.json$|^phantom/report/")
    return {name: path for name, path in kept.items() if not left_out.search(name)}


def same(here: Path, there: Path) -> bool:
    """Whether two files are equal; histories without their columns of timings."""
    if here.name != "history.csv":
        return filecmp.cmp(here, there, shallow=False)
    one, two = (pd.read_csv(path).drop(columns=list(TIMES)) for path in (here, there))
    return one.equals(two)


def assert_alike(here: Path, there: Path) -> None:
    """Every result byte for byte."""
    ours, theirs = files(here), files(there)
    assert sorted(ours) == sorted(theirs)
    differ = [name for name in ours if not same(ours[name], theirs[name])]
    assert not differ, differ
