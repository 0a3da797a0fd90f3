"""One cohort of the real size, once a session: labels from geometry alone, and a few pictures of each visit."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from octdino.cohort.olives import BIOMARKERS
from octdino.config.cohort import PhantomSettings
from octdino.phantom.grading import charted, graded
from octdino.phantom.paint import paint
from octdino.phantom.people import enrol
from octdino.phantom.section import cut, examine

SEED = 11
PAIRS = tuple(n for k in range(3, 49, 7) for n in (k, k + 1))  # adjacent slices, spread over the volume
PICTURED = (10, 11, 24, 25)


@dataclass(frozen=True)
class Pictures:
    rows: pd.DataFrame  # one a picture: patient, cst, labels as graded
    images: NDArray[np.uint8]
    masks: list[int]  # all bits of each mask
    true_labels: NDArray[np.bool_]


def label_table(seed: int, numbers: tuple[int, ...] = PAIRS) -> pd.DataFrame:
    """Graded labels and chart of both labelled visits of 87 patients, without a pixel."""
    settings = PhantomSettings(seed=seed, patients=87, visits=2, flaws=False)
    rows = []
    for eye in enrol(settings):
        for visit in eye.visits:
            case = examine(seed, eye, visit)
            chart = charted(seed, case)
            for number in numbers:
                labels = graded(seed, eye, visit, cut(case, number), settings.label_noise)
                rows.append((eye.patient, eye.key, eye.trial, visit.index, number, chart.bcva, chart.cst, *labels))
    return pd.DataFrame(rows, columns=["patient", "eye", "trial", "visit", "slice", "bcva", "cst", *BIOMARKERS])


@pytest.fixture(scope="session")
def labels() -> pd.DataFrame:
    return label_table(SEED)


@pytest.fixture(scope="session")
def pictures() -> Pictures:
    return painted(SEED)


def painted(seed: int) -> Pictures:
    """Pictures of a few slices of every labelled visit, at half size after painting."""
    settings = PhantomSettings(seed=seed, patients=87, visits=2, flaws=False)
    rows, images, masks, truth = [], [], [], []
    for eye in enrol(settings):
        for visit in eye.visits:
            case = examine(seed, eye, visit)
            cst = charted(seed, case).cst
            for number in PICTURED:
                section = cut(case, number)
                image, mask = paint(seed, case, section, settings.difficulty, number)
                images.append(image)
                masks.append(int(np.bitwise_or.reduce(mask, axis=None)))
                truth.append(section.labels)
                rows.append((eye.patient, cst, *graded(seed, eye, visit, section, settings.label_noise)))
    return Pictures(
        pd.DataFrame(rows, columns=["patient", "cst", *BIOMARKERS]), np.stack(images), masks, np.stack(truth)
    )
