"""Checks of settings against each other: backbones, methods, sizes of views, what a cohort has; no file of it is read.

Each raises a ValueError that begins with the key.
"""

import itertools
from typing import TYPE_CHECKING

from octdino.config.models import ModelSettings
from octdino.config.names import Arm
from octdino.config.settings_base import checked
from octdino.config.timm_models import check_patches, check_timm_model, may_mask_patches

if TYPE_CHECKING:
    from octdino.config import Config

VALUES = {  # of the manifest by which methods compare scans
    "cst": "retinal thickness", "bcva": "visual acuity", "eye": "the eye of each scan",
    "visit": "the visit of each scan",
}  # fmt: skip


def check_models(settings: "Config") -> None:
    """Check that timm has each backbone, and that it takes the arguments."""
    for name, model in settings.models.items():
        checked(f"models.{name}", check_timm_model, model)
    for name in settings.pretrain.backbones:
        if name not in settings.models:
            checked("pretrain.backbones", check_timm_model, ModelSettings(timm=name))


def check_arms(settings: "Config") -> None:
    """Check that each arm and each explained init has its method; an extra method is pretrained without arms."""
    chosen = settings.pretrain.methods
    inits = {arm: Arm.parse(arm).init for arm in settings.classify.arms}
    known = {"scratch", "imagenet", *chosen, *filter(settings.published, settings.models)}
    if missing := sorted(arm for arm, init in inits.items() if init not in known):
        names = ", ".join(dict.fromkeys(inits[arm] for arm in missing))
        raise ValueError(
            f"classify.arms: {', '.join(missing)}: {names} not among pretrain.methods {chosen}; add it there, or leave "
            "one of the two lists out: it then follows from the other"
        )
    if odd := sorted(set(settings.classify.lora) - set(settings.classify.arms)):
        raise ValueError(f"classify.lora: {', '.join(odd)} not among classify.arms")
    if missing := sorted(set(settings.explain.inits or []) - known):
        raise ValueError(f"explain.inits: {', '.join(missing)} not among pretrain.methods {chosen}")


def check_methods(settings: "Config") -> None:
    """Check that backbones and cohort have what the methods need: patches, clinical values."""
    chosen = settings.pretrain
    for name in chosen.methods:
        variant = settings.pretrain.variant(name)
        for backbone in chosen.backbones_of(name):
            if variant.needs_patches and not may_mask_patches(settings.model(backbone)):
                raise ValueError(
                    f"pretrain.methods: {name} masks patches and needs vision transformers (vit_*), and {backbone} is "
                    f"none; name those that it may train in pretrain.variants.{name}.backbones"
                )
        if lacking := lacking_values(settings, name, settings.cohort.comparable):
            raise ValueError(without_values(settings, name, lacking, f"the cohort {settings.cohort.name} has none"))


def lacking_values(settings: "Config", method: str, present: set[str]) -> list[str]:
    """Return the values of the manifest that a method needs and that are not `present`."""
    needed = settings.pretrain.variant(method).compared_by
    return [each for each in needed if each in VALUES and each not in present]


def without_values(settings: "Config", method: str, lacking: list[str], why: str) -> str:
    """Return the message for a method whose values a cohort lacks: what to leave out."""
    arms = [arm for arm in settings.classify.arms if Arm.parse(arm).init == method]
    dropped = f" and its arms ({', '.join(arms)}) out of classify.arms" if arms else ""
    said = " and ".join(f"{each} ({VALUES[each]})" for each in lacking)
    return f"pretrain.methods: {method} needs {said}; {why}; leave {method} out of pretrain.methods{dropped}"


def check_view_sizes(settings: "Config") -> None:
    """Check that a transformer's patches divide its inputs; `check_published` checks those of published networks."""
    pretrain, classify = settings.pretrain, settings.classify
    views = {"pretrain.augment.global_size": pretrain.augment.global_size}
    if pretrain.augment.local_views:
        views["pretrain.augment.local_size"] = pretrain.augment.local_size
    for name in pretrain.methods:
        for backbone in pretrain.backbones_of(name):
            for key, size in views.items():
                check_patches(settings.model(backbone), key, size, backbone, padded=False)
    inputs = {}
    if any(Arm.parse(arm).mode == "finetune" for arm in classify.arms) or (classify.arms and not settings.embed.size):
        inputs["classify.augment.global_size"] = classify.augment.global_size
    if settings.embed.size and (classify.arms or settings.explain.inits != []):
        inputs["embed.size"] = settings.embed.size
    started = [backbone for name in pretrain.methods for backbone in pretrain.backbones_of(name)]
    for backbone in dict.fromkeys([*pretrain.backbones, *started]):
        for key, size in inputs.items():
            check_patches(settings.model(backbone), key, size, backbone)


def check_folds(settings: "Config") -> None:
    """Check that the phantom has a patient for each fold, and some to train and to validate."""
    cohort = settings.cohort
    least = cohort.split.folds + 2
    if cohort.name == "phantom" and cohort.split.protocol == "crossval" and cohort.phantom.patients < least:
        raise ValueError(
            f"cohort.phantom.patients: {cohort.phantom.patients}; expected {least} or more for "
            f"cohort.split.folds {cohort.split.folds}"
        )


def check_external(settings: "Config") -> None:
    """Check that external cohorts differ from the internal one and each other, and that there are classifiers."""
    for first, second in itertools.combinations(settings.evaluate.external, 2):
        if second.same_patients(first.cohort):
            raise ValueError(
                f"evaluate.external: {first.name} and {second.name} are the same cohort; expected each of them once"
            )
    for place, external in enumerate(settings.evaluate.external):
        key = f"evaluate.external.{place}"
        if not settings.classify.arms:
            raise ValueError(f"{key}: {external.name}: classify.arms is empty; there is no classifier to test")
        if external.name.casefold() == settings.cohort.results_name.casefold():
            raise ValueError(f"{key}.name: {external.name!r} is the internal cohort; expected another name")
        if external.same_patients(settings.cohort):
            same = (
                f"the phantom of seed {external.cohort.phantom.seed}"
                if external.cohort.name == "phantom"
                else f"{external.cohort.name} in {external.cohort.files}"
            )
            raise ValueError(
                f"{key}.cohort: {same} is the cohort that the arms are trained on; expected one that no arm has seen"
            )
