"""Patients by file names: a pattern of the user's, or the naming of two published data sets, recognized by itself."""

import logging
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from octdino.cohort.scan_table import RowRefused
from octdino.cohort.spreadsheet import parse_identifier
from octdino.config.cohort import CohortSettings
from octdino.config.patterns import LONGEST_NAME, compile_patient_pattern
from octdino.errors import UserError

# CNV-1016042-1.jpeg of Kermany 2018 (OCT2017) and amd_1101816_1.jpg of OCTDL: CLASS, PATIENT, NUMBER.
PUBLISHED = (r"^[A-Za-z]+-(\d+)-\d+", r"^[A-Za-z]+_(\d+)_\d+")
WHOLE = re.compile(r"([A-Za-z]+)([-_])(\d{1,12})\2\d{1,6}(?:\.[A-Za-z]{3,4})?")
CLASS_WORDS = {"cnv", "dme", "drusen", "normal", "amd", "erm", "no", "rao", "rvo", "vid"}
YEARS = range(1900, 2100)
LONGEST_SECONDS = 120.0  # of a pattern on all names

log = logging.getLogger("octdino.cohort")


@dataclass
class PatientNames:
    """The pattern that finds patients in file names.

    Attributes:
        pattern: with one group; None: file names are not read.
        given: whether it is the user's, so that a name without a match is refused.
        decision: a sentence for the data card where the pattern was recognized; empty otherwise.
    """

    pattern: re.Pattern[str] | None = None
    given: bool = False
    decision: str = ""
    seconds: float = 0.0

    @property
    def text(self) -> str:
        """The pattern; empty where file names are not read."""
        return self.pattern.pattern if self.pattern else ""

    def patient(self, path: str) -> str | None:
        """Return the patient in the file name of a path; None where names are not read.

        Raises:
            RowRefused: the name does not match.
            UserError: matching took too long.
        """
        if self.pattern is None:
            return None
        name, begin = path.rsplit("/", 1)[-1], time.perf_counter()
        if len(name) > LONGEST_NAME:
            detail = f"a file name of {len(name)} characters; expected at most {LONGEST_NAME}"
            raise RowRefused("missing_patient", detail)
        found = self.pattern.search(name)
        self.seconds += time.perf_counter() - begin
        if self.seconds > LONGEST_SECONDS:
            raise UserError(f"cohort.patient_pattern: {self.pattern.pattern!r} takes too long; write a simpler one")
        patient = found[1] if found else None
        if not patient:
            raise RowRefused("missing_patient", f"{name} does not match cohort.patient_pattern {self.text!r}")
        return parse_identifier(patient)


def patient_names(settings: CohortSettings, paths: Sequence[str], classes: Iterable[str] = ()) -> PatientNames:
    """Return the pattern of the settings; with `auto` that of a published data set, if all names have its form.

    Args:
        paths: of all scans, as the table or the tree has them.
        classes: further words that may begin a name.

    Raises:
        UserError: no name matches the user's pattern.
    """
    if settings.patient_pattern is None:
        return PatientNames()
    if settings.patient_pattern != "auto":
        return _given(settings.patient_pattern, paths)
    words = CLASS_WORDS | {name.casefold() for name in classes}
    patients, signs = set(), set()
    for path in paths:
        *folders, name = path.replace("\\", "/").split("/")
        found = WHOLE.fullmatch(name)
        if found is None or found[1].casefold() not in words | {folder.casefold() for folder in folders}:
            return PatientNames()
        patients.add(found[3])
        signs.add(found[2])
    if len(signs) != 1 or len(patients) < 2 or all(int(patient) in YEARS for patient in patients):
        return PatientNames()
    sign = signs.pop()
    text = PUBLISHED[sign == "_"]
    decision = (
        f"Patients are read from the file names, CLASS{sign}PATIENT{sign}NUMBER: {len(patients)} patients in "
        f"{len(paths)} names (cohort.patient_pattern: '{text}'; null turns it off)."
    )
    names = PatientNames(re.compile(text), decision=decision)
    example = paths[0].replace("\\", "/")
    log.warning("%s For example %s: patient %s", decision, example.rsplit("/", 1)[-1], names.patient(example))
    return names


def _given(text: str, paths: Sequence[str]) -> PatientNames:
    names = PatientNames(compile_patient_pattern(text), given=True)
    first = ""
    for path in paths:
        try:
            names.patient(path.replace("\\", "/"))
        except RowRefused as why:
            first = first or why.detail
            continue
        return names
    raise UserError(f"cohort.patient_pattern: no file name matches; {first or 'there is none'}")
