"""A mistake in the configuration is one line that names the key; an old key is told its new name."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from octdino.config import Config, load_config
from octdino.config.settings_base import RENAMED
from octdino.errors import UserError
from tests.config.test_config import keys


def model(**args: Any) -> dict[str, Any]:
    return {"models": {"a": {"timm": "resnet18", "args": args}}}


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (
            {"cohort": {"nam": 1}},
            "config.yaml: cohort.nam: unknown key; did you mean name? allowed here: class_column, ",
        ),
        ({"foo": 1}, "config.yaml: foo: unknown key; allowed here: audit, classify, cohort, embed, evaluate"),
        ({"models": {"a": {"args": {}}}}, "config.yaml: models.a.timm: missing; it has no default"),
        (
            {"pretrain": {"variants": {"dino": {"lr": -1}}}},
            "config.yaml: pretrain.variants.dino: lr: -1 is not allowed; ",
        ),
        ({"models": {"a": {"timm": "hf-hub:a/b"}}}, "config.yaml: models.a.timm: 'hf-hub:a/b' is not allowed; "),
        ({"models": {"a": {"timm": "local-dir:/a"}}}, "config.yaml: models.a.timm: 'local-dir:/a' is not allowed; exp"),
        ({"models": {"a": {"timm": "resnet18.a/b"}}}, "config.yaml: models.a.timm: 'resnet18.a/b' is not allowed; exp"),
        (
            {"pretrain": {"backbones": ["hf-hub:a/b"]}},
            "config.yaml: pretrain.backbones: 'hf-hub:a/b' cannot be a folder's name; ",
        ),
        (model(pretrained=True), "config.yaml: models.a.args.pretrained: refused: it does not shape a network"),
        (model(pretrained_cfg={"url": "http://a"}), "config.yaml: models.a.args.pretrained_cfg: refused: "),
        (model(pretrained_anything=1), "config.yaml: models.a.args.pretrained_anything: refused: "),
        (model(checkpoint_path="/etc/passwd"), "config.yaml: models.a.args.checkpoint_path: refused: "),
        (model(cache_dir="/tmp"), "config.yaml: models.a.args.cache_dir: refused: "),
        (model(features_only=True), "config.yaml: models.a.args.features_only: refused: "),
        (model(in_chans=3), "config.yaml: models.a.args.in_chans: refused: set by cohort.image.channels"),
        (model(act_layer={"a": 1}), "config.yaml: models.a.args.act_layer: {'a': 1}; expected a number, text, "),
        (model(channels=[1, [2, {}]]), "config.yaml: models.a.args.channels: [1, [2, {}]]; expected a number, text"),
        (model(drop_rate=float("nan")), "config.yaml: models.a.args.drop_rate: nan; expected a number, text, "),
        ({"cohort": {"image": {"size": [8, 8]}}}, "config.yaml: cohort.image.size: at least 16 pixels each way"),
        (
            {"pretrain": {"batch_size": None}},
            "config.yaml: pretrain.batch_size: None is not allowed; Input should be a valid",
        ),
        (
            {"classify": {"arms": ["scratch-frozen", "dino-linear"]}},
            "config.yaml: classify.arms: 'scratch-frozen' is not {init}-linear or {init}-knn or ",
        ),
        ({"classify": {"fractions": ["x" * 200]}}, "config.yaml: classify.fractions.0: 'xxx"),
        ({"evaluate": 3}, "config.yaml: evaluate: 3 is not allowed"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(values: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as error:
        load_config(values)
    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    ("section", "old", "new"),
    [
        ("pretrain.augment", "blur", "pretrain.augment.blur_p"),
        ("pretrain.augment", "grey", "pretrain.augment.color.gray_p"),
        ("classify.augment", "saturation", "classify.augment.color.saturation_max"),
        ("classify.augment", "rotate", "classify.augment.rotate_degrees"),
        ("pretrain", "accumulate", "pretrain.grad_cache_chunks"),
        ("pretrain", "watch", "pretrain.online_eval_max_scans"),
        ("pretrain", "tensorboard", "pretrain.tracking"),
        ("classify", "penalties", "classify.inverse_regularization"),
        ("classify", "fractions_of", "classify.arm_fractions"),
        ("evaluate", "expand", "evaluate.small_sample_correction"),
        ("explain", "mass", "explain.attention_mass"),
        ("explain", "bank", "explain.retrieval_gallery"),
        ("report", "licence", "report.license"),
    ],
)
def test_an_old_key_is_told_its_new_name(section: str, old: str, new: str) -> None:
    values: dict[str, Any] = {old: 1}
    for part in reversed(section.split(".")):
        values = {part: values}
    assert message(values) == f"config.yaml: {section}.{old}: renamed; write {new}"


def test_an_old_key_of_a_variant_is_told_its_new_name() -> None:
    found = message({"pretrain": {"variants": {"dinov2": {"koleo_neighbours": "all"}}}})
    assert found == "config.yaml: pretrain.variants.dinov2: koleo_neighbours: renamed; write koleo_neighbors"


def test_an_old_key_of_another_section_is_unknown() -> None:
    assert message({"evaluate": {"blur": 1}}).startswith("config.yaml: evaluate.blur: unknown key; allowed here: bcva")


def test_every_new_name_is_a_key() -> None:
    known = {key.split(".")[-1] for key in keys(Config)} | {"koleo_neighbors"}
    assert {new.split(".")[-1] for new in RENAMED.values()} <= known
    assert not set(RENAMED) & known


def message(values: dict[str, Any], allowed: str = "config.yaml: ") -> str:
    """The error for `values`, or `allowed` without one."""
    try:
        load_config(values)
    except UserError as error:
        return str(error)
    return allowed


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 10) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from([*Config.model_fields, "other"]), json_values, max_size=4))
def test_no_value_raises_anything_but_a_user_error(values: dict[str, Any]) -> None:
    assert message(values).startswith("config.yaml: ")


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(keys(Config))), json_values)
def test_no_key_raises_anything_but_a_user_error(key: str, value: Any) -> None:
    nested = value
    for part in reversed(key.split(".")):
        nested = {part: nested}
    assert key.split(".")[0] in message(nested, allowed=key)


@pytest.mark.parametrize("title", ["", ".", "..", "a/b", "../a", "-a", ".a", "a b", "ä", "a\n", "a\\b", "x" * 101])
def test_a_title_is_one_safe_folder_name(title: str) -> None:
    with pytest.raises(UserError, match=r"cohort\.title: .* is no folder name; expected 1 to 100 letters"):
        load_config({"cohort": {"title": title}})


def test_a_title_is_no_other_kinds_name() -> None:
    assert load_config({"cohort": {"name": "phantom", "title": "phantom"}}).cohort.results_name == "phantom"
    with pytest.raises(UserError, match=r"cohort\.title: 'olives' is the name of another kind of cohort"):
        load_config({"cohort": {"name": "phantom", "title": "olives"}})
