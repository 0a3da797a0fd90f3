"""Settings classes: defaults, inheritance, errors, renamed keys; the generated files and the environments match."""

import ast
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from octdino.config import METHODS, ClassifySettings, CohortSettings, Config, PretrainSettings, Settings, load_config
from octdino.config.defaults import default_yaml
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


def leaf_values(values: dict[str, Any], above: str = "") -> dict[str, Any]:
    """The values of a mapping that are no mappings, by dotted key."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= leaf_values(value, f"{above}{key}.") if isinstance(value, dict) and value else {above + key: value}
    return found


def leaves(values: dict[str, Any], above: str = "") -> list[str]:
    """All dotted keys of a mapping, but those below `variants`."""
    found = []
    for key, value in values.items():
        found += [above + key]
        found += leaves(value, f"{above}{key}.") if isinstance(value, dict) and key != "variants" else []
    return found


def without_meaning(cls: type[Settings]) -> Iterator[str]:
    """Keys of a settings class that have no description."""
    for name, field in cls.model_fields.items():
        if isinstance(field.default, Settings):
            yield from without_meaning(type(field.default))
        elif not field.description and name != "method":
            yield name


def test_default_yaml_is_generated_and_equals_the_built_in_defaults() -> None:
    text = (ROOT / "config/default.yaml").read_text()
    assert text == default_yaml(), "run `make schema`"
    assert load_config(yaml.safe_load(text)) == load_config({}) == Config()


def test_default_yaml_has_every_key_in_order_with_its_meaning() -> None:
    text = (ROOT / "config/default.yaml").read_text()
    inherited = re.compile(r"classify\.augment\.(?!global_scale)")
    assert leaves(yaml.safe_load(text)) == [key for key in keys(Config) if not inherited.match(key)]
    assert max(map(len, text.splitlines())) <= 120
    for cls in (Config, *METHODS.values()):
        assert not list(without_meaning(cls)), cls
    assert "#   koleo_neighbors: other_eyes" in text, "the keys of methods, too"


@pytest.mark.parametrize("path", sorted(ROOT.glob("config/*.yaml")), ids=lambda path: path.stem)
def test_a_preset_holds_only_what_differs_from_the_defaults(path: Path) -> None:
    """A default may be repeated below `variants` and `models`, and where a preset would read as incomplete."""
    if path.name == "default.yaml":
        return
    defaults = leaf_values(Config().model_dump(mode="json"))
    given = leaf_values(yaml.safe_load(path.read_text()))
    kept = {key for key in given if re.match(r"pretrain\.(variants|scope$|backbones$)|models", key)}
    kept |= {key for key in given if key.replace("classify", "pretrain") in given}  # else inherited
    assert not {key for key in given.keys() - kept if key in defaults and given[key] == defaults[key]}


def test_classify_augment_inherits_from_pretrain_augment() -> None:
    views = {"global_size": 64, "local_size": 32, "local_views": 8, "global_scale": [0.2, 1.0], "flip_p": 0.0}
    color = {"saturation_max": 0.4, "hue_max": 0.1, "gray_p": 0.2}
    own = {"rotate_degrees": 3.0, "color": {"gray_p": 0.0}}
    found = load_config({"pretrain": {"augment": {**views, "color": color}}, "classify": {"augment": own}})
    augment = found.classify.augment
    assert (augment.global_size, augment.flip_p, augment.rotate_degrees) == (64, 0.0, 3.0)
    assert augment.color.model_dump() == {**color, "gray_p": 0.0}
    assert augment.global_scale == (0.6, 1.0), "its own default"
    assert augment.local_views == 0, "no small views"
    assert load_config(found.model_dump(mode="json")) == found


def test_what_classify_augment_inherits_is_wrong_once() -> None:
    with pytest.raises(UserError) as error:
        load_config({"pretrain": {"augment": {"flip_p": 7}}})
    assert str(error.value).count("flip_p") == 1


def test_the_variants_of_the_defaults_can_be_changed_in_part() -> None:
    found = load_config({"pretrain": {"variants": {"supcon_cst": {"lr": 0.5}, "dino": {"lr": 0.1}}}})
    variant = found.pretrain.variant("supcon_cst")
    assert (variant.method, variant.lr) == ("supcon", 0.5)


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
        "pydantic_core": "pydantic",
    }
    tops = third_party("octdino.cli", "octdino.evaluate.evaluation", "octdino.report.write_page")
    assert {names.get(top, top) for top in tops} <= {each.split(">")[0] for each in found}


def third_party(*modules: str) -> set[str]:
    """Top-level packages that modules of octdino import anywhere, also through other modules of octdino.

    What the command line imports when a verb runs belongs to that verb, and what octdino.load imports to its caller.
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
        lazy = name == "octdino" or name.startswith("octdino.cli")
        for node in tree.body if lazy else ast.walk(tree):
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


def test_what_a_run_needs_is_complete_and_no_more() -> None:
    found = PretrainSettings(epochs=7, seeds=[1, 2], checkpoint_seconds=1)
    again = PretrainSettings.parse(found.needed("supcon_cst"), "params")
    assert again.variant("supcon_cst") == found.variant("supcon_cst")
    assert (again.methods, again.epochs, again.augment) == (["supcon_cst"], 7, found.augment)
    assert not {"seeds", "backbones", "scope", "checkpoint_seconds"} & set(found.needed("dino"))
    arms = ClassifySettings(inverse_regularization=[1.0], lr=0.5)
    assert ClassifySettings.parse(arms.needed("dino-linear"), "params").inverse_regularization == [1.0]
    assert "lr" not in arms.needed("dino-linear")
    # the linear probe is the first head on pretrained weights
    assert "inverse_regularization" in arms.needed("dino-finetune")
    assert not {"inverse_regularization", "first_head", "backbone_lr", "layer_decay"} & set(
        arms.needed("scratch-finetune")
    )
    random_head = arms.model_copy(update={"first_head": "random"})
    assert "inverse_regularization" not in random_head.needed("dino-finetune")
    assert arms.lr == [0.5]
    assert ClassifySettings.parse(arms.needed("dino-finetune"), "params").augment == arms.augment


def test_settings_do_not_change() -> None:
    found = load_config({})
    with pytest.raises(ValueError, match="frozen"):
        found.evaluate.resamples = 3


@pytest.mark.parametrize("title", ["clinic-a", "A_1.2", "_", "7", "x" * 100])
def test_a_title_becomes_the_cohort_in_results(title: str) -> None:
    assert CohortSettings(name="phantom", title=title).results_name == title
    assert CohortSettings(name="phantom").results_name == "phantom"


@pytest.mark.parametrize(
    ("epochs", "scans", "expected"),
    [(None, 1_000, 200), (None, 1_684, 119), (None, 2_000, 100), (None, 78_000, 100), (7, 10, 7)],
)
def test_short_cohorts_are_passed_more_often(epochs: int | None, scans: int, expected: int) -> None:
    """At least 100 epochs and 200,000 scans, where the number of epochs is not given."""
    assert PretrainSettings(epochs=epochs).at_size(scans).length == expected
