"""Scans of one eye at several visits as positives (Holland et al. 2024, https://doi.org/10.1016/j.media.2024.103296).

Eyes are those of a patient: whatever a table calls them, no pair crosses patients. The manifest is that of the
training scans, so no pair contains a scan of another patient.
"""

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from octdino.config.eye_visits import VisitLimits, VisitViews
from octdino.config.method_settings import MethodSettings
from octdino.data.visit_times import Scale, visit_time, visit_time_fault
from octdino.errors import UserError
from octdino.training.counter_rng import CounterRng, image_keys
from octdino.training.random_seeds import seed_of

UNKNOWN = -1
LIMITS: dict[Scale, str] = {  # the setting of each scale, which is coded by its position
    "weeks": "positives_weeks",
    "visits": "positives_visits",
    "dates": "positives_weeks",
}
STEP = 7000  # times are whole parts of a week or of a visit, so that those of days are exact


def eye_codes(manifest: pd.DataFrame) -> np.ndarray:
    """Return a code per eye of a patient, int64 [N], UNKNOWN where the eye is not known.

    Raises:
        UserError: no eye is known.
    """
    eye = manifest["eye"].replace("", pd.NA)
    if eye.isna().all():
        raise UserError("positives: no scan has a known eye, so none is a positive; expected a column eye with values")
    codes = manifest.groupby(["patient", eye], sort=True).ngroup()  # float64 where an eye is not known
    return codes.where(eye.notna(), UNKNOWN).to_numpy(np.int64)


def eye_visit_columns(manifest: pd.DataFrame, limits: VisitLimits) -> Tensor:
    """Return code of the eye, time of the visit in STEP-ths and its scale, int64 [N, 3], for `same_eye`.

    Raises:
        UserError: no eye is known, or there are limits and visits whose times cannot be compared with them.
    """
    columns = np.zeros((len(manifest), 3), np.int64)
    columns[:, 0] = eye_codes(manifest)
    if limits.limited:
        columns[:, 1:] = _visit_times(manifest, columns[:, 0], limits)
    return torch.from_numpy(columns)


def same_eye(columns: Tensor, limits: VisitLimits) -> Tensor:
    """Return which scans [B, 3] are of one eye, at visits within the limits: bool [B, B]."""
    return near(columns[:, None], columns[None, :], limits)


def near(scans: Tensor, others: Tensor, limits: VisitLimits) -> Tensor:
    """Return whether scans [..., 3] and others [..., 3] are of one eye, at visits within the limits: bool [...]."""
    same = (scans[..., 0] == others[..., 0]) & (scans[..., 0] != UNKNOWN)
    if not limits.limited:
        return same
    apart = (scans[..., 1] - others[..., 1]).abs()
    within = torch.zeros_like(same)
    for code, key in enumerate(LIMITS.values()):
        if (limit := getattr(limits, key)) is not None:
            within |= (scans[..., 2] == code) & (others[..., 2] == code) & (apart <= round(limit * STEP))
    return same & within


def _visit_times(manifest: pd.DataFrame, eyes: np.ndarray, limits: VisitLimits) -> np.ndarray:
    """Return time and scale of each scan's visit, int64 [N, 2]; UNKNOWN scale where eye or visit is not known.

    Raises:
        UserError: a visit has no time, or one on a scale without a limit, or an eye has visits on two scales.
    """
    visits, scales = manifest["visit"].fillna("").astype(str), list(LIMITS)
    known = (eyes != UNKNOWN) & (visits != "").to_numpy()
    if not known.any():
        raise UserError(
            "positives: no scan has a known eye and a visit, so none is near another; expected columns eye and visit "
            "with values, or no positives_weeks and positives_visits"
        )
    found = np.full((len(manifest), 2), UNKNOWN)
    codes, names = pd.factorize(visits[known], sort=True)
    times = []
    for code, name in enumerate(names):
        time, fault = visit_time(name), visit_time_fault(name)
        if time is None or fault is not None:
            of = manifest["patient"][known].iloc[np.argmax(codes == code)]
            raise UserError(f"positives: visit {name!r} of patient {of}: {fault}; or no limits of time between visits")
        if getattr(limits, LIMITS[time.scale]) is None:
            given = next(key for key in LIMITS.values() if getattr(limits, key) is not None)
            raise UserError(
                f"{given}: {getattr(limits, given):g}, but visits such as {name!r} are in {time.scale}; expected a "
                f"limit for them, too: {LIMITS[time.scale]}"
            )
        times.append((round(time.value * STEP), scales.index(time.scale)))
    found[known] = np.array(times, np.int64).reshape(-1, 2)[codes]
    several = pd.Series(found[known, 1]).groupby(eyes[known]).agg(["min", "max"])
    if (mixed := several.index[several["min"] != several["max"]]).size:
        own = known & (eyes == mixed[0])
        first, last = (visits[own & (found[:, 1] == several.loc[mixed[0], end])].iloc[0] for end in ("min", "max"))
        raise UserError(
            f"positives: eye {manifest['eye'][own].iloc[0]} of patient {manifest['patient'][own].iloc[0]} has visits "
            f"{first!r} and {last!r}, whose times cannot be compared; expected weeks, dates or numbers for all visits "
            "of an eye"
        )
    return found


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
        columns = eye_visit_columns(manifest, limits)
        if manifest["visit"].fillna("").eq("").all():
            raise UserError("positives: eye: no scan has a visit; expected a column visit with known values")
        rows, partners = _pairs(manifest, columns, limits)
        if not len(rows):
            raise UserError(
                "positives: eye: no eye has scans of two visits"
                f"{' within positives_weeks and positives_visits' if limits.limited else ''}, so there are no pairs; "
                "expected some among the training patients"
            )
        self._counts = torch.from_numpy(np.bincount(rows, minlength=len(manifest)))
        self._first = self._counts.cumsum(0) - self._counts
        self._partners = torch.from_numpy(partners)

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
        asked = np.isin(np.arange(len(self._counts)), rows)
        return np.unique(self._partners.numpy()[np.repeat(asked, self._counts.numpy())])

    @property
    def with_partner(self) -> int:
        """Return the number of scans that have a partner."""
        return int((self._counts > 0).sum())


def visit_partners(settings: MethodSettings, manifest: pd.DataFrame) -> VisitPartners | None:
    """Return the partners of each scan for a method's settings; None where views are of one scan."""
    return VisitPartners(manifest, settings) if isinstance(settings, VisitViews) and settings.positives else None


def _pairs(manifest: pd.DataFrame, columns: Tensor, limits: VisitLimits) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and their partners, int64 [M] each: per scan one per other visit of its eye, by row and visit."""
    eyes, names = columns[:, 0].numpy(), manifest["visit"].fillna("").astype(str).to_numpy()
    known = np.flatnonzero((eyes != UNKNOWN) & (names != ""))
    slices = manifest["slice"].to_numpy(np.float64, na_value=np.nan)
    scans = pd.DataFrame({"row": known, "eye": eyes[known], "name": names[known], "slice": slices[known]})
    scans = scans.sort_values(["eye", "name", "slice"], kind="stable", ignore_index=True)
    scans["visit"] = scans.groupby(["eye", "name"]).ngroup()
    scans["position"] = scans.groupby("visit").cumcount()
    visits = scans.groupby("visit", as_index=False).agg(
        eye=("eye", "first"),
        row=("row", "first"),
        count=("row", "size"),
        unknown=("slice", lambda each: each.isna().any()),
    )
    visits["start"] = visits["count"].cumsum() - visits["count"]
    pairs = visits.merge(visits, on="eye", suffixes=("", "_other"))
    one, other = (columns[torch.tensor(pairs[name].to_numpy())] for name in ("row", "row_other"))
    pairs = pairs[(pairs["visit"] != pairs["visit_other"]) & near(one, other, limits).numpy()]
    asked = scans.merge(pairs.drop(columns=["eye", "row"]), on="visit").sort_values(["row", "visit_other"])
    return asked["row"].to_numpy(np.int64), scans["row"].to_numpy(np.int64)[_nearest(asked, scans)]


def _nearest(asked: pd.DataFrame, scans: pd.DataFrame) -> np.ndarray:
    """Return the places among `scans` of the nearest slices at the other visits, int64 [M]; of two the lower one.

    Where slices of either visit are not known, it is the scan at the same position, or the last.

    Args:
        asked: per scan and other visit, with the place where that visit begins, and its number of scans.
        scans: ordered by visit and slice.
    """
    start, last = asked["start_other"].to_numpy(), (asked["start_other"] + asked["count_other"] - 1).to_numpy()
    slices, wanted = scans["slice"].to_numpy(), asked["slice"].to_numpy()
    levels = np.unique(slices)  # NaN last
    key = scans["visit"].to_numpy() * (len(levels) + 1) + np.searchsorted(levels, slices)
    sought = asked["visit_other"].to_numpy() * (len(levels) + 1) + np.searchsorted(levels, wanted)
    right = np.searchsorted(key, sought).clip(np.minimum(start + 1, last), last)
    left = np.maximum(right - 1, start)
    nearest = np.where(wanted - slices[left] <= slices[right] - wanted, left, right)
    by_position = np.minimum(start + asked["position"].to_numpy(), last)
    return np.where(asked["unknown"] | asked["unknown_other"], by_position, nearest)
