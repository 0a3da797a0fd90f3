"""Settings of the pretrain stage."""

import math
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from octdino.config.augment import AugmentSettings
from octdino.config.method_settings import MethodSettings
from octdino.config.methods import METHODS
from octdino.config.names import check_backbone_name, check_method_name, check_once, check_seeds
from octdino.config.settings_base import Settings, checked
from octdino.config.tracking import TRACKING, Trackers
from octdino.errors import UserError

UNTRACKED = (  # keys that change no weight of a finished run: no rerun trigger
    "extend",
    "max_skipped",
    "tracking",
    "checkpoint_seconds",
    "keep_checkpoints",
)

LEAST_EPOCHS, LEAST_IMAGES = 100, 200_000  # of a run whose epochs are null; docs/recipes.md


class PretrainSettings(Settings):
    """Pretraining without labels: settings shared by all methods (a fair comparison), and variants."""

    methods: list[str] = Field(
        ["dino", "simclr", "supcon_cst"],
        description="pretraining methods to run: a method's name or a name below variants; without this key those that "
        "classify.arms starts from",
    )
    variants: dict[str, dict[str, Any]] = Field(
        {"supcon_cst": {"method": "supcon", "positives": ["cst"]}},
        description="settings of methods by name; `method` may be left out where the name is a method's",
    )
    backbones: list[str] = Field(["resnet18"], min_length=1, description="names below models, or timm's own")
    seeds: list[int] = Field([0], min_length=1, description="one run per seed")
    scope: Literal["train_patients", "all"] = Field(
        "train_patients",
        description="scans to pretrain on; train_patients: none of test patients; all: every one, labels unused",
    )
    epochs: int | None = Field(
        None,
        ge=1,
        description=f"passes over the scans; null: {LEAST_EPOCHS}, or as many as show {LEAST_IMAGES:,} scans",
    )
    batch_size: int = Field(
        128, ge=2, description="scans per step, over all processes; loss and learning rate use the whole batch"
    )
    grad_cache_chunks: int = Field(
        1, ge=1, description="GradCache chunks in which a batch passes the backbone, where memory is short"
    )
    augment: AugmentSettings = AugmentSettings()
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="auto: bfloat16 or, on older GPUs, float16 where the hardware is fast at it, else float32"
    )
    deterministic: bool = Field(
        True, description="bit-identical repetition of a run; false: a GPU may use faster algorithms"
    )
    compile: bool = Field(
        False, description="torch.compile of the backbone, about a minute per run; measure with benchmarks/ first"
    )
    knn: int = Field(
        20, ge=1, description="number of neighbors in the online kNN evaluation, never of the same patient"
    )
    online_eval_max_scans: int = Field(
        2000, ge=2, description="largest number of labeled scans in online evaluation: kNN and spread of the features"
    )
    eval_every: int = Field(1, ge=1, description="epochs between two online evaluations")
    export: Literal["last", "best"] = Field(
        "last", description="exported weights; best: of the epoch with the best kNN score on validation patients"
    )
    extend: bool = Field(False, description="resume a finished run for more epochs, instead of training from the start")
    max_skipped: int = Field(
        10, ge=0, description="skipped steps (non-finite loss or gradient) before the run stops with an error"
    )
    tracking: Trackers = Field(["auto"], description=TRACKING)
    checkpoint_seconds: float = Field(
        60.0, ge=0, description="seconds between two checkpoints; a killed run loses at most these"
    )
    keep_checkpoints: int = Field(1, ge=1, description="number of the latest checkpoints that are kept")

    @model_validator(mode="after")
    def _known(self) -> Self:
        checked("methods", check_method_name, *self.methods)
        checked("variants", check_method_name, *self.variants)
        checked("backbones", check_backbone_name, *self.backbones)
        for key in ("methods", "backbones"):
            checked(key, check_once, getattr(self, key))
        checked("seeds", check_seeds, self.seeds)
        if taken := sorted({"scratch", "imagenet"} & set(self.variants)):
            raise ValueError(f"variants: {taken[0]!r} is the name of an init; expected another name")
        for name in [*self.methods, *self.variants]:
            try:
                chosen = self.backbones_of(name)
            except UserError as error:
                raise ValueError(str(error)) from None  # begins with methods: or variants
            own = {self.variant(name).init}  # published weights, which are of one backbone
            if unknown := sorted(set(chosen) - set(self.backbones) - own):
                where = f"variants.{name}.backbones: {', '.join(unknown)}"
                raise ValueError(f"{where} not among pretrain.backbones {self.backbones}")
        return self

    def at_size(self, scans: int) -> Self:
        """Return a copy with a number of epochs, by the number of scans where it is null."""
        epochs = self.epochs or max(LEAST_EPOCHS, math.ceil(LEAST_IMAGES / scans))
        return self.model_copy(update={"epochs": epochs})

    @property
    def length(self) -> int:
        """Return the number of epochs, of settings from `at_size`."""
        assert self.epochs is not None, "at_size gives a number"
        return self.epochs

    def variant(self, name: str) -> MethodSettings:
        """Return the settings of the method `name`, which is a method's own name or one of `variants`."""
        values = {"method": name, **self.variants.get(name, {})}
        if not isinstance(values["method"], str) or values["method"] not in METHODS:
            known = f"{', '.join(METHODS)}, or a name below pretrain.variants"
            raise UserError(f"methods: {name!r} is no method; known: {known}")
        return METHODS[values["method"]].parse(values, f"variants.{name}")

    def backbones_of(self, name: str) -> list[str]:
        """Return the backbones that the workflow trains with the method `name`: all, or those in its settings."""
        return self.variant(name).backbones or self.backbones

    def needed(self, name: str) -> dict[str, Any]:
        """Return the settings that the run `name` depends on as plain values (`params` of its rule: rerun trigger)."""
        others = {"methods", "variants", "backbones", "seeds", "scope", *UNTRACKED}
        return {
            "methods": [name],
            "variants": {name: self.variant(name).needed()},
            **self.model_dump(mode="json", exclude=others),
        }
