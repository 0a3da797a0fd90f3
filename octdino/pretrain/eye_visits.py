"""Scans of one eye at several visits as positives (Holland et al. 2024, https://doi.org/10.1016/j.media.2024.103296).

Eyes are those of a patient: whatever a table calls them, no pair crosses patients. The manifest is that of the
training scans, so no pair contains a scan of another patient.
"""

from collections.abc import Iterator
from itertools import product

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from octdino.config.eye_visits import VisitLimits, VisitViews
from octdino.config.method_settings import MethodSettings
from octdino.data.visit_times import VisitTime, visit_times
from octdino.errors import UserError
from octdino.training.counter_rng import CounterRng, image_keys
from octdino.training.random_seeds import seed_of

UNKNOWN = -1
SCALES = ("weeks", "visits")  # coded by their position
STEP = 1000  # times are whole thousandths of a week or of a visit

Place = tuple[np.ndarray, np.ndarray]  # rows of one visit of one eye, in the order of their slices, and these


def eye_codes(manifest: pd.DataFrame) -> np.ndarray:
    """Return a code per eye of a patient, int64 [N], UNKNOWN where the eye is not known.

    Raises:
        UserError: no eye is known.
    """
    eye = manifest["eye"].replace("", pd.NA)
    if eye.isna().all():
        raise UserError("positives: no scan has a known eye, so none is a positive; expected a column eye with values")
    return np.where(eye.isna(), UNKNOWN, manifest.groupby(["patient", eye], sort=True).ngroup())


def eye_visit_columns(manifest: pd.DataFrame, limits: VisitLimits) -> Tensor:
    """Return code of the eye, time of the visit and its scale, int64 [N, 3], for `same_eye`.

    Raises:
        UserError: no eye is known, or visits are on a scale that has no limit although the other one has.
    """
    unused: list[VisitTime | None] = [None] * len(manifest)
    times = visit_times(manifest["visit"]) if limits.limited else unused
    check_limits(manifest, times, limits)
    columns = [
        torch.from_numpy(eye_codes(manifest).astype("int64")),
        torch.tensor([round(time.value * STEP) if time else 0 for time in times], dtype=torch.int64),
        torch.tensor([SCALES.index(time.scale) if time else UNKNOWN for time in times], dtype=torch.int64),
    ]
    return torch.stack(columns, dim=1)


def same_eye(columns: Tensor, limits: VisitLimits) -> Tensor:
    """Return which scans [B, 3] are of one eye, at visits within the limits: bool [B, B]."""
    eye, time, scale = columns.unbind(1)
    same = (eye[:, None] == eye[None, :]) & (eye[:, None] != UNKNOWN)
    if not limits.limited:
        return same
    apart = (time[:, None] - time[None, :]).abs()
    near = torch.zeros_like(same)
    for code, limit in enumerate((limits.positives_weeks, limits.positives_visits)):
        if limit is not None:
            near |= (scale[:, None] == code) & (scale[None, :] == code) & (apart <= round(limit * STEP))
    return same & near


def check_limits(manifest: pd.DataFrame, times: list[VisitTime | None], limits: VisitLimits) -> None:
    """Check that every visit is on a scale that has a limit, where there is any."""
    if not limits.limited:
        return
    values = {"weeks": limits.positives_weeks, "visits": limits.positives_visits}
    if not any(times):
        raise UserError(
            "positives: no scan has a visit whose name has a number, so none is near another; expected such as W12 or "
            "V3, or no positives_weeks and positives_visits"
        )
    for name, time in zip(manifest["visit"], times, strict=True):
        if time is not None and values[time.scale] is None:
            other = next(scale for scale in SCALES if scale != time.scale)
            raise UserError(
                f"positives_{other}: {values[other]:g}, but visits such as {name!r} are in {time.scale}; expected a "
                f"limit for them, too: positives_{time.scale}"
            )


class VisitPartners:
    """For each scan, the scans at the same place of the same eye at other visits, one of which is chosen per step.

    The same place is the nearest slice number; where slices are unknown, the position in the manifest's order.

    Args:
        manifest: of the training scans.
        limits: how far apart visits may be.

    Raises:
        UserError: no eye or visit is known, or no eye has two visits within the limits.
    """

    def __init__(self, manifest: pd.DataFrame, limits: VisitLimits) -> None:
        eyes = eye_codes(manifest)
        if manifest["visit"].fillna("").eq("").all():
            raise UserError("positives: eye: no scan has a visit; expected a column visit with known values")
        pairs = list(_pairs(manifest, eyes, limits))
        if not pairs:
            raise UserError(
                "positives: eye: no eye has scans of two visits"
                f"{' within positives_weeks and positives_visits' if limits.limited else ''}, so there are no pairs; "
                "expected some among the training patients"
            )
        rows, partners = (np.concatenate(each) for each in zip(*pairs, strict=True))
        order = np.argsort(rows, kind="stable")
        self._counts = torch.from_numpy(np.bincount(rows, minlength=len(manifest)))
        self._first = self._counts.cumsum(0) - self._counts
        self._partners = torch.from_numpy(partners[order])

    def choose(self, rows: Tensor, seed: int) -> Tensor:
        """Return a partner of each scan, int64 [B], uniform over visits; the scan itself where it has none.

        Args:
            rows: int64 [B] on the host.
            seed: with one seed, a scan has the same partner in every batch.
        """
        counts = self._counts[rows]
        place = (CounterRng(image_keys(seed_of(seed, "partner"), rows)).uniform(0, 1) * counts).long()
        chosen = self._partners[(self._first[rows] + place.minimum(counts - 1)).clamp(0, len(self._partners) - 1)]
        return torch.where(counts > 0, chosen, rows)

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Return every scan that may be chosen for any of `rows`, ascending."""
        spans = [self._partners[self._first[row] : self._first[row] + self._counts[row]] for row in rows.tolist()]
        return np.unique(torch.cat(spans).numpy()) if spans else np.empty(0, np.int64)

    @property
    def with_partner(self) -> int:
        """Return the number of scans that have a partner."""
        return int((self._counts > 0).sum())


def visit_partners(settings: MethodSettings, manifest: pd.DataFrame) -> VisitPartners | None:
    """Return the partners of each scan for a method's settings; None where views are of one scan."""
    return VisitPartners(manifest, settings) if isinstance(settings, VisitViews) and settings.positives else None


def _pairs(manifest: pd.DataFrame, eyes: np.ndarray, limits: VisitLimits) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield rows of one visit and their partners at another one, per ordered pair of visits of an eye."""
    visits = manifest["visit"].fillna("").astype(str).to_numpy()
    columns = eye_visit_columns(manifest, limits)
    known = np.flatnonzero((eyes != UNKNOWN) & (visits != ""))
    for _, rows in pd.Series(known).groupby(eyes[known]):
        places = [_place(manifest, part.to_numpy()) for _, part in rows.groupby(visits[rows])]
        for one, other in product(places, places):
            first = columns[torch.from_numpy(np.stack([one[0][0], other[0][0]]))]
            if one is not other and same_eye(first, limits)[0, 1]:
                yield one[0], _nearest(one, other)


def _place(manifest: pd.DataFrame, rows: np.ndarray) -> Place:
    """Return the rows of one visit in the order of their slices, and slices as float64, NaN where unknown."""
    slices = manifest["slice"].iloc[rows].to_numpy(np.float64, na_value=np.nan)
    order = np.argsort(slices, kind="stable")
    return rows[order], slices[order]


def _nearest(one: Place, other: Place) -> np.ndarray:
    """Return for each row of one visit that of the nearest slice at the other."""
    (_, slices), (rows, others) = one, other
    if np.isnan(slices).any() or np.isnan(others).any():
        return rows[np.minimum(np.arange(len(slices)), len(rows) - 1)]
    right = np.searchsorted(others, slices).clip(1, len(others) - 1) if len(others) > 1 else np.zeros(len(slices), int)
    left = np.maximum(right - 1, 0)
    return rows[np.where(slices - others[left] <= others[right] - slices, left, right)]
