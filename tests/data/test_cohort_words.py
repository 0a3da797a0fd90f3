"""Each cohort is told of in its own words."""

import pytest

from octdino.data.cohort_words import words_of
from octdino.data.sampling_units import unit


@pytest.mark.parametrize(
    ("kind", "exclusive", "patients", "nouns"),
    [
        ("olives", False, "known", ("scans", "biomarker", "biomarkers", "patients")),
        ("phantom", False, "known", ("scans", "biomarker", "biomarkers", "patients")),
        ("oct2017", True, "known", ("scans", "disease class", "disease classes", "patients")),
        ("octdl", True, "known", ("scans", "disease class", "disease classes", "patients")),
        ("folder", True, "known", ("scans", "class", "classes", "patients")),
        ("folder", False, "known", ("scans", "label", "labels", "patients")),
        ("folder", False, "unknown", ("images", "label", "labels", "images")),
        ("imagenette", True, "none", ("images", "class", "classes", "images")),
        ("voc12", False, "none", ("images", "class", "classes", "images")),
    ],
)
def test_nouns_of_a_cohort(kind: str, exclusive: bool, patients: str, nouns: tuple[str, ...]) -> None:
    words = words_of(kind, exclusive, unit(patients))
    assert (words.scans, words.label, words.labels, words.unit.many) == nouns


@pytest.mark.parametrize(
    ("kind", "patients", "title"),
    [
        ("olives", "known", "Does self-supervised pretraining find retinal biomarkers better?"),
        ("octdl", "known", "Does self-supervised pretraining classify retinal diseases better?"),
        ("cifar10", "none", "Does self-supervised pretraining classify images better?"),
        ("folder", "known", "Does self-supervised pretraining classify retinal scans better?"),
    ],
)
def test_the_title_asks_what_the_cohort_can_answer(kind: str, patients: str, title: str) -> None:
    assert words_of(kind, True, unit(patients)).title == title
