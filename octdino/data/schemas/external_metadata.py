"""Schemas of the JSON metadata of external validation."""

from typing import Annotated

from pydantic import Field

from octdino.data.schemas.metadata import Count, Metadata, Names, Positive, Probability, Sha256, Share


class ExternalScoresMetadata(Metadata):
    """scores.json: which classifier scored which external cohort.

    Attributes:
        cohort: name of the external cohort; `source` is its store's content hash.
        weights_sha256: of the classifier's file.
        ood_threshold: distance above which a scan counts as out of distribution, as in the model folder.
        accepted_test: share of the internal test scans of the fold at or below it; None without test scans.
    """

    cohort: str
    source: str
    arm: str
    backbone: str
    fraction: Share
    fold: Count
    seed: Count
    labels: Names
    exclusive: bool
    weights_sha256: Sha256
    ood_threshold: Positive
    accepted_test: Probability | None
    n_scans: Count


class TestedCohort(Metadata):
    """An external cohort in external.json.

    Attributes:
        labels: internal labels per external label that was tested.
        exclusive: whether probabilities of several internal labels were added (classes), or combined as independent.
        left_out: external labels that were not tested.
        unused: internal labels that no tested label stands for.
        not_evaluable: tested labels with too few patients on one side, in one of the cohorts.
        folds: number of models whose scores are averaged.
    """

    labels: dict[str, list[str]]
    exclusive: bool
    left_out: list[str]
    unused: list[str]
    not_evaluable: list[str]
    folds: Annotated[int, Field(ge=1)]
    n_scans: Count
    n_labeled: Count
    n_patients: Count
    patients: str


class ExternalMetadata(Metadata):
    """external.json: how each external cohort was tested."""

    cohorts: dict[str, TestedCohort]
