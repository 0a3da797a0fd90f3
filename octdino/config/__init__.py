"""Settings classes: the only definition of the keys of `config.yaml` and of their default values.

The flags of the commands, the JSON schema and `config/default.yaml` are generated from them. Imports nothing heavy: the
Snakefile reads it.
"""

from typing import Any, Self

from pydantic import Field, model_validator

from octdino.config.audit import AuditSettings
from octdino.config.augment import AugmentSettings
from octdino.config.classify import ClassifySettings
from octdino.config.cohort import CohortSettings, ImageSettings, PhantomSettings, SplitSettings
from octdino.config.cohort_size import known_scans, memory_mb
from octdino.config.consistency import (
    check_arms,
    check_external,
    check_folds,
    check_methods,
    check_models,
    check_view_sizes,
)
from octdino.config.early_checks import check_before_run, notes_before_run
from octdino.config.embed import EmbedSettings
from octdino.config.evaluate import EvaluateSettings
from octdino.config.explain import ExplainSettings
from octdino.config.external import ExternalSettings
from octdino.config.implied import with_implied, with_own_backbones
from octdino.config.method_settings import MethodSettings
from octdino.config.methods import METHODS
from octdino.config.models import ModelSettings, starts_published
from octdino.config.names import BACKBONE_NAME, FRACTION_TEXT, METHOD_NAME, Arm, check_backbone_name, fraction_text
from octdino.config.networks import NAME_RULE, is_timm_name
from octdino.config.pretrain import PretrainSettings
from octdino.config.published import check_published
from octdino.config.report import ReportSettings
from octdino.config.settings_base import Settings, checked
from octdino.data.cohort_origin import check_origin

__all__ = [
    "BACKBONE_NAME",
    "FRACTION_TEXT",
    "METHODS",
    "METHOD_NAME",
    "Arm",
    "AuditSettings",
    "AugmentSettings",
    "ClassifySettings",
    "CohortSettings",
    "Config",
    "EmbedSettings",
    "EvaluateSettings",
    "ExplainSettings",
    "ExternalSettings",
    "ImageSettings",
    "MethodSettings",
    "ModelSettings",
    "PhantomSettings",
    "PretrainSettings",
    "ReportSettings",
    "Settings",
    "SplitSettings",
    "check_before_run",
    "check_origin",
    "fraction_text",
    "known_scans",
    "load_config",
    "memory_mb",
    "notes_before_run",
]


class Config(Settings):
    """The whole configuration: one section per stage, and the models they share."""

    cohort: CohortSettings = CohortSettings()
    models: dict[str, ModelSettings] = Field(
        {}, description="backbones by their name in results/; a name that is not here is timm's own"
    )
    pretrain: PretrainSettings = PretrainSettings()
    embed: EmbedSettings = EmbedSettings()
    classify: ClassifySettings = ClassifySettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    audit: AuditSettings = AuditSettings()
    explain: ExplainSettings = ExplainSettings()
    report: ReportSettings = ReportSettings()

    @model_validator(mode="before")
    @classmethod
    def _implied(cls, values: Any) -> Any:
        """Add the methods that follow from arms, or the arms that follow from methods, where only one is given."""
        if not isinstance(values, dict):
            return values
        methods, arms = PretrainSettings.model_fields["methods"].default, ClassifySettings.model_fields["arms"].default
        known = {**METHODS, **PretrainSettings.model_fields["variants"].default}
        return with_implied(with_own_backbones(values), methods, arms, known)

    @model_validator(mode="after")
    def _inherits(self) -> Self:
        classify = self.classify.with_augment_of(self.pretrain.augment).with_tracking_of(self.pretrain.tracking)
        object.__setattr__(self, "classify", classify)  # it is frozen
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        checked("models", check_backbone_name, *self.models)
        for name in self.pretrain.backbones:
            if name not in self.models and not is_timm_name(name):
                raise ValueError(f"pretrain.backbones: {name!r} is not allowed; {NAME_RULE}, or one of models")
        checks = (check_models, check_published, check_arms, check_methods, check_view_sizes, check_folds)
        for check in (*checks, check_external):
            check(self)
        if self.classify.arms and self.evaluate.reference not in self.classify.arms:
            raise ValueError(f"evaluate.reference: {self.evaluate.reference!r} is not among classify.arms")
        if missing := sorted(set(self.explain.arms or []) - set(self.classify.arms)):
            raise ValueError(f"explain.arms: {', '.join(missing)} not among classify.arms")
        return self

    def shown(self) -> dict[str, Any]:
        """Return all settings as plain JSON values, as the page shows them.

        Sections that are newer than existing results are left out where they are empty, so that nothing is made again.
        """
        values = self.model_dump(mode="json")
        if not self.evaluate.external:
            del values["evaluate"]["external"]
        return values

    def model(self, backbone: str) -> ModelSettings:
        """Return the timm model of a backbone's name; a name without an entry is timm's own."""
        return self.models.get(backbone) or ModelSettings(timm=backbone)

    def published(self, init: str) -> bool:
        """Whether an init is the name of an entry of `models` with weights: it then has a backbone of its own."""
        pretrain = self.pretrain
        pretrained = init in {*pretrain.methods, *pretrain.variants}
        return init in self.models and starts_published(init, self.models[init], pretrained=pretrained)

    def backbones_of(self, init: str) -> list[str]:
        """Return the backbones that are used with an init: its own, those of the method, or all."""
        if self.published(init):
            return [init]
        return self.pretrain.backbones_of(init) if init in self.pretrain.methods else self.pretrain.backbones

    @property
    def published_inits(self) -> list[str]:
        """The inits of `classify.arms` that are names of entries of `models` with weights, each once."""
        inits = dict.fromkeys(Arm.parse(arm).init for arm in self.classify.arms)
        return [init for init in inits if self.published(init)]


def load_config(values: dict[str, Any], where: str = "config.yaml") -> Config:
    """Return the whole configuration, validated; keys that `values` lacks have the built-in defaults.

    Raises:
        UserError: one line with each wrong key and what is allowed.
    """
    return Config.parse(values, where)
