"""Settings that cannot go together are refused with one line; arms and methods follow from each other."""

from typing import Any

import pytest

from octdino.config import load_config
from octdino.errors import UserError

VIT = {"vit": {"timm": "vit_tiny_patch16_224", "args": {"patch_size": 8}}}
EYES = {"methods": ["simclr"], "variants": {"simclr": {"positives": "eye"}}}
ARMS = {"arms": ["scratch-finetune", "dino-linear"]}


def refused(values: dict[str, Any]) -> str:
    with pytest.raises(UserError) as error:
        load_config(values)
    assert "\n" not in str(error.value)
    return str(error.value).removeprefix("config.yaml: ")


def methods_and_arms(values: dict[str, Any]) -> tuple[list[str], list[str]]:
    settings = load_config(values)
    return settings.pretrain.methods, settings.classify.arms


def test_arms_alone_say_what_is_pretrained() -> None:
    arms = ["scratch-finetune", "byol-linear", "simclr-knn", "dino-linear"]
    assert methods_and_arms({"classify": {"arms": arms}})[0] == ["dino", "simclr", "byol"]  # default ones first
    assert methods_and_arms({"classify": {"arms": ["scratch-finetune", "imagenet-linear"]}})[0] == []
    explained = {"classify": ARMS, "explain": {"inits": ["scratch", "moco"]}}
    assert methods_and_arms(explained)[0] == ["dino", "moco"]


def test_methods_alone_say_which_arms_are_compared() -> None:
    assert methods_and_arms({"pretrain": {"methods": ["dino"]}})[1] == [
        "scratch-finetune",
        "dino-linear",
        "dino-finetune",
    ]
    assert methods_and_arms({"pretrain": {"methods": ["byol"]}})[1] == ["scratch-finetune", "byol-linear"]
    variants = {"methods": ["own"], "variants": {"own": {"method": "simclr"}}}
    assert methods_and_arms({"pretrain": variants})[1] == ["scratch-finetune", "own-linear"]


def test_without_both_and_with_both_nothing_is_added() -> None:
    methods, arms = methods_and_arms({})
    assert methods_and_arms({"pretrain": {"methods": methods}})[1] == arms
    assert methods_and_arms({"classify": {"arms": arms}})[0] == methods
    assert methods_and_arms({"classify": {"arms": []}}) == (methods, [])
    both = {"pretrain": {"methods": ["dino", "byol"]}, "classify": ARMS}
    assert methods_and_arms(both) == (["dino", "byol"], ARMS["arms"])


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (
            {"pretrain": {"methods": ["dino"]}, "classify": {"arms": ["scratch-finetune", "byol-linear"]}},
            "classify.arms: byol-linear: byol not among pretrain.methods ['dino']; add it there, or leave one of the "
            "two lists out: it then follows from the other",
        ),
        (
            {"classify": {"arms": ["scratch-finetune", "bjol-linear"]}},
            "classify.arms: bjol-linear: 'bjol' is no method; known: scratch, imagenet, byol, dino, ",
        ),
        (
            {"pretrain": {"methods": []}},
            "classify.arms: missing, and pretrain.methods is empty; write arms that need no pretraining, such as "
            "[scratch-finetune, imagenet-linear], or [] for none",
        ),
        (
            {"models": {"a": {"timm": "resnet81"}}},
            "models.a: 'resnet81' is no timm model; similar: resnet18, resnet61q, resnet51q",
        ),
        (
            {"models": {"a": {"timm": "resnet18", "args": {"chanels": [8]}}}},
            "models.a: args.chanels: timm's resnet18 takes no such argument; similar: channels",
        ),
        (
            {"pretrain": {"methods": ["dinov2"]}},
            "pretrain.methods: dinov2 masks patches and needs vision transformers (vit_*), and resnet18 is none; name "
            "those that it may train in pretrain.variants.dinov2.backbones",
        ),
        (
            {"cohort": {"name": "octdl", "root": "x"}},
            "pretrain.methods: supcon_cst needs cst (retinal thickness); the cohort octdl has none; leave supcon_cst "
            "out of pretrain.methods and its arms (supcon_cst-linear) out of classify.arms",
        ),
        (
            {"cohort": {"name": "octdl", "root": "x"}, "pretrain": EYES},
            "pretrain.methods: simclr needs visit (the visit of each scan); the cohort octdl has none; leave simclr "
            "out of pretrain.methods",
        ),
        (
            {"cohort": {"name": "oct2017", "root": "x"}, "pretrain": EYES},
            "pretrain.methods: simclr needs eye (the eye of each scan) and visit (the visit of each scan); the cohort "
            "oct2017 has none",
        ),
        (
            {"pretrain": {"methods": ["simclr"], "variants": {"simclr": {"positives_weeks": 4}}}},
            "pretrain.variants.simclr: positives_weeks: it limits the visits of an eye; expected eye among positives",
        ),
        (
            {"models": VIT, "pretrain": {"backbones": ["vit"], "augment": {"global_size": 100}}},
            "pretrain.augment.global_size: 100 px; vit takes multiples of 8, such as 96 or 104",
        ),
        (
            {"models": VIT, "pretrain": {"backbones": ["vit"], "augment": {"local_size": 44}}},
            "pretrain.augment.local_size: 44 px; vit takes multiples of 8, such as 40 or 48",
        ),
        (
            {"models": VIT, "pretrain": {"backbones": ["vit"]}, "classify": {"augment": {"global_size": 99}}},
            "classify.augment.global_size: 99 px; vit takes multiples of 8, such as 96 or 104",
        ),
        (
            {"models": VIT, "pretrain": {"backbones": ["vit"]}, "embed": {"size": 50}},
            "embed.size: 50 px; vit takes multiples of 8, such as 48 or 56",
        ),
        (
            {"cohort": {"phantom": {"patients": 8}, "split": {"protocol": "crossval", "folds": 8}}},
            "cohort.phantom.patients: 8; expected 10 or more for cohort.split.folds 8",
        ),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(values: dict[str, Any], line: str) -> None:
    assert refused(values).startswith(line)


def test_sizes_of_networks_without_patches_are_free() -> None:
    load_config({"pretrain": {"augment": {"global_size": 97}}, "classify": {"augment": {"global_size": 101}}})
