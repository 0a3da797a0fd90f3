"""Settings of the pretrain stage."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from octdino.config.augment import AugmentSettings
from octdino.config.methods import METHODS, MethodSettings
from octdino.config.names import check_backbone_name, check_method_name, check_once, check_seeds
from octdino.config.settings_base import Settings, checked
from octdino.errors import UserError

UNTRACKED = (
    "extend",
    "max_skipped",
    "tensorboard",
    "checkpoint_seconds",
    "keep_checkpoints",
)  # no weight of a finished run


class PretrainSettings(Settings):
    """What all methods share (so that the comparison is fair), and each method's own settings by name."""

    methods: list[str] = Field(
        ["dino", "simclr", "supcon_cst"], description="which to run: a method's name or a name below variants"
    )
    variants: dict[str, dict[str, Any]] = Field(
        {"supcon_cst": {"method": "supcon", "positives": ["cst"]}},
        description="settings by name; `method` says whose they are and may be left out where the name says it",
    )
    backbones: list[str] = Field(["resnet18"], min_length=1, description="names below models, or timm's own")
    seeds: list[int] = Field([0], min_length=1)
    scope: Literal["train_patients", "all"] = Field(
        "train_patients", description="which unlabelled scans are seen; all: the test patients' too, labels unseen"
    )
    epochs: int = Field(100, ge=1)
    batch_size: int = Field(128, ge=2, description="scans a step; losses and learning rates see the whole of it")
    grad_cache_chunks: int = Field(
        1, ge=1, description="parts in which a batch passes the backbone, where memory is short"
    )
    augment: AugmentSettings = AugmentSettings()
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto: bfloat16 where the hardware is fast at it, else float32"
    )
    deterministic: bool = Field(
        True, description="ask torch for the same bits every time; false: a GPU may take faster algorithms"
    )
    compile: bool = Field(False, description="compile the backbone, a minute a run: measure whether it pays for yours")
    knn: int = Field(20, ge=1, description="neighbours of the online kNN, never of the same patient")
    online_eval_max_scans: int = Field(
        2000, ge=2, description="labelled scans, at most, that the online kNN and the spread of features are taken from"
    )
    eval_every: int = Field(1, ge=1, description="epochs between two online evaluations")
    export: Literal["last", "best"] = Field(
        "last", description="which weights are handed on; best: of the epoch with the best kNN on validation patients"
    )
    extend: bool = Field(False, description="more epochs than a finished run had go on from its end")
    max_skipped: int = Field(10, ge=0, description="steps without a finite loss and gradient before the run gives up")
    tensorboard: bool = Field(False, description="write the history for TensorBoard, too")
    checkpoint_seconds: float = Field(60.0, ge=0, description="seconds between two checkpoints")
    keep_checkpoints: int = Field(1, ge=1, description="how many of the latest checkpoints stay")

    @model_validator(mode="after")
    def _known(self) -> Self:
        checked("methods", check_method_name, *self.methods)
        checked("variants", check_method_name, *self.variants)
        checked("backbones", check_backbone_name, *self.backbones)
        for key in ("methods", "backbones"):
            checked(key, check_once, getattr(self, key))
        checked("seeds", check_seeds, self.seeds)
        if taken := sorted({"scratch", "imagenet"} & set(self.variants)):
            raise ValueError(f"variants: {taken[0]!r} is an init of its own; expected another name")
        for name in [*self.methods, *self.variants]:
            try:
                chosen = self.backbones_of(name)
            except UserError as error:
                raise ValueError(str(error)) from None  # begins with methods: or variants
            if unknown := sorted(set(chosen) - set(self.backbones)):
                where = f"variants.{name}.backbones: {', '.join(unknown)}"
                raise ValueError(f"{where} not among pretrain.backbones {self.backbones}")
        return self

    def variant(self, name: str) -> MethodSettings:
        """The settings of the method `name`, which is a method's own name or one of `variants`."""
        values = {"method": name, **self.variants.get(name, {})}
        if not isinstance(values["method"], str) or values["method"] not in METHODS:
            known = f"{', '.join(METHODS)}, or a name below pretrain.variants"
            raise UserError(f"methods: {name!r} is no method; known: {known}")
        return METHODS[values["method"]].parse(values, f"variants.{name}")

    def backbones_of(self, name: str) -> list[str]:
        """The backbones that the workflow trains with the method `name`: all, or those that its settings name."""
        return self.variant(name).backbones or self.backbones

    def needed(self, name: str) -> dict[str, Any]:
        """The part that the run `name` depends on, as plain values: a change of the rest need not train it again."""
        others = {"methods", "variants", "backbones", "seeds", "scope", *UNTRACKED}
        return {
            "methods": [name],
            "variants": {name: self.variant(name).model_dump(mode="json", exclude={"backbones"})},
            **self.model_dump(mode="json", exclude=others),
        }
