"""Methods that follow from arms, and arms that follow from methods, where a configuration gives only one of the lists.

Where it gives both, nothing is added. `classify.arms: []` says nothing about methods: the default ones are pretrained.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from octdino.config.names import Arm, check_method_name

NO_PRETRAINING = ("scratch", "imagenet")  # inits; and the names of `models` entries with weights


def with_implied(
    values: dict[str, Any], methods: Sequence[str], arms: Sequence[str], known: Iterable[str]
) -> dict[str, Any]:
    """Return the configuration `values`, as read from a file, with the list that follows from the other one.

    Args:
        methods, arms: the built-in defaults of `pretrain.methods` and `classify.arms`.
        known: names of methods and of built-in variants.

    Raises:
        ValueError: an arm starts from no method, or there are neither arms nor methods.
    """
    pretrain, classify, explain = (values.get(key) or {} for key in ("pretrain", "classify", "explain"))
    if not all(isinstance(section, dict) for section in (pretrain, classify, explain)):
        return values  # settings already, or a mistake that validation names
    if "methods" not in pretrain and (given := _texts(classify.get("arms"))):
        inits = _inits_by_arm(given) | {f"explain.inits: {init}": init for init in _texts(explain.get("inits"))}
        methods_known = {*known, *_texts(list(pretrain.get("variants") or {}))}
        published = set(published_names(values.get("models"))) - methods_known
        known = {*NO_PRETRAINING, *methods_known}
        inits = {where: init for where, init in inits.items() if init not in published}
        if odd := next((where for where, init in inits.items() if init not in known), None):
            inited = sorted(known - set(NO_PRETRAINING))
            raise ValueError(
                f"{odd}: {inits[odd]!r} is no method; known: scratch, imagenet, {', '.join(inited)}, a name below "
                "pretrain.variants, or one of models with weights"
            )
        return values | {"pretrain": pretrain | {"methods": implied_methods(inits.values(), methods)}}
    if "methods" in pretrain and "arms" not in classify:
        if pretrain["methods"] == []:
            raise ValueError(
                "classify.arms: missing, and pretrain.methods is empty; write arms that need no pretraining, such as "
                "[scratch-finetune, imagenet-linear], or [] for none"
            )
        chosen = _texts(pretrain["methods"])
        if chosen and all(map(_is_method_name, chosen)):  # others are left to validation
            return values | {"classify": classify | {"arms": implied_arms(chosen, arms)}}
    return values


def published_names(models: Any) -> list[str]:
    """Return the names of entries with weights of the section `models`, as read from a file.

    They are those whose `ModelSettings.published` is true, and those that lack the file of their layout, which
    `check_published` refuses.
    """
    if not isinstance(models, dict):
        return []
    entries = {name: entry for name, entry in models.items() if isinstance(name, str) and isinstance(entry, dict)}
    return [name for name, entry in entries.items() if entry.get("weights") or entry.get("layout", "auto") != "auto"]


def with_own_backbones(values: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration with `backbones` of variants that continue from published weights: these alone."""
    published, pretrain = published_names(values.get("models")), values.get("pretrain")
    variants = pretrain.get("variants") if isinstance(pretrain, dict) else None
    if not published or not isinstance(variants, dict):
        return values
    own = {
        name: each | {"backbones": [each["init"]]}
        for name, each in variants.items()
        if isinstance(each, dict) and each.get("init") in published and not each.get("backbones")
    }
    if not own or not isinstance(pretrain, dict):
        return values
    return values | {"pretrain": {**pretrain, "variants": {**variants, **own}}}


def implied_methods(inits: Iterable[str], defaults: Sequence[str]) -> list[str]:
    """Return the methods among inits; default ones in the default order, so that equal sets are equal lists."""
    wanted = dict.fromkeys(init for init in inits if init not in NO_PRETRAINING)
    return [name for name in defaults if name in wanted] + [name for name in wanted if name not in defaults]


def implied_arms(methods: Sequence[str], defaults: Sequence[str]) -> list[str]:
    """Return the default arms of these methods and of scratch, and a linear arm of each method without any."""
    kept = [arm for arm in defaults if Arm.parse(arm).init in (*NO_PRETRAINING, *methods)]
    covered = {Arm.parse(arm).init for arm in kept}
    return kept + [f"{method}-linear" for method in dict.fromkeys(methods) if method not in covered]


def _inits_by_arm(arms: list[str]) -> dict[str, str]:
    """Return the init of each arm under its place in the configuration; what is no arm is left to validation."""
    found = {}
    for arm in arms:
        try:
            found[f"classify.arms: {arm}"] = Arm.parse(arm).init
        except ValueError:
            continue
    return found


def _is_method_name(name: str) -> bool:
    try:
        check_method_name(name)
    except ValueError:
        return False
    return True


def _texts(values: Any) -> list[str]:
    return [value for value in values if isinstance(value, str)] if isinstance(values, list | tuple) else []
