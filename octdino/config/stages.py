"""Settings of the classify, evaluate and report stages, and of the models they share."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from octdino.config.base import Settings, checked
from octdino.config.names import (
    LARGEST_SEED,
    NETWORK_MODES,
    check_arm,
    check_backbone_name,
    check_fraction,
    check_once,
    check_seeds,
    short,
)
from octdino.config.networks import TimmArgs, TimmName
from octdino.config.pretrain import AugmentSettings

OWN = {  # what the modes on frozen features depend on, beside the size of the input and the thresholds
    "linear": ("penalties", "class_weights"),
    "knn": ("knn",),
    "mlp": ("mlp_hidden", "epochs", "min_steps", "batch_size", "lr", "weight_decay", "class_weights"),
}


class ModelSettings(Settings):
    """A backbone: a timm model and the arguments that `timm.create_model` takes."""

    timm: TimmName = Field(description="timm's name")
    args: TimmArgs = Field({}, description="further arguments of timm.create_model")
    weights: Path | None = Field(
        None,
        description="local file of weights for the imagenet arms (timm's, torchvision's, DINO's, DINOv2's or lightly's "
        ".pth or .safetensors); null: timm's download",
    )


class ReportedSettings(Settings):
    """The protocol of the report that the project began with, faults and all; its numbers stand beside ours only.

    Its scores are the best of all epochs on a random part of the test scans, and its frozen probe froze a backbone that
    had been fine-tuned before.
    """

    arms: list[str] = Field([], description="arms (linear or finetune) that are trained once more in this way")
    epochs: int = Field(50, ge=1, description="passes over the labelled training scans; the best one counts")
    test_share: float = Field(0.2, gt=0, le=1, description="share of the test scans, drawn at random")
    contaminated: bool = Field(True, description="linear: the backbone is fine-tuned on the same labels first")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        checked("arms", lambda arm: check_arm(arm, NETWORK_MODES), *self.arms)
        checked("arms", check_once, self.arms)
        return self


class ClassifySettings(Settings):
    """The arms and how a classifier is trained; all arms get the same budget."""

    arms: list[str] = Field(
        ["scratch-finetune", "dino-linear", "dino-finetune", "simclr-linear", "supcon_cst-linear"],
        description="{init}-{mode}: init is scratch, imagenet or a pretraining method; mode is linear, knn or mlp, on "
        "frozen features, or finetune; "
        "scratch-linear are random features, the floor that every linear arm has to leave behind",
    )
    fractions: list[float] = Field(
        [0.1, 0.3, 1.0], min_length=1, description="shares of the labelled training patients, 0.0001 to 1; they nest"
    )
    fractions_of: dict[str, list[float]] = Field(
        {}, description="arms that are run at fractions of their own, such as {dino-knn: [1.0]}"
    )
    seeds: list[int] = Field([0], min_length=1, description="seeds of the classifier; run names carry them")
    augment: AugmentSettings = Field(
        AugmentSettings(global_scale=(0.6, 1.0)), description="of the labelled scans; global_size is every arm's input"
    )
    epochs: int = Field(30, ge=1, description="finetune: passes over the labelled training scans")
    min_steps: int = Field(200, ge=1, description="finetune: at least so many steps, however few scans there are")
    batch_size: int = Field(32, ge=2)
    lr: float = Field(1e-3, gt=0, description="finetune: peak learning rate of the head and of a scratch backbone")
    backbone_lr: float = Field(0.3, gt=0, le=1, description="finetune: a pretrained backbone's share of lr")
    weight_decay: float = Field(0.05, ge=0)
    patience: int = Field(8, ge=1, description="finetune: checks without a better validation score before the end")
    class_weights: Literal["none", "balanced"] = Field("none", description="balanced: positives weigh as negatives do")
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="as in pretrain")
    deterministic: bool = Field(True, description="as in pretrain")
    checkpoint_seconds: float = Field(60.0, ge=0, description="finetune: seconds between two checkpoints")
    penalties: list[float] = Field(
        [0.001, 0.01, 0.1, 1.0, 10.0, 100.0], min_length=1, description="linear: inverse L2 strengths, chosen on val"
    )
    mlp_hidden: int = Field(512, ge=1, description="mlp: width of its hidden layer")
    knn: int = Field(20, ge=1, description="knn: neighbours that vote, weighted by similarity")
    threshold: Literal["youden", "f1"] = Field("youden", description="what a label's threshold maximises on val")
    reported: ReportedSettings = ReportedSettings()

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if len(self.arms) == 1:
            raise ValueError(f"arms: only {self.arms[0]}; at least two to compare, or none to leave it out")
        checked("arms", check_arm, *self.arms)
        checked("arms", check_once, self.arms)
        checked("seeds", check_seeds, self.seeds)
        if unknown := sorted(set(self.fractions_of) - set(self.arms)):
            raise ValueError(f"fractions_of: {', '.join(map(short, unknown))} not among arms")
        own = {f"fractions_of.{arm}": fractions for arm, fractions in self.fractions_of.items()}
        for key, fractions in {"fractions": self.fractions, **own}.items():
            if not fractions:
                raise ValueError(f"{key}: empty; expected at least one fraction, or leave the arm out of arms")
            checked(key, check_fraction, *fractions)
            checked(key, check_once, fractions)
        return self

    def needed_reported(self, arm: str) -> dict[str, Any]:
        """The same for an arm in the report's own protocol."""
        reported = self.reported.model_dump(mode="json", exclude={"arms"})
        return {**self.needed(arm.rsplit("-", 1)[0] + "-finetune"), "reported": reported}

    def fractions_at(self, arm: str) -> list[float]:
        """The fractions that the workflow runs the arm at."""
        return self.fractions_of.get(arm, self.fractions)

    def needed(self, arm: str) -> dict[str, Any]:
        """The part that this arm depends on, as plain values: a change of the rest need not train it again."""
        mode = arm.rsplit("-", 1)[1]
        if mode in OWN:
            used: dict[str, Any] = {
                "augment": {"global_size": True},
                "threshold": True,
                "deterministic": True,
                **dict.fromkeys(OWN[mode], True),
            }
            return self.model_dump(mode="json", include=used)
        others: dict[str, Any] = {
            **dict.fromkeys(("arms", "fractions", "fractions_of", "seeds", "checkpoint_seconds"), True),
            **dict.fromkeys(("penalties", "knn", "mlp_hidden", "reported"), True),
            "augment": {"local_size", "local_views", "local_scale"},
        }
        return self.model_dump(mode="json", exclude=others)


class EvaluateSettings(Settings):
    """How the arms are compared."""

    reference: str = Field("scratch-finetune", description="the arm that the others are compared with")
    labels: list[str] | None = Field(None, description="the labels that are compared; null: all of the cohort")
    resamples: int = Field(1000, ge=100, description="bootstrap resamples of test patients")
    confidence: float = Field(0.95, gt=0.5, lt=1)
    interval: Literal["percentile", "bca"] = Field(
        "percentile", description="percentile of the resamples, or bias-corrected and accelerated"
    )
    expand: bool = Field(True, description="widen intervals, and p, for few test patients (Hesterberg 2015)")
    operating_point: float = Field(
        0.9, gt=0, lt=1, description="specificity (sensitivity) that a label's threshold is set to on val"
    )
    pooling: Literal["mean", "max"] = Field("mean", description="a patient's score from those of their scans")
    bins: int = Field(10, ge=2, description="of the calibration error, with as many scans each")
    min_positive_patients: int = Field(
        10, ge=1, description="labels with fewer positive patients in the labelled cohort are not evaluable"
    )
    primary_positive_patients: int = Field(25, ge=1, description="labels with fewer are marked exploratory")
    min_test_patients: int = Field(
        3, ge=2, description="labels with fewer positive, or fewer negative, test patients are not evaluable"
    )
    cst_bands: list[float] = Field([320.0, 400.0], description="subgroups: where bands of retinal thickness meet, µm")
    bcva_bands: list[float] = Field([70.0, 80.0], description="subgroups: where bands of acuity meet, letters")
    small_group: int = Field(10, ge=2, description="subgroups with fewer test patients are marked as small")
    seed: int = Field(0, ge=0, le=LARGEST_SEED)

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        for name, bands in (("cst_bands", self.cst_bands), ("bcva_bands", self.bcva_bands)):
            if bands != sorted(set(bands)):
                raise ValueError(f"{name}: {bands}; expected ascending values, each once")
        return self


class AuditSettings(Settings):
    """What must not reach training, choice or standardisation from the test patients."""

    similarity: float = Field(
        0.8, gt=0, le=1, description="correlation of fine detail from which two scans are one picture"
    )
    acknowledged: list[
        Literal["patient", "eye", "volume", "copy", "exposure", "statistics", "threshold", "weights"]
    ] = Field([], description="checks whose findings are shown and do not fail the run")


class NumberSettings(Settings):
    """Where a number on the page comes from: one cell of a results table."""

    table: Literal["metrics", "reported", "history", "jaccard"] = Field(
        "metrics",
        description="metrics: an arm on test scans; reported: an arm in the report's protocol, its best epoch; "
        "history: of a pretraining; jaccard: of an explained network",
    )
    name: str = Field(description="the arm; history: the method; jaccard: the init")
    backbone: str
    fraction: float = Field(1.0, description="metrics and reported: share of labelled training scans")
    column: str = Field("accuracy", description="metrics: the metric; history: the column; jaccard: the protocol")
    take: Literal["last", "max"] = Field("last", description="history: which epoch")
    blobs: Literal["kept", "removed"] = Field("kept", description="jaccard: minor blobs of the masks")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        checked("name", check_backbone_name, self.name)  # an arm's has a dash, like a backbone's
        checked("backbone", check_backbone_name, self.backbone)
        checked("fraction", check_fraction, self.fraction)
        return self


class QuotedSettings(Settings):
    """One number of the report that the project began with, and where ours stand."""

    item: str = Field(description="what was measured")
    source: str = Field(description="where in the report")
    value: float | None = Field(None, description="as it was reported, in percent; null: a figure without a number")
    fault: str = Field("", description="what is wrong with it")
    repeated: NumberSettings | None = Field(None, description="ours in the reported protocol")
    corrected: NumberSettings | None = Field(None, description="ours without the fault")


class ReportSettings(Settings):
    """The page."""

    title: str = Field("Does self-supervised pretraining find retinal biomarkers better?")
    examples: int = Field(8, ge=0, description="example scans with predictions")
    mistakes: int = Field(2, ge=0, description="worst misses and worst false alarms shown of each label")
    licence: str | None = Field(None, description="of the data, as their owners give it; stands in the data card")
    quoted: list[QuotedSettings] = Field(
        [], description="numbers of the report that the project began with, in a table beside ours"
    )
