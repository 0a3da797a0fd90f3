"""Patients, eyes and visits of the synthetic cohort: names on disk, severity scores, lesions that each eye carries.

Counts and shares are those of the real tables (OLIVES: 87 patients, of them 40 PRIME and 47 TREX DME, nine TREX
patients with both eyes), see the constants.
"""

from dataclasses import dataclass, field

import numpy as np

from octdino.config.cohort import PhantomSettings
from octdino.phantom.random_streams import (
    Bools,
    Floats,
    Ints,
    as_normal,
    balanced_normal,
    stratified_normal,
    stream,
    weighted_choice,
)

SLICES_PER_VOLUME = 49  # B-scans of a full volume
TREX_SHARE = 47 / 87
BOTH_EYES_SHARE = 9 / 47  # of TREX patients
ARMS = {"GILA": "G", "TREX": "T", "Monthly": "M"}

# What varies between patients, eyes and visits: a standard normal score each, with the correlation between
# two visits of one eye as in the real table (share of positive slices, first against last visit).
SCORES = {"oedema": 0.55, "cysts": 0.5, "foci": 0.6, "vitreous": 0.66, "debris": 0.35, "small": 0.4}

# Lesions that only some patients have: share of patients with at least one positive scan (of 87), and how much
# likelier a TREX patient has it than a PRIME patient.
CARRIERS = {
    "atrophy": (14 / 87, 12.0),
    "ez": (43 / 87, 1.8),
    "dril": (4 / 87, 1.0),
    "haemorrhage": (44 / 87, 1.2),
    "preretinal": (33 / 87, 2.0),
    "vmt": (3 / 87, 1.0),
    "srf": (23 / 87, 16.0),
    "rpe": (5 / 87, 1.0),
    "ped": (1 / 87, 3.0),
    "shrm": (13 / 87, 1.5),
}


@dataclass(frozen=True)
class Visit:
    """One examination of one eye. `time` runs from 0 (first) to 1 (last); `scores` are standard normal."""

    index: int
    name: str
    time: float
    scores: dict[str, float]
    labeled: bool


@dataclass(frozen=True)
class Eye:
    """One eye in the study. `folder` is its path below the root, `pattern` the name of its scans."""

    key: int  # counts all eyes from 0; names the eye's random streams
    patient: int  # counts patients from 0
    patient_id: int
    eye_id: int
    trial: str  # PRIME or TREX
    folder: str
    side: str  # OD or OS
    pattern: str
    carries: frozenset[str]
    sizes: dict[str, float]  # how large each carried lesion is, as a standard normal score
    sight: float  # visual acuity beyond what the retina explains, as a standard normal score
    visits: tuple[Visit, ...] = field(default=())

    def path(self, visit: Visit, number: int, side: str | None = None) -> str:
        """The scan's path below the root, with `/` and without a leading one."""
        return f"{self.folder}/{visit.name}/{side or self.side}/{self.pattern.format(number)}"


def slice_numbers(slices: int) -> list[int]:
    """Return the positions of a volume's 49 that are written, from 0, evenly spaced and symmetric about the fovea."""
    if slices == 1:
        return [SLICES_PER_VOLUME // 2]
    edge = (SLICES_PER_VOLUME - 1) / (2 * slices)  # half a gap at each end: no slice sits on the very border
    return [int(number) for number in np.linspace(edge, SLICES_PER_VOLUME - 1 - edge, slices).round()]


def enroll_patients(settings: PhantomSettings) -> list[Eye]:
    """Sample all eyes of the cohort with their visits, in table order (TREX, then PRIME)."""
    patients = settings.patients
    trex = min(patients - 2, max(2, round(patients * TREX_SHARE)))
    both = max(1, round(trex * BOTH_EYES_SHARE))
    patient_of_eye = np.array([p for p in range(patients) for _ in range(2 if p < both else 1)])
    visit_counts = _visit_counts(settings, len(patient_of_eye))
    scores = _scores(settings, patient_of_eye, patient_of_eye < trex, int(visit_counts.max()))
    severity = np.array([scores["oedema"][patient_of_eye == p, 0].max() for p in range(patients)])
    carries, sizes = _carriers(settings, trex, patient_of_eye, severity)
    worse = severity + 10.0 * (np.arange(patients) < trex)
    sight = balanced_normal(stream(settings.seed, "sight"), worse)
    numbers = _trex_names(settings, both, trex, len(patient_of_eye))
    eyes = []
    for key, owner in enumerate(int(o) for o in patient_of_eye):
        side, folder, pattern, patient_id = numbers[key] if owner < trex else _prime_name(settings, key, owner - trex)
        trial = "TREX" if owner < trex else "PRIME"
        eyes.append(
            Eye(
                *(key, owner, patient_id, key + 1, trial, folder, side, pattern),
                carries[key],
                sizes[key],
                float(sight[owner]),
            )
        )
    return [_with_visits(settings, eye, int(visit_counts[eye.key]), scores) for eye in eyes]


def _visit_counts(settings: PhantomSettings, n: int) -> Floats:
    """Sample the number of visits per eye: at least 2, `settings.visits` on average, as dispersed as the real ones."""
    rng = stream(settings.seed, "visit counts")
    low, high = 2, 2 * settings.visits - 2
    counts = np.round(np.linspace(low, high, n)) if n > 1 else np.array([settings.visits])
    counts = rng.permutation(counts)
    if settings.flaws:  # the flaws of unlabeled visits need some
        counts[:: max(1, n // 8)] = np.maximum(counts[:: max(1, n // 8)], 3)
    return np.asarray(counts, float)


def _scores(settings: PhantomSettings, patient_of_eye: Ints, is_trex: Bools, visits: int) -> dict[str, Floats]:
    """Standard normal scores [eyes, visits] per name; stratified within trial at the first and the last visit."""
    result = {}
    for name, between_visits in SCORES.items():
        rng = stream(settings.seed, "scores", name)
        patient = np.empty(int(patient_of_eye.max()) + 1)
        for patients in (np.unique(patient_of_eye[is_trex]), np.unique(patient_of_eye[~is_trex])):
            patient[patients] = stratified_normal(rng, len(patients))
        eye = np.sqrt(0.75) * patient[patient_of_eye] + np.sqrt(0.25) * rng.standard_normal(len(patient_of_eye))
        noise = rng.standard_normal((len(patient_of_eye), max(visits, 2)))
        value = np.sqrt(between_visits) * eye[:, None] + np.sqrt(1 - between_visits) * noise
        for column in (0, 1):  # column 1 is the last visit: the labeled ones carry the statistics
            for group in (is_trex, ~is_trex):
                value[group, column] = as_normal(value[group, column])
        result[name] = value
    return result


def _carriers(
    settings: PhantomSettings, trex: int, patient_of_eye: Ints, severity: Floats
) -> tuple[list[frozenset[str]], list[dict[str, float]]]:
    rng = stream(settings.seed, "carriers")
    patients = settings.patients
    carries: list[set[str]] = [set() for _ in patient_of_eye]
    sizes: list[dict[str, float]] = [{} for _ in patient_of_eye]
    for name, (share, ratio) in CARRIERS.items():
        weights = np.where(np.arange(patients) < trex, ratio, 1.0)
        if name == "srf":  # follows the swelling: CST alone tells it with AUROC .87 in the real table
            weights = weights * np.exp(1.6 * severity)
        mask = weighted_choice(rng, weights, share)
        scores = np.zeros(patients)
        scores[mask] = stratified_normal(rng, int(mask.sum()))
        for key, owner in enumerate(patient_of_eye):
            sizes[key][name] = float(scores[int(owner)])
            if mask[int(owner)]:
                carries[key].add(name)
    return [frozenset(c) for c in carries], sizes


def _trex_names(settings: PhantomSettings, both: int, trex: int, eyes: int) -> dict[int, tuple[str, str, str, int]]:
    """Side, folder, file pattern and Patient_ID of the TREX eyes: numbers start at 201 as in the real trial."""
    first = next(n for n in (201, 1001, 10_001, 100_001) if eyes < n)  # PRIME's numbers are below
    names = {}
    key = 0
    for patient in range(trex):
        rng = stream(settings.seed, "trex name", patient)
        sides = list(rng.permutation(["OD", "OS"]))
        for side in sides[: 2 if patient < both else 1]:
            arm = str(rng.choice(list(ARMS), p=[0.4, 0.4, 0.2]))
            folder = f"TREX DME/{arm}/{first + patient:04d}{ARMS[arm]}{side}"
            stem = str(rng.choice(["TREXJ", "TREXA", "TREX_DME", "TREXJ_DME"], p=[0.5, 0.25, 0.15, 0.1]))
            suffix = ".jpg" if key % 20 == 7 else ".tif"
            # One eye with two numbers in its names: the last one counts
            stem = "TREXA_000004" if key % 20 == 12 else stem
            names[key] = (str(side), folder, stem + "_{:06d}" + suffix, first + patient)
            key += 1
    return names


def _prime_name(settings: PhantomSettings, key: int, index: int) -> tuple[str, str, str, int]:
    side = str(stream(settings.seed, "prime name", index).choice(["OD", "OS"]))
    site, number = (1, index // 2 + 1) if index % 2 == 0 else (2, index // 2 + 1)
    suffix = ".png" if index == 0 else ".tif"
    return side, f"Prime_FULL/{site:02d}-{number:03d}", "{}" + suffix, key + 1


def _with_visits(settings: PhantomSettings, eye: Eye, count: int, scores: dict[str, Floats]) -> Eye:
    rng = stream(settings.seed, "visits", eye.key)
    steps = np.concatenate([[0], np.sort(rng.choice(np.arange(1, 3 * count), count - 1, replace=False))])
    visits = []
    for index in range(count):
        column = 0 if index == 0 else 1 if index == count - 1 else index + 1
        step = int(steps[index])
        visits.append(
            Visit(
                index,
                f"V{step + 1}" if eye.trial == "TREX" else f"W{4 * step}",
                step / float(steps[-1]),
                {name: float(values[eye.key, column]) for name, values in scores.items()},
                index in (0, count - 1),
            )
        )
    return Eye(**{**eye.__dict__, "visits": tuple(visits)})
