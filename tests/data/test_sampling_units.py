"""Whether patients are known: from the store, or from the manifest where no store says."""

from pathlib import Path

import h5py
import pytest

from octdino.data.cohort_reader import read_cohort
from octdino.data.sampling_units import STATES, unit
from octdino.errors import UserError
from tests.small import write_small_cohort


@pytest.mark.parametrize("state", STATES)
def test_the_store_decides(tmp_path: Path, state: str) -> None:
    store = write_small_cohort(tmp_path, patients=10, scans=2, size=16)
    with h5py.File(store, "r+") as file:
        file.attrs["patients"] = state
    assert read_cohort(store).unit == unit(state)


@pytest.mark.parametrize(("scans", "state"), [(2, "known"), (1, "unknown")])
def test_without_the_attribute_or_a_store_the_manifest_tells(tmp_path: Path, scans: int, state: str) -> None:
    store = write_small_cohort(tmp_path, patients=10, scans=scans, size=16)
    with h5py.File(store, "r+") as file:
        file.attrs.pop("patients", None)
    assert read_cohort(store).unit.state == state
    store.unlink()
    assert read_cohort(store, needs_store=False).unit.state == state


def test_another_value_is_refused(tmp_path: Path) -> None:
    store = write_small_cohort(tmp_path, patients=10, scans=1, size=16)
    with h5py.File(store, "r+") as file:
        file.attrs["patients"] = "some"
    with pytest.raises(UserError, match=r"scans\.h5: .*patients: 'some' is not allowed"):
        read_cohort(store)


def test_words_and_warnings() -> None:
    assert (unit("known").one, unit("known").many, unit("known").warning) == ("patient", "patients", "")
    for state in ("unknown", "none"):
        assert (unit(state).one, unit(state).many) == ("image", "images")
        assert "atients" in unit(state).warning
    assert "scores may be too high" in unit("unknown").warning
