"""The settings: one definition, clear errors, a schema and an environment in step with it."""

import ast
import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from octdino.config import ClassifySettings, CohortSettings, Config, PretrainSettings, Settings, load_config
from octdino.errors import UserError

ROOT = Path(__file__).parents[2]


def keys(cls: type[Settings], above: str = "") -> list[str]:
    """All dotted keys of a settings class."""
    found = []
    for name, field in cls.model_fields.items():
        found.append(above + name)
        if isinstance(field.default, Settings):
            found += keys(type(field.default), f"{above}{name}.")
    return found


def leaves(values: dict[str, Any], above: str = "") -> list[str]:
    """All dotted keys of a mapping."""
    inner = [leaves(v, f"{above}{k}.") for k, v in values.items() if isinstance(v, dict)]
    return [above + k for k in values] + [key for found in inner for key in found]


def test_config_yaml_names_every_key_and_says_what_it_means() -> None:
    text = (ROOT / "config.yaml").read_text()
    expected = {key for key in keys(Config) if not re.match(r"classify\.augment\.local_", key)}
    assert expected <= set(leaves(yaml.safe_load(text)))
    for line in text.splitlines():
        if re.match(r" *[a-z_]+:", line) and line.strip() not in ("arms:",):
            assert "# " in line or line.startswith("  title:"), f"no comment: {line}"


def test_the_schema_is_current() -> None:
    schema = json.loads((ROOT / "workflow/schemas/config.schema.json").read_text())
    assert {k: v for k, v in schema.items() if k != "$schema"} == Config.model_json_schema(), "run `make schema`"


def test_the_conda_environment_is_in_step_with_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    here = {"torch": "pytorch"}  # conda-forge's name
    wanted = {re.sub(r"^torch(?=>)", here["torch"], needed) for needed in project["dependencies"]}
    wanted = {needed for needed in wanted if not needed.startswith("snakemake")}  # it runs outside of the jobs
    found = set(yaml.safe_load((ROOT / "envs/octdino.yaml").read_text())["dependencies"])
    assert found - wanted == {f"python{project['requires-python']}", "pip", "setuptools>=77"}
    assert wanted <= found


def test_the_environment_of_evaluate_and_report_has_what_they_import() -> None:
    every, found = (set(yaml.safe_load((ROOT / f"envs/{name}.yaml").read_text())["dependencies"])
                    for name in ("octdino", "tables"))  # fmt: skip
    assert found < every
    names = {
        "yaml": "pyyaml",
        "sklearn": "scikit-learn",
        "PIL": "pillow",
        "markupsafe": "jinja2",
        "pydantic_core": "pydantic",
    }
    tops = third_party("octdino.cli", "octdino.evaluate.evaluation", "octdino.report.write_page")
    assert {names.get(top, top) for top in tops} <= {each.split(">")[0] for each in found}


def third_party(*modules: str) -> set[str]:
    """Top-level packages that modules of octdino import anywhere, whatever they import of octdino included.

    What the command line imports when a verb runs belongs to that verb.
    """
    found, seen, waiting = set(), set(), list(modules)
    while waiting:
        name = waiting.pop()
        path = ROOT / Path(*name.split("."))
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if path in seen or not path.is_file():
            continue
        seen.add(path)
        tree = ast.parse(path.read_text())
        for node in tree.body if name == "octdino.cli.commands" else ast.walk(tree):
            if isinstance(node, ast.Import):
                imported = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            else:
                continue
            waiting += [each for each in imported if each.startswith("octdino")]
            found |= {each.split(".")[0] for each in imported if not each.startswith("octdino")}
    return found - sys.stdlib_module_names


def test_a_section_given_in_part_keeps_its_own_defaults() -> None:
    found = load_config({"classify": {"augment": {"global_size": 64}}, "evaluate": None})
    assert found.classify.augment.global_scale == ClassifySettings().augment.global_scale != (0.4, 1.0)
    assert found.classify.augment.global_size == 64


def model(**args: Any) -> dict[str, Any]:
    return {"models": {"a": {"timm": "resnet18", "args": args}}}


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"cohort": {"nam": 1}}, "config.yaml: cohort.nam: unknown key; did you mean name? allowed here: clinical, "),
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
        (model(in_chans=3), "config.yaml: models.a.args.in_chans: refused: cohort.image.channels says it"),
        (model(act_layer={"a": 1}), "config.yaml: models.a.args.act_layer: {'a': 1}; expected a number, a text, "),
        (model(channels=[1, [2, {}]]), "config.yaml: models.a.args.channels: [1, [2, {}]]; expected a number, a text"),
        (model(drop_rate=float("nan")), "config.yaml: models.a.args.drop_rate: nan; expected a number, a text, "),
        ({"cohort": {"image": {"size": [8, 8]}}}, "config.yaml: cohort.image.size: at least 16 pixels each way"),
        ({"pretrain": {"epochs": None}}, "config.yaml: pretrain.epochs: None is not allowed; Input should be a valid"),
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


def message(values: dict[str, Any], allowed: str = "config.yaml: ") -> str:
    """What is said about `values`; `allowed` where they are."""
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


def test_what_a_run_needs_is_complete_and_no_more() -> None:
    found = PretrainSettings(epochs=7, seeds=[1, 2], checkpoint_seconds=1)
    again = PretrainSettings.parse(found.needed("supcon_cst"), "params")
    assert again.variant("supcon_cst") == found.variant("supcon_cst")
    assert (again.methods, again.epochs, again.augment) == (["supcon_cst"], 7, found.augment)
    assert not {"seeds", "backbones", "scope", "checkpoint_seconds"} & set(found.needed("dino"))
    arms = ClassifySettings(inverse_regularization=[1.0], lr=0.5)
    assert ClassifySettings.parse(arms.needed("dino-linear"), "params").inverse_regularization == [1.0]
    assert "lr" not in arms.needed("dino-linear")
    assert "inverse_regularization" not in arms.needed("dino-finetune")
    assert ClassifySettings.parse(arms.needed("dino-finetune"), "params").augment == arms.augment


def test_settings_do_not_change() -> None:
    found = load_config({})
    with pytest.raises(ValueError, match="frozen"):
        found.evaluate.resamples = 3


@pytest.mark.parametrize("title", ["clinic-a", "A_1.2", "_", "7", "x" * 100])
def test_a_title_becomes_the_cohort_in_results(title: str) -> None:
    assert CohortSettings(name="phantom", title=title).results_name == title
    assert CohortSettings(name="phantom").results_name == "phantom"


@pytest.mark.parametrize("title", ["", ".", "..", "a/b", "../a", "-a", ".a", "a b", "ä", "a\n", "a\\b", "x" * 101])
def test_a_title_is_one_safe_folder_name(title: str) -> None:
    with pytest.raises(UserError, match=r"cohort\.title: .* is no folder name; expected 1 to 100 letters"):
        load_config({"cohort": {"title": title}})


def test_a_title_is_no_other_kinds_name() -> None:
    assert load_config({"cohort": {"name": "phantom", "title": "phantom"}}).cohort.results_name == "phantom"
    with pytest.raises(UserError, match=r"cohort\.title: 'olives' is the name of another kind of cohort"):
        load_config({"cohort": {"name": "phantom", "title": "olives"}})
