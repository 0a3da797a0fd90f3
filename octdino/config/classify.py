"""Settings of the classify stage: arms, fractions of the labels, fine-tuning and probes."""

import itertools
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BeforeValidator, Field, model_validator

from octdino.config.augment import SMALL_VIEWS, AugmentSettings
from octdino.config.names import (
    Arm,
    ThresholdRule,
    check_arm,
    check_fraction,
    check_once,
    check_seeds,
)
from octdino.config.settings_base import Settings, as_list, checked, merged
from octdino.config.tracking import TrackerName, Trackers
from octdino.errors import short

OWN = {  # keys that the modes on embeddings depend on, beside the embeddings and the thresholds
    "linear": ("inverse_regularization", "class_weights"),
    "knn": ("knn",),
    "mlp": ("mlp_hidden", "epochs", "min_steps", "batch_size", "lr", "weight_decay", "class_weights"),
}


Rates = Annotated[list[Annotated[float, Field(gt=0)]], BeforeValidator(as_list), Field(min_length=1)]
Counts = Annotated[list[Annotated[int, Field(ge=1)]], BeforeValidator(as_list), Field(min_length=1)]


class Candidate(NamedTuple):
    """One training of the search: peak learning rate and least number of steps."""

    lr: float
    min_steps: int

    @property
    def series(self) -> str:
        """Return its name in charts and folders."""
        return f"lr{self.lr:g}-steps{self.min_steps}"

    def __str__(self) -> str:
        return f"lr {self.lr:g}, at least {self.min_steps} steps"


class ClassifySettings(Settings):
    """Arms and the training of their classifiers on few labels; all arms have the same budget."""

    arms: list[str] = Field(
        ["scratch-finetune", "dino-linear", "dino-finetune", "simclr-linear", "supcon_cst-linear"],
        description="{init}-{mode}; init: scratch, imagenet, a pretraining method or an entry of models with weights; "
        "mode is linear, knn or mlp, on frozen features, or finetune; scratch-linear are random features, the baseline "
        "of every linear arm; without this key scratch-finetune and those of pretrain.methods",
    )
    fractions: list[float] = Field(
        [0.1, 0.3, 1.0],
        min_length=1,
        description="shares of the labeled training patients, 0.0001 to 1; nested subsets",
    )
    arm_fractions: dict[str, list[float]] = Field(
        {}, description="arms with fractions of their own, such as {dino-knn: [1.0]}"
    )
    seeds: list[int] = Field(
        [0],
        min_length=1,
        description="one run per seed; it starts from the pretraining of the same seed if there is one",
    )
    augment: AugmentSettings = Field(
        AugmentSettings(global_scale=(0.6, 1.0), local_views=0),
        description="augmentation when fine-tuning; global_size is the input size of every arm, or embed.size",
    )
    epochs: int = Field(30, ge=1, description="finetune, mlp: passes over the labeled training scans")
    min_steps: Counts = Field(
        [1000],
        description="finetune, mlp: least number of steps, however few scans there are; a list: validation patients "
        "choose",
    )
    batch_size: int = Field(32, ge=2, description="finetune, mlp: scans per step")
    lr: Rates = Field(
        [1e-3, 3e-3],
        description="finetune, mlp: candidates for the peak learning rate of the head and of a scratch backbone; "
        "validation patients choose",
    )
    backbone_lr: float = Field(
        1.0, gt=0, le=1, description="finetune: learning rate of a pretrained backbone, as a share of lr"
    )
    layer_decay: float = Field(
        1.0,
        gt=0,
        le=1,
        description="finetune: learning rate of each block of a pretrained backbone, as a share of the next block's; "
        "0.65 is usual for vision transformers (Bao et al. 2022)",
    )
    weight_decay: float = Field(0.05, ge=0, description="finetune: none on biases and norms")
    first_head: Literal["linear", "random"] = Field(
        "linear",
        description="finetune: first head on a pretrained backbone; linear: the linear probe (LP-FT, Kumar 2022)",
    )
    lora: list[str] = Field(
        [],
        description="finetune arms that train low-rank adapters of the backbone's linear layers and the head, the "
        "backbone itself stays frozen (LoRA, Hu et al. 2022); for large transformers; needs octdino[lora]",
    )
    lora_rank: int = Field(8, ge=1, description="finetune: rank of the adapters of the arms in lora")
    patience: int | None = Field(
        None, ge=1, description="finetune: validations without a better score before training stops; null: never"
    )
    class_weights: Literal["none", "balanced"] = Field(
        "none", description="balanced: positives have the same total weight as negatives"
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field("auto", description="finetune: as in pretrain")
    deterministic: bool = Field(True, description="as in pretrain")
    checkpoint_seconds: float = Field(60.0, ge=0, description="finetune: seconds between two checkpoints")
    tracking: Trackers = Field(
        ["auto"], description="finetune: where the history goes, as pretrain.tracking, which is its default"
    )
    inverse_regularization: list[float] = Field(
        [1e-5, 1e-4, 0.001, 0.01, 0.1, 1.0, 10.0, 100.0],
        min_length=1,
        description="linear: candidates for C, the inverse L2 penalty; validation patients choose",
    )
    mlp_hidden: int = Field(512, ge=1, description="mlp: width of its hidden layer")
    knn: Counts = Field(
        [5, 10, 20, 50],
        description="knn: candidates for the number of neighbors that vote, weighted by similarity; validation "
        "patients choose",
    )
    threshold: ThresholdRule = Field(
        "youden", description="score that a label's threshold maximizes on validation patients"
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if len(self.arms) == 1:
            raise ValueError(f"arms: only {self.arms[0]}; at least two to compare, or none to leave it out")
        checked("arms", check_arm, *self.arms)
        checked("arms", check_once, self.arms)
        checked("seeds", check_seeds, self.seeds)
        if unknown := sorted(set(self.arm_fractions) - set(self.arms)):
            raise ValueError(f"arm_fractions: {', '.join(map(short, unknown))} not among arms")
        checked("lora", lambda arm: check_arm(arm, ("finetune",)), *self.lora)
        checked("lora", check_once, self.lora)
        if "scratch-finetune" in self.lora:
            raise ValueError("lora: scratch-finetune starts from random weights, which adapters leave as they are")
        own = {f"arm_fractions.{arm}": fractions for arm, fractions in self.arm_fractions.items()}
        for key, fractions in {"fractions": self.fractions, **own}.items():
            if not fractions:
                raise ValueError(f"{key}: empty; expected at least one fraction, or leave the arm out of arms")
            checked(key, check_fraction, *fractions)
            checked(key, check_once, fractions)
        return self

    def candidates(self) -> list[Candidate]:
        """Return what fine-tuning and MLP try: every learning rate with every least number of steps."""
        return [Candidate(*each) for each in itertools.product(self.lr, self.min_steps)]

    def with_augment_of(self, pretrain: AugmentSettings) -> Self:
        """Return a copy whose augment inherits from `pretrain` every key that it does not set, except small views."""
        own = self.augment.model_dump(exclude_unset=True)
        inherited = pretrain.model_dump(exclude=set(SMALL_VIEWS))
        return self.model_copy(update={"augment": AugmentSettings.model_validate(merged(inherited, own))})

    def at_input_size(self, size: int) -> Self:
        """Return a copy whose fine-tuned networks take this input, px."""
        augment = self.augment
        if size == augment.global_size:
            return self
        return self.model_copy(update={"augment": augment.model_copy(update={"global_size": size})})

    def with_tracking_of(self, trackers: list[TrackerName]) -> Self:
        """Return a copy that is tracked as pretraining is, if it does not set `tracking` itself."""
        return self if "tracking" in self.model_fields_set else self.model_copy(update={"tracking": trackers})

    def fractions_at(self, arm: str) -> list[float]:
        """Return the fractions at which the workflow runs the arm."""
        return self.arm_fractions.get(arm, self.fractions)

    def needed(self, arm: str) -> dict[str, Any]:
        """Return the settings that this arm depends on as plain values (`params` of its rule, its rerun trigger)."""
        init, mode = Arm.parse(arm)
        if mode in OWN:
            return self.model_dump(mode="json", include={"threshold", *OWN[mode]})
        others: dict[str, Any] = {
            **dict.fromkeys(("arms", "fractions", "arm_fractions", "seeds", "checkpoint_seconds"), True),
            "tracking": True,
            **dict.fromkeys(("knn", "mlp_hidden"), True),
            "augment": set(SMALL_VIEWS),
            "lora": True,
            "lora_rank": arm not in self.lora,
        }
        if init == "scratch":
            others |= dict.fromkeys(("backbone_lr", "layer_decay", "first_head"), True)
        if init == "scratch" or self.first_head == "random":
            others["inverse_regularization"] = True
        adapted = {"lora": [arm]} if arm in self.lora else {}
        return self.model_dump(mode="json", exclude={key: each for key, each in others.items() if each}) | adapted
