"""Labels with graders' errors, and the clinical values CST and BCVA, as a trial records them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from octdino.data.olives_names import BIOMARKERS
from octdino.phantom.patients import Eye, Visit
from octdino.phantom.random_streams import stream
from octdino.phantom.section import DEBRIS, HRF, IRF, ExaminedEye, Section, central_subfield

# Share of positive scans in the real table: the false positives of the graders are as many as their misses
PREVALENCE = np.array([166, 604, 32, 373, 6341, 2984, 5222, 807, 2836, 10, 3003, 4088, 233, 10, 10, 76], float) / 9408
# How many neighboring slices share an error: graders err in stretches, less so with dots and debris
STRETCH = np.full(len(BIOMARKERS), 7)
STRETCH[[HRF, DEBRIS]] = 1
STRETCH[[1, 3, 13, 15]] = 2
STRETCH[IRF] = 3
HARDER = np.ones(len(BIOMARKERS))
HARDER[[HRF, DEBRIS]] = 1.6  # their adjacent-slice agreement is the lowest of the common labels


@dataclass(frozen=True)
class ClinicalValues:
    """Clinical values of one visit: BCVA in ETDRS letters, CST in µm."""

    bcva: int
    cst: int


def graded_labels(seed: int, eye: Eye, visit: Visit, section: Section, noise: float) -> NDArray[np.bool_]:
    """Return the labels [16] with graders' errors (label noise).

    A cell of the rarer class is flipped with probability `noise` (1.6 times that for HRF and debris), one of the
    commoner class at the rate that leaves the prevalence where it is.
    """
    flips = np.zeros(len(BIOMARKERS), bool)
    if noise > 0:
        rare = np.minimum(PREVALENCE, 1 - PREVALENCE)
        odds = rare / (1 - rare)
        is_rare = section.labels == (PREVALENCE <= 0.5)
        chance = noise * HARDER * np.where(is_rare, 1.0, odds)
        for label, stretch in enumerate(STRETCH):
            draw = stream(seed, "grader", eye.key, visit.index, label, section.number // int(stretch)).random()
            flips[label] = draw < chance[label]
    return section.labels ^ flips


def clinical_values(seed: int, case: ExaminedEye) -> ClinicalValues:
    """Return CST measured on the geometry, and BCVA = 88 - .042 (CST - 260)+ - 6 EZ_central - 4 SRF + N(0, 8)."""
    center = central_subfield(case)
    person = 6.0 * case.eye.sight  # part of the scatter is the person's, part the day's
    today = stream(seed, "acuity", case.eye.key, case.visit.index).normal(0, 5.3)
    bcva = 88 - 0.042 * max(center.cst - 260, 0) - 6 * center.ez_gap - 4 * center.srf + person + today
    return ClinicalValues(round(float(np.clip(bcva, 20, 100))), round(center.cst))
