"""Duplicate scans (equal pixels): kept once per patient; patients with a common scan form one split group."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from octdino.data.csv_io import label_matrix


@dataclass(frozen=True)
class Duplicates:
    """Duplicates among the accepted scans.

    Attributes:
        dropped: index label of a dropped scan → index label of the scan kept in its place.
        shared: index labels of kept scans that another patient has too.
        clash: index labels of kept scans whose dropped duplicate had other labels.
    """

    dropped: dict[int, int]
    shared: set[int]
    clash: set[int]


def find_duplicates(scans: pd.DataFrame, truth: pd.DataFrame) -> Duplicates:
    """Find duplicate scans, and which of them to drop and to flag.

    Of a patient's equal scans the labeled one is kept, else a given test before val before train, else the first.
    Scans whose patient is unknown count as one patient.

    Args:
        scans: columns digest, patient, known and given_split; the index identifies the scans.
        truth: their labels, with the same index.
    """
    found = Duplicates({}, set(), set())
    doubles = scans[scans.duplicated("digest", keep=False)]
    values = label_matrix(truth.loc[doubles.index], list(truth.columns))
    row_of = {int(index): values[i] for i, index in enumerate(doubles.index)}
    for _, equal in doubles.groupby("digest", sort=False):
        known = equal.loc[equal["known"], "patient"]
        patient_key = equal["patient"].where(equal["known"], known.iloc[0] if len(known) else "")
        kept = []
        for _, own in equal.groupby(patient_key, sort=False):
            indices = sorted((int(i) for i in own.index), key=lambda i: _rank(scans, row_of, i))
            kept.append(indices[0])
            found.dropped.update(dict.fromkeys(indices[1:], indices[0]))
            if any(_differ(row_of[indices[0]], row_of[i]) for i in indices[1:]):
                found.clash.add(indices[0])
        if len(kept) > 1:
            found.shared.update(kept)
    return found


def _rank(scans: pd.DataFrame, row_of: dict[int, np.ndarray], index: int) -> tuple[bool, int, int]:
    given = str(scans.loc[index, "given_split"])
    priority = ["test", "val", "train"].index(given) if given else 3
    return bool(np.isnan(row_of[index]).all()), priority, index


def _differ(one: np.ndarray, other: np.ndarray) -> bool:
    both = ~np.isnan(one) & ~np.isnan(other)
    return bool((one[both] != other[both]).any())


def split_groups(patients: list[str], digests: list[str]) -> dict[str, str]:
    """Return each patient's split group, named after the group's first patient.

    Patients with a common scan form one group, transitively (union-find).
    """
    parent = {patient: patient for patient in patients}

    def root(patient: str) -> str:
        while parent[patient] != patient:
            parent[patient] = parent[parent[patient]]
            patient = parent[patient]
        return patient

    order = {patient: i for i, patient in enumerate(dict.fromkeys(patients))}
    first: dict[str, str] = {}
    for patient, digest in zip(patients, digests, strict=True):
        one, other = sorted((root(first.setdefault(digest, patient)), root(patient)), key=order.__getitem__)
        parent[other] = one
    return {patient: root(patient) for patient in parent}
