"""Sampling unit of a cohort (patient or image): whether patients are known, and the wording that depends on it.

The cohort stage writes one of three states to the store's attribute `patients`: known; unknown (the table has no
patient column, so nothing tells which images are of one patient); none (images that have no patients, such as
photographs). In the last two, each image is a unit of its own in splits, fractions and intervals.
"""

from dataclasses import dataclass

import pandas as pd

STATES = ("known", "unknown", "none")
WARNINGS = {
    "unknown": "Patients are unknown. Each image counts as its own patient, so images of one patient may be in "
    "training and in test: scores may be too high and intervals too narrow.",
    "none": "There are no patients: each image counts by itself in splits and intervals.",
}


@dataclass(frozen=True)
class Unit:
    """The sampling unit of splits, fractions and intervals.

    Attributes:
        state: one of STATES.
        one, many: its noun, patient and patients, or image and images.
    """

    state: str
    one: str
    many: str

    @property
    def patients(self) -> bool:
        """Whether the unit is the patient."""
        return self.state == "known"

    @property
    def warning(self) -> str:
        """The caveat for readers of any result; empty where patients are known."""
        return WARNINGS.get(self.state, "")


PATIENT = Unit("known", "patient", "patients")


def unit(state: str) -> Unit:
    """Return the unit of a state of STATES."""
    assert state in STATES, state
    return PATIENT if state == "known" else Unit(state, "image", "images")


def unit_of(state: str | None, manifest: pd.DataFrame) -> Unit:
    """Return the unit of a cohort by its store's attribute `patients`.

    Without a store, or of one written before the attribute was there, patients count as known if one has two scans.
    """
    if state is None:
        return unit("known" if manifest["patient"].duplicated().any() else "unknown")
    return unit(state)
