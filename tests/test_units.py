"""Whether patients are known: from the store, or from the manifest where no store says."""

from pathlib import Path

import h5py
import pandas as pd
import pytest

from octdino.errors import UserError
from octdino.units import STATES, unit, unit_of
from tests.small import write_small_cohort

TWICE, ONCE = pd.DataFrame({"patient": ["a", "a", "b"]}), pd.DataFrame({"patient": ["a", "b", "c"]})


@pytest.mark.parametrize("state", STATES)
def test_the_store_decides(tmp_path: Path, state: str) -> None:
    store = write_small_cohort(tmp_path, patients=10, scans=1, size=8)
    with h5py.File(store, "r+") as file:
        file.attrs["patients"] = state
    for manifest in (TWICE, ONCE):
        assert unit_of(store, manifest) == unit(state)


def test_without_the_attribute_or_a_store_the_manifest_tells(tmp_path: Path) -> None:
    store = write_small_cohort(tmp_path, patients=10, scans=1, size=8)
    with h5py.File(store, "r+") as file:
        assert "patients" not in file.attrs
    for path in (store, tmp_path / "none.h5"):
        assert unit_of(path, TWICE).state == "known"
        assert unit_of(path, ONCE).state == "unknown"


def test_another_value_is_refused(tmp_path: Path) -> None:
    store = write_small_cohort(tmp_path, patients=10, scans=1, size=8)
    with h5py.File(store, "r+") as file:
        file.attrs["patients"] = "some"
    with pytest.raises(UserError, match=r"scans\.h5: attribute patients is 'some'; expected known, unknown, none"):
        unit_of(store, TWICE)


def test_words_and_warnings() -> None:
    assert (unit("known").one, unit("known").many, unit("known").warning) == ("patient", "patients", "")
    for state in ("unknown", "none"):
        assert (unit(state).one, unit(state).many) == ("image", "images")
        assert "atients" in unit(state).warning
    assert "scores may be too high" in unit("unknown").warning
