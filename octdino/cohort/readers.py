"""The cohorts: one reader a name. A further cohort is one file and one line here."""

from collections.abc import Callable

from octdino.cohort.folder import read_folder
from octdino.cohort.olives import read_olives
from octdino.cohort.rows import Rows
from octdino.config.cohort import CohortSettings


def _read_vision(settings: CohortSettings) -> Rows:
    from octdino.cohort.vision import read_vision  # torchvision's imports only where they are used

    return read_vision(settings)


READERS: dict[str, Callable[[CohortSettings], Rows]] = {
    "phantom": read_olives,  # its files have the form of OLIVES on purpose, so that the default run tests that road
    "olives": read_olives,
    "folder": read_folder,
    **dict.fromkeys(("imagenette", "cifar10", "stl10", "voc12"), _read_vision),
}
