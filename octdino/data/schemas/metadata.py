"""Schemas of the JSON metadata files that one stage writes and another reads, and of the store's attributes.

A metadata file may contain more keys than its schema: these are for people, and no stage computes with them.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import ConfigDict, Field, model_validator

from octdino.config.cohort import ImageSettings
from octdino.config.names import Readout, ThresholdRule
from octdino.config.networks import TimmArgs, TimmName
from octdino.config.settings_base import Settings
from octdino.data.atomic_files import read_json, replacing
from octdino.data.schemas.csv_schemas import label_fault
from octdino.data.schemas.published_part import PublishedPart

Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(gt=0, le=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Names = Annotated[list[str], Field(min_length=1)]


class Metadata(Settings):
    """A JSON object with strict types: no conversions, and neither NaN nor infinity where a number is expected."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)

    def plain(self) -> dict[str, Any]:
        """The content of the file as plain JSON values: the schema's keys in its order, then all others."""
        return self.model_dump(mode="json", exclude_unset=True, by_alias=True)


class BackboneSpec(Metadata):
    """What rebuilds a backbone: timm's name and arguments, the input's channels, and px of the input's side."""

    timm: TimmName
    args: TimmArgs
    in_chans: Annotated[int, Field(ge=1)]
    size: Annotated[int, Field(ge=1)]


class Input(Metadata):
    """Everything that makes a network's input of an image file.

    Attributes:
        image: `cohort.image`: crop, size in the store, channels, percentiles; `octdino.scans.preprocess` applies them.
        size: px, the side to which the stored image is resized.
        mean, std: per channel, of pixels in [0, 1]; the image is standardized by them.
    """

    image: ImageSettings
    size: Annotated[int, Field(ge=1)]
    mean: list[float]
    std: list[Positive]

    @model_validator(mode="after")
    def _one_value_per_channel(self) -> Self:
        for name in ("mean", "std"):
            if len(getattr(self, name)) != self.image.channels:
                raise ValueError(f"{name}: {len(getattr(self, name))} values for {self.image.channels} channel(s)")
        return self


class Origin(Metadata):
    """Where the first weights of a pretraining came from; `start` is where those came from in turn."""

    cohort: str | None = None
    fold: Count | None = None
    scope: Literal["all", "train_patients"] | None = None
    scans: Count | None = None
    patients: Count | None = None
    kind: str | None = None
    source: str | None = None
    images_seen: Count | None = None
    start: "FirstWeights | None" = None


class FirstWeights(Origin):
    """Where the first weights of a network came from: imagenet, or the folder of an earlier run."""

    from_: Annotated[str, Field(alias="from")]


class Training(Metadata):
    """The settings of a training, as far as another stage reads them."""

    epochs: Count | None = None
    min_steps: list[Count] | Count | None = None
    batch_size: Annotated[int, Field(ge=1)] | None = None
    threshold: ThresholdRule = "youden"


class MethodPart(Metadata):
    """The settings of a pretraining method, as far as another stage reads them."""

    positives: list[str] | None = None


class BackboneMetadata(Origin):
    """backbone.json.

    Attributes:
        weights_sha256: of backbone.safetensors.
    """

    name: str
    backbone: str
    seed: Count
    cohort: str
    scope: Literal["all", "train_patients"]
    spec: BackboneSpec
    input: Input
    weights_sha256: Sha256
    epochs: list[Count] | None = None
    exported_epoch: Count | None = None
    skipped_steps: Count | None = None
    alarms: list[str] = Field(default_factory=list)
    device: str | None = None
    precision: str | None = None
    settings: Training = Training()
    method: MethodPart = MethodPart()


class Calibration(Metadata):
    """How probabilities are calibrated: logits are divided by the temperature; None where none could be fitted."""

    temperature: Positive | None = None


class EmbeddingsPart(Metadata):
    """The embeddings that a classifier was trained on, as far as another stage needs them."""

    readout: Readout = "pooled"
    seed: Count | None = None


class ClassifierMetadata(Metadata):
    """classifier.json.

    Attributes:
        input: None for the clinical baseline, which uses no image.
        pretrained: SHA-256 of the weights that the backbone started from; None where they come from no file.
        weights_sha256: of classifier.safetensors; None where there is none.
        embeddings: of an arm on frozen features; None where the backbone was trained.
        published: of an arm that starts from an entry of `models` with weights.
    """

    arm: str
    backbone: str
    fraction: Share
    fold: Count
    seed: Count
    labels: Names
    thresholds: dict[str, Probability | None]
    thresholds_from: str = "val"
    exclusive: bool
    calibration: Calibration | None = None
    n_train_patients: Count | None = None
    n_train_scans: Annotated[int, Field(ge=1)] | None = None
    input: Input | None = None
    pretrained: Sha256 | None = None
    settings: Training = Training()
    weights_sha256: Sha256 | None = None
    embeddings: EmbeddingsPart | None = None
    published: PublishedPart | None = None

    @model_validator(mode="after")
    def _one_threshold_per_label(self) -> Self:
        if len(set(self.labels)) != len(self.labels):
            raise ValueError(f"labels: {', '.join(self.labels)}; expected each once")
        if set(self.thresholds) != set(self.labels):
            odd = sorted(set(self.thresholds) ^ set(self.labels))
            raise ValueError(f"thresholds: {', '.join(odd)}; expected one per label, no other")
        for name in self.labels:
            if fault := label_fault(name):
                raise ValueError(f"labels: {name!r} {fault}")
        return self


class AuditMetadata(Metadata):
    """audit.json.

    Attributes:
        asked: question that each check answers.
        patients: whether patients are known, see `octdino.data.sampling_units`.
        not_checkable: reason why a check is impossible, by check.
        similarity: threshold above which two scans count as near duplicates.
    """

    asked: dict[str, str]
    patients: Literal["known", "unknown", "none"] | None = None
    not_checkable: dict[str, str] = Field(default_factory=dict)
    scans: Count
    runs: Count
    similarity: float | None = None


class Figure(Metadata):
    """One figure of an explained network: the name of a file beside explain.json."""

    file: Annotated[str, Field(pattern=r"^[^./\\][^/\\]*$")]
    caption: str


class ExplainMetadata(Metadata):
    """explain.json.

    Attributes:
        size: px, the side of the network's input.
        maps: kind of the maps that need no classifier.
        arms: classifiers whose maps were made.
        split: which scans are explained; `n_scans` of `n_patients`.
        n_bank: scans of the retrieval gallery.
    """

    init: str
    backbone: str
    seed: Count | None = None
    size: Annotated[int, Field(ge=1)] | None = None
    maps: str | None = None
    arms: list[str] = Field(default_factory=list)
    split: str
    n_scans: Count
    n_patients: Count
    n_bank: Count | None = None
    labels: list[str]
    scan_ids: list[str]
    figures: list[Figure]


class CohortPart(Metadata):
    """The settings of the cohort stage, as far as a later stage needs them.

    Attributes:
        name: which kind of cohort it is.
    """

    image: ImageSettings
    name: str | None = None


class PublishedLeak(Metadata):
    """Scans that a published split trains on although it tests their patients; the cohort stage left them out."""

    scans: Count
    patients: Count


class StoreAttributes(Metadata):
    """The attributes of scans.h5.

    Attributes:
        mean, std: per channel, of the training patients of fold 0.
        source: content hash, see `octdino.data.store.content_hash`.
        exclusive: whether each labeled scan has exactly one positive label.
        exclusive_from: what says so: the setting, how the cohort is made, or the rows of its table.
        patients: known, unknown or none, see `octdino.data.sampling_units`; None in a store of an earlier version.
        published_leak: of protocol `published`.
        decisions: what columns and folders were taken for without the user saying so, as sentences.
    """

    mean: list[float]
    std: list[Positive]
    source: str
    settings: CohortPart
    exclusive: bool = False
    exclusive_from: Literal["setting", "cohort", "table"] | None = None
    patients: Literal["known", "unknown", "none"] | None = None
    published_leak: PublishedLeak | None = None
    decisions: list[str] = Field(default_factory=list)


C = TypeVar("C", bound=Metadata)


def read_metadata(path: Path, kind: type[C], made_by: str) -> C:
    """Read a JSON metadata file and check it by its schema.

    Args:
        made_by: the command that writes it, for messages.

    Raises:
        UserError: the file is missing or no JSON object, or a value is not what it may be.
    """
    values = read_json(path, made_by)
    return kind.parse(values, str(path))


def write_metadata(path: Path, metadata: Metadata) -> None:
    """Write a JSON metadata file, atomically. `Metadata.parse` has checked the values by the file's schema."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(metadata.plain(), indent=2, allow_nan=False) + "\n", encoding="utf-8")
