"""Schema of model.json: all that a prediction for a new scan needs, beside the weights in the same folder."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from octdino.config.names import Readout, ThresholdRule
from octdino.data.schemas.metadata import (
    BackboneSpec,
    Count,
    Input,
    Metadata,
    Names,
    Positive,
    Probability,
    Sha256,
    Share,
)
from octdino.data.schemas.published_part import PublishedPart

BACKBONE, HEAD, DENSITY = "backbone.safetensors", "head.safetensors", "density.safetensors"


class HeadSpec(Metadata):
    """How logits or probabilities are computed from features.

    Attributes:
        kind: linear (also of a fine-tuned network), mlp, or knn, which votes on the features of training scans.
        neighbors: of knn.
        hidden: units of the MLP's hidden layer.
    """

    kind: Literal["linear", "mlp", "knn"]
    neighbors: Annotated[int, Field(ge=1)] | None = None
    hidden: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.kind == "knn" and self.neighbors is None:
            raise ValueError("neighbors: missing; a knn head needs it")
        if self.kind == "mlp" and self.hidden is None:
            raise ValueError("hidden: missing; an mlp head needs it")
        return self


class OutOfDistribution(Metadata):
    """How scans unlike the training cohort are found: `octdino.stats.feature_density`.

    Attributes:
        readout: features on which the density of training scans was fitted.
        threshold: distance above which a scan is flagged.
        accepted: share of validation scans at or below the threshold, each patient weighing the same.
        accepted_test: share of the scans of test patients at or below it; None where there is no such scan.
    """

    readout: Readout
    threshold: Positive
    accepted: Share
    accepted_test: Annotated[float, Field(ge=0, le=1)] | None = None
    n_train_scans: Annotated[int, Field(ge=1)]
    n_val_scans: Annotated[int, Field(ge=1)]


class Score(Metadata):
    """One row of metrics.csv on test patients."""

    label: str
    metric: str
    value: float | None
    low: float | None = None
    high: float | None = None
    n_patients: Count | None = None


class Provenance(Metadata):
    """Where a model comes from.

    Attributes:
        source: content hash of the store.
        scope: which unlabeled scans the pretraining saw; None without a pretraining.
        pretrained: SHA-256 of the weights that the backbone started from; None where they come from no file.
        published: the published weights that it started from, with their license; None where it started elsewhere.
        classifier: SHA-256 of classifier.safetensors.
        versions: of octdino, torch and timm.
    """

    cohort: str
    kind: str
    source: str
    scope: Literal["all", "train_patients"] | None = None
    fraction: Share
    fold: Count
    seed: Count
    n_train_patients: Count | None = None
    n_train_scans: Count | None = None
    pretrained: Sha256 | None = None
    published: PublishedPart | None = None
    classifier: Sha256 | None = None
    versions: dict[str, str]


class ModelMetadata(Metadata):
    """model.json.

    Attributes:
        format: version of the folder's layout.
        arm, backbone: names in results/.
        spec: what rebuilds the backbone; its weights have timm's own key names.
        input: everything that makes the network's input of an image file.
        readout: features that the head reads.
        thresholds: of the probabilities before calibration, chosen on validation patients; None: not possible.
        temperature: divides the logits; None where none could be fitted.
        validation_score: macro AUROC, or accuracy of exclusive labels, on validation patients.
        sha256: of each file of weights in the folder.
    """

    format: Literal[1] = 1
    arm: str
    backbone: str
    spec: BackboneSpec
    input: Input
    readout: Readout
    head: HeadSpec
    labels: Names
    exclusive: bool
    thresholds: dict[str, Probability | None]
    threshold_rule: ThresholdRule
    temperature: Positive | None
    out_of_distribution: OutOfDistribution
    validation_score: float | None
    metrics: list[Score]
    intended_use: str
    provenance: Provenance
    sha256: dict[str, Sha256]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if set(self.thresholds) != set(self.labels) or len(set(self.labels)) != len(self.labels):
            raise ValueError("thresholds: expected one per label, each label once")
        if set(self.sha256) != {BACKBONE, HEAD, DENSITY}:
            raise ValueError(f"sha256: expected that of {BACKBONE}, {HEAD} and {DENSITY}")
        if self.spec.in_chans != self.input.image.channels:
            raise ValueError(f"spec.in_chans: {self.spec.in_chans}; input has {self.input.image.channels} channel(s)")
        return self
