"""Vocabulary of a cohort: the nouns that page, cards and figures use for its images, patients and labels.

This is the only place that chooses them; the sampling unit (patients or images) is chosen in `sampling_units`.
"""

from dataclasses import dataclass

from octdino.data.sampling_units import PATIENT, Unit

PHOTOGRAPHS = ("imagenette", "cifar10", "stl10", "voc12")
BIOMARKERS = ("phantom", "olives")
TITLES = {
    "biomarker": "Does self-supervised pretraining find retinal biomarkers better?",
    "disease class": "Does self-supervised pretraining classify retinal diseases better?",
    "class": "Does self-supervised pretraining classify {scans} better?",
    "label": "Does self-supervised pretraining label {scans} better?",
}


@dataclass(frozen=True)
class Words:
    """Nouns of one cohort.

    Attributes:
        unit: what splits, fractions and intervals count: patients or images.
        scan, scans: one image of the cohort, and several.
        label, labels: what a classifier finds in it: biomarker, disease class, class or label.
        title: title of the page where the settings give none.
    """

    unit: Unit
    scan: str
    scans: str
    label: str
    labels: str
    title: str


def words_of(kind: str, exclusive: bool, unit: Unit) -> Words:
    """Return the nouns of a cohort.

    Where images are the unit, they are called images everywhere, so that one thing has one name.

    Args:
        kind: `cohort.name`, see `octdino.config.cohort.COHORTS`; of results without a store the cohort's title.
        exclusive: whether each labeled scan has exactly one positive label.
    """
    scan = "image" if kind in PHOTOGRAPHS or not unit.patients else "scan"
    if kind in BIOMARKERS:
        label = "biomarker"
    elif kind in ("oct2017", "octdl"):
        label = "disease class"  # NORMAL and NO are among them
    else:
        label = "class" if exclusive or kind in PHOTOGRAPHS else "label"
    plural = "es" if label.endswith("ss") else "s"
    title = TITLES[label].format(scans=f"{scan}s" if kind in PHOTOGRAPHS else "retinal scans")
    return Words(unit, scan, f"{scan}s", label, label + plural, title)


SCAN_WORDS = words_of("folder", False, PATIENT)
