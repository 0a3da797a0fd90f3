"""Overlap of an external cohort with the internal one: identical pixels and near-duplicates."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from octdino.audit.leakage_checks import Found, finding
from octdino.audit.near_duplicates import copies, textures_of
from octdino.config import AuditSettings
from octdino.data.cohort_reader import Cohort, read_cohort

NAMED = 3  # pairs of scans that a finding names

Overlap = tuple[str, str, str]  # scan of the internal cohort, of the external one, how they agree


def external_overlap(settings: AuditSettings, cohort: Cohort, detail: Tensor, folder: Path) -> Iterator[Found]:
    """Yield one finding with the scans that are in both cohorts.

    Args:
        cohort: the internal one; `detail` are the textures of its scans.
        folder: results/{cohort}/external/{name}.

    Raises:
        UserError: a file of the external cohort is missing or invalid.
    """
    other = read_cohort(folder / "cohort" / "scans.h5")
    pairs = list(_identical(cohort, other))
    same = {external for _, external, _ in pairs}
    pairs += [pair for pair in _similar(settings, cohort, other, detail) if pair[1] not in same]
    if pairs:
        scans = len({external for _, external, _ in pairs})
        named = "; ".join(f"{external} and {internal}: {how}" for internal, external, how in pairs[:NAMED])
        more = f"; and {len(pairs) - NAMED} more pairs" if len(pairs) > NAMED else ""
        yield finding("external", f"external/{folder.name}", f"{named}{more}", scans)


def _identical(cohort: Cohort, other: Cohort) -> Iterator[Overlap]:
    """Yield the scans whose decoded pixels have the same hash."""
    known: dict[str, str] = {}
    for scan, pixels in zip(cohort.manifest["scan_id"], cohort.manifest["pixel_hash"], strict=True):
        known.setdefault(str(pixels), str(scan))
    for scan, pixels in zip(other.manifest["scan_id"], other.manifest["pixel_hash"], strict=True):
        if str(pixels) in known:
            yield known[str(pixels)], str(scan), "identical pixels"


def _similar(settings: AuditSettings, cohort: Cohort, other: Cohort, detail: Tensor) -> Iterator[Overlap]:
    """Yield near-duplicates, of each external scan the most similar one."""
    own = textures_of(other)
    sides = torch.cat([torch.zeros(len(detail), dtype=torch.int64), torch.ones(len(own), dtype=torch.int64)])
    best: dict[int, tuple[float, int, bool]] = {}
    for pair in copies(torch.cat([detail, own]), sides, settings.similarity):
        if pair.similarity > best.get(pair.one, (0.0, 0, False))[0]:
            best[pair.one] = (pair.similarity, pair.other, pair.mirrored)
    names, others = cohort.manifest["scan_id"], other.manifest["scan_id"]
    for row, (similarity, place, mirrored) in sorted(best.items(), key=lambda one: -one[1][0]):
        how = f"{'mirrored, ' if mirrored else ''}correlation {similarity:.3f}"
        yield str(names.iloc[place]), str(others.iloc[row - len(detail)]), how
