"""Cohorts that can be fetched: one line each."""

from pathlib import Path

from octdino.config.cohort import CohortSettings
from octdino.errors import UserError


def fetch_cohort(settings: CohortSettings, root: Path) -> None:
    """The published files of the cohort below `root`; what is there already is not fetched again.

    Raises:
        UserError: there is nothing to fetch for this cohort, no network, or too little disk.
    """
    if settings.name == "olives":
        from octdino.cohort.olives.zenodo import fetch_olives

        return fetch_olives(root)
    if settings.name in ("phantom", "folder"):
        raise UserError(f"{settings.name}: nothing to fetch; expected olives, imagenette, cifar10, stl10 or voc12")
    from octdino.cohort.vision import fetch_vision

    fetch_vision(settings, root)
    return None
