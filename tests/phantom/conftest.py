"""One cohort of the real size, once a session: labels from geometry alone, and a few scans of each visit."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from octdino.cohort.olives import BIOMARKERS
from octdino.config.cohort import PhantomSettings
from octdino.phantom.grading import clinical_values, graded_labels
from octdino.phantom.patients import enroll_patients
from octdino.phantom.render import render_scan
from octdino.phantom.section import cut_section, examine_eye

SEED = 11
PAIRS = tuple(n for k in range(3, 49, 7) for n in (k, k + 1))  # adjacent slices, spread over the volume
RENDERED = (10, 11, 24, 25)


@dataclass(frozen=True)
class RenderedScans:
    rows: pd.DataFrame  # one an image: patient, cst, labels as graded
    images: NDArray[np.uint8]
    masks: list[int]  # all bits of each mask
    true_labels: NDArray[np.bool_]


def label_table(seed: int, numbers: tuple[int, ...] = PAIRS) -> pd.DataFrame:
    """Graded labels and chart of both labeled visits of 87 patients, without a pixel."""
    settings = PhantomSettings(seed=seed, patients=87, visits=2, flaws=False)
    rows = []
    for eye in enroll_patients(settings):
        for visit in eye.visits:
            case = examine_eye(seed, eye, visit)
            chart = clinical_values(seed, case)
            for number in numbers:
                labels = graded_labels(seed, eye, visit, cut_section(case, number), settings.label_noise)
                rows.append((eye.patient, eye.key, eye.trial, visit.index, number, chart.bcva, chart.cst, *labels))
    return pd.DataFrame(rows, columns=["patient", "eye", "trial", "visit", "slice", "bcva", "cst", *BIOMARKERS])


@pytest.fixture(scope="session")
def labels() -> pd.DataFrame:
    return label_table(SEED)


@pytest.fixture(scope="session")
def rendered_scans() -> RenderedScans:
    return rendered(SEED)


def rendered(seed: int) -> RenderedScans:
    """Scans of a few slices of every labeled visit, at half size after painting."""
    settings = PhantomSettings(seed=seed, patients=87, visits=2, flaws=False)
    rows, images, masks, truth = [], [], [], []
    for eye in enroll_patients(settings):
        for visit in eye.visits:
            case = examine_eye(seed, eye, visit)
            cst = clinical_values(seed, case).cst
            for number in RENDERED:
                section = cut_section(case, number)
                image, mask = render_scan(seed, case, section, settings.difficulty, number)
                images.append(image)
                masks.append(int(np.bitwise_or.reduce(mask, axis=None)))
                truth.append(section.labels)
                rows.append((eye.patient, cst, *graded_labels(seed, eye, visit, section, settings.label_noise)))
    return RenderedScans(
        pd.DataFrame(rows, columns=["patient", "cst", *BIOMARKERS]), np.stack(images), masks, np.stack(truth)
    )
