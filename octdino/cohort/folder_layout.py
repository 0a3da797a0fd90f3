"""What the folders below classes are: patients, eyes and visits, by their names and how they recur."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from octdino.cohort.folder_names import LIKE, SHARE, some_of
from octdino.cohort.table_columns import SIDES

PATIENT = re.compile(rf"{LIKE['ids'].pattern}|[a-z]{{0,8}}[-_ ]?\d+", re.IGNORECASE)
LEAST_PATIENTS = 4  # folders below classes from which on their names count
NAMED_PATIENTS = 6  # the same for names without a number, which must also recur


@dataclass(frozen=True)
class Layout:
    """Which step of a scan's folders is what; None: no step is.

    Attributes:
        patient, eye, visit: positions among the folders, outermost first; the first, 0, is the class or the patient.
        why: the evidence, as the end of a sentence.
    """

    patient: int | None = None
    eye: int | None = None
    visit: int | None = None
    why: str = ""

    @property
    def words(self) -> str:
        """The layout as a path: class/patient/eye/scan."""
        places = {self.patient: "patient", self.eye: "eye", self.visit: "visit"}
        last = max((place for place in places if place is not None), default=0)
        return "/".join(places.get(place, "class" if place == 0 else "…") for place in range(last + 1)) + "/scan"


def below_classes(folders: Sequence[list[str]], certain: bool = False) -> Layout:
    """Return the layout below class folders.

    Patients are told by the second folder of every scan: most names look like ids and there are several, or names recur
    in more than one class (and not in all of them, as those of devices would).

    Args:
        folders: the folders of each scan below root, outermost first; scans in no folder do not count.
        certain: the user says that they are patients.
    """
    steps = [own for own in folders if own]
    if not steps or any(len(own) < 2 for own in steps):
        return Layout()
    classes: dict[str, set[str]] = defaultdict(set)
    for own in steps:
        classes[own[1]].add(own[0])
    why = "cohort.folders says so" if certain else _like_patients(classes, len({own[0] for own in steps}))
    return _inner(steps, 1, why) if why else Layout()


def below_patients(folders: Sequence[list[str]]) -> Layout:
    """Return the layout below folders of patients, which are the outermost ones."""
    return _inner([own for own in folders if own], 0, "cohort.folders says so")


def _like_patients(classes: dict[str, set[str]], count: int) -> str:
    """Return the evidence that folders are patients; empty if there is none.

    Args:
        classes: of each folder's name, the classes in which it is.
        count: of all classes.
    """
    names = sorted(classes)
    if len(names) < LEAST_PATIENTS or any(_all_like(names, what) for what in ("eyes", "visits", "dates")):
        return ""
    recur = [name for name in names if len(classes[name]) > 1]
    again = f"; {len(recur)} are in several classes: {some_of(recur)}" if recur else ""
    alike = [name for name in names if PATIENT.fullmatch(name)]
    if len(alike) >= SHARE * len(names):
        return f"{len(alike)} of {len(names)} names look like ids: {some_of(alike)}{again}"
    everywhere = all(len(classes[name]) == count for name in names)
    if recur and len(names) >= NAMED_PATIENTS and not everywhere:
        return f"the same folder names recur{again.removeprefix(';')}"
    return ""


def _all_like(names: Sequence[str], what: str) -> bool:
    return all(LIKE[what].fullmatch(name) or (what == "eyes" and name.casefold() in SIDES) for name in names)


def _inner(steps: list[list[str]], patient: int, why: str) -> Layout:
    """Return the layout with eyes and visits among the folders below patients, where all scans have them."""
    eye = visit = None
    for place in range(patient + 1, min((len(own) for own in steps), default=0)):
        names = sorted({own[place] for own in steps})
        if eye is None and _all_like(names, "eyes"):
            eye = place
        elif visit is None and (_all_like(names, "visits") or _all_like(names, "dates")):
            visit = place
    return Layout(patient, eye, visit, why)
