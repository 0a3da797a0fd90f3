"""Settings of the classify stage: arms, fractions of the labels, fine-tuning and probes."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from octdino.config.augment import AugmentSettings
from octdino.config.names import (
    NETWORK_MODES,
    Arm,
    check_arm,
    check_fraction,
    check_once,
    check_seeds,
    short,
)
from octdino.config.settings_base import Settings, checked

OWN = {  # what the modes on embeddings depend on, beside the embeddings and the thresholds
    "linear": ("inverse_regularization", "class_weights"),
    "knn": ("knn",),
    "mlp": ("mlp_hidden", "epochs", "min_steps", "batch_size", "lr", "weight_decay", "class_weights"),
}


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
    arm_fractions: dict[str, list[float]] = Field(
        {}, description="arms that are run at fractions of their own, such as {dino-knn: [1.0]}"
    )
    seeds: list[int] = Field([0], min_length=1, description="seeds of the classifier; run names carry them")
    augment: AugmentSettings = Field(
        AugmentSettings(global_scale=(0.6, 1.0)),
        description="of the labelled scans; global_size is every arm's input, but embed.size wins",
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
    inverse_regularization: list[float] = Field(
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
        if unknown := sorted(set(self.arm_fractions) - set(self.arms)):
            raise ValueError(f"arm_fractions: {', '.join(map(short, unknown))} not among arms")
        own = {f"arm_fractions.{arm}": fractions for arm, fractions in self.arm_fractions.items()}
        for key, fractions in {"fractions": self.fractions, **own}.items():
            if not fractions:
                raise ValueError(f"{key}: empty; expected at least one fraction, or leave the arm out of arms")
            checked(key, check_fraction, *fractions)
            checked(key, check_once, fractions)
        return self

    def needed_reported(self, arm: str) -> dict[str, Any]:
        """The same for an arm in the report's own protocol."""
        reported = self.reported.model_dump(mode="json", exclude={"arms"})
        return {**self.needed(Arm.parse(arm).init + "-finetune"), "reported": reported}

    def fractions_at(self, arm: str) -> list[float]:
        """The fractions that the workflow runs the arm at."""
        return self.arm_fractions.get(arm, self.fractions)

    def needed(self, arm: str) -> dict[str, Any]:
        """The part that this arm depends on, as plain values: a change of the rest need not train it again."""
        mode = Arm.parse(arm).mode
        if mode in OWN:
            return self.model_dump(mode="json", include={"threshold", *OWN[mode]})
        others: dict[str, Any] = {
            **dict.fromkeys(("arms", "fractions", "arm_fractions", "seeds", "checkpoint_seconds"), True),
            **dict.fromkeys(("inverse_regularization", "knn", "mlp_hidden", "reported"), True),
            "augment": {"local_size", "local_views", "local_scale"},
        }
        return self.model_dump(mode="json", exclude=others)
