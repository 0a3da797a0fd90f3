"""The kinds of cohort: one reader per name, and the download of its files. A new kind: see docs/architecture.md."""

from collections.abc import Callable
from pathlib import Path

from octdino.cohort.folder import read_folder
from octdino.cohort.oct2017 import read_oct2017
from octdino.cohort.octdl import read_octdl
from octdino.cohort.olives import read_olives
from octdino.cohort.scan_table import ScanTable
from octdino.config.cohort import UNPUBLISHED, CohortSettings
from octdino.errors import UserError


def _read_vision(settings: CohortSettings) -> ScanTable:
    from octdino.cohort.vision import read_vision  # torchvision's imports only where they are used

    return read_vision(settings)


READERS: dict[str, Callable[[CohortSettings], ScanTable]] = {
    "phantom": read_olives,  # has the form of OLIVES, so that the default run exercises this reader
    "olives": read_olives,
    "oct2017": read_oct2017,
    "octdl": read_octdl,
    "folder": read_folder,
    **dict.fromkeys(("imagenette", "cifar10", "stl10", "voc12"), _read_vision),
}


def fetch_cohort(settings: CohortSettings, root: Path) -> None:
    """Download the published files of the cohort to `root`; existing files are not downloaded again.

    Raises:
        UserError: there is nothing to fetch for this cohort, no network, or too little disk.
    """
    if settings.name == "olives":
        from octdino.cohort.olives.zenodo import fetch_olives

        return fetch_olives(root)
    if settings.name in ("oct2017", "octdl"):
        from octdino.cohort.mendeley import fetch_mendeley

        return fetch_mendeley(settings.name, root)
    if settings.name in UNPUBLISHED:
        some = ", ".join(name for name in READERS if name not in UNPUBLISHED)
        raise UserError(f"{settings.name}: nothing to fetch; expected {some}")
    from octdino.cohort.vision import fetch_vision

    fetch_vision(settings, root)
    return None
