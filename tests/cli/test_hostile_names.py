"""Names and numbers of the configuration that become parts of paths: each mistake is one line before any job starts."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octdino import cli
from octdino.config import ClassifySettings, fraction_text, load_config
from octdino.config.names import BACKBONE_NAME, FRACTION_TEXT, METHOD_NAME, check_backbone_name, check_fraction
from octdino.errors import UserError

NO_FOLDERS = [
    "", ".", "..", "a/b", "/a", "{x}", "{", "-a", ".a", " a", "a b", "a\tb", "a\n", "a*", "a?", "~", "$HOME", "a;b",
    "a:b", 'a"b', "a'b", "a\\b", "=1+1", "+a", "@a", "é", "a" * 81, "a" * 5000,
]  # fmt: skip
NO_METHODS = [*NO_FOLDERS, "a-b", "a.b"]
RUN = ["--store", "s.h5", "--backbone", "resnet18", "--out", "o"]


def nested(key: str, value: Any) -> dict[str, Any]:
    """The configuration with `value` at a dotted key."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def mistake(key: str, value: Any) -> str:
    """The error for `value` at `key`: one line with the key."""
    with pytest.raises(UserError) as error:
        load_config(nested(key, value))
    line = str(error.value)
    assert line.startswith(f"config.yaml: {key}"), line
    assert "\n" not in line
    assert len(line) < 300
    return line


@pytest.mark.parametrize("name", NO_FOLDERS)
def test_a_backbone_that_cannot_be_a_folder_is_refused(name: str) -> None:
    assert "cannot be a folder's name; expected 1 to 80 characters of A-Z" in mistake("pretrain.backbones", [name])
    assert "cannot be a folder's name; expected 1 to 80 characters of A-Z" in mistake("models", {name: {"timm": "vit"}})


@pytest.mark.parametrize("name", NO_METHODS)
def test_a_method_that_cannot_be_a_folder_is_refused(name: str) -> None:
    assert "cannot be a folder's name; expected" in mistake("pretrain.methods", [name])
    assert "cannot be a folder's name; expected" in mistake("pretrain.variants", {name: {"method": "dino"}})
    assert "cannot be a folder's name; expected" in mistake("explain.inits", [name])
    assert "is not {init}-linear or {init}-" in mistake("classify.arms", ["scratch-finetune", f"{name}-linear"])


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("pretrain.backbones", ["resnet18", "resnet18"], "'resnet18' is given 2 times; expected each once"),
        ("pretrain.methods", ["dino", "dino"], "'dino' is given 2 times; expected each once"),
        ("pretrain.seeds", [0, 1, 0, 0], "0 is given 3 times; expected each once"),
        ("pretrain.seeds", [-1], "-1; expected whole numbers from 0 to 4294967295"),
        ("pretrain.seeds", [10**30], "1000000000000000000000000000000; expected whole numbers from 0 to 4294967295"),
        ("classify.seeds", [2, 2], "2 is given 2 times"),
        ("classify.seeds", [-3], "-3; expected whole numbers from 0"),
        ("explain.seeds", [0, 0], "0 is given 2 times"),
        ("cohort.split.seed", 2**32, "4294967296 is not allowed"),
        ("classify.arms", ["scratch-linear", "scratch-linear"], "'scratch-linear' is given 2 times"),
        ("classify.arms", ["scratch-linear", "scratch-linear\n"], "'scratch-linear\\n' is not {init}-linear"),
        ("explain.inits", ["dino", "dino"], "'dino' is given 2 times"),
        ("explain.arms", ["dino-linear", "dino-linear"], "'dino-linear' is given 2 times"),
        ("classify.fractions", [1e-9, 1], "1e-09; expected a share from 0.0001 to 1 with at most 6 decimals"),
        ("classify.fractions", [1e-05], "1e-05; expected a share"),
        ("classify.fractions", [0.1, 0.30000000000000004], "0.30000000000000004; expected a share"),
        ("classify.fractions", [1.0000001], "1.0000001; expected a share"),
        ("classify.fractions", [-0.5], "-0.5; expected a share"),
        ("classify.fractions", [0], "0.0; expected a share"),
        ("classify.fractions", [float("nan")], "nan is not allowed"),
        ("classify.fractions", [float("inf")], "inf is not allowed"),
        ("classify.fractions", [0.1, 0.10], "0.1 is given 2 times; expected each once"),
        ("classify.arm_fractions", {"dino-linear": []}, "empty; expected at least one fraction"),
        ("classify.arm_fractions", {"dino-linear": [1, 1.0]}, "1.0 is given 2 times"),
        ("classify.arm_fractions", {"dino-linear": [1e-7]}, "1e-07; expected a share"),
        ("pretrain.variants", {"imagenet": {"method": "dino"}}, "'imagenet' is the name of an init"),
        ("pretrain.variants", {"dino": {"backbones": ["resnet18", "resnet18"]}}, "'resnet18' is given 2 times"),
        ("pretrain.variants", {"dino": {"init": "runs/{x}"}}, "the placeholders are {backbone}, {fold} and"),
        ("pretrain.variants", {"dino": {"init": "{seed[a]}"}}, "the placeholders are {backbone}, {fold} and"),
        ("pretrain.variants", {"dino": {"init": "runs/{{x}}"}}, "the placeholders are"),
        ("pretrain.variants", {"dino": {"init": "{seed.real}"}}, "the placeholders are"),
    ],
)
def test_other_names_and_numbers_of_paths(key: str, value: Any, said: str) -> None:
    assert said in mistake(key, value)


@pytest.mark.parametrize(
    ("fraction", "text"),
    [(1, "1"), (1.0, "1"), (0.10, "0.1"), (0.05, "0.05"), (0.0001, "0.0001"), (0.000125, "0.000125"), (1 / 3, None)],
)
def test_a_fraction_has_one_text(fraction: float, text: str | None) -> None:
    if text is None:
        with pytest.raises(ValueError, match="at most 6 decimals"):
            check_fraction(fraction)
    else:
        assert fraction_text(check_fraction(fraction)) == text


@given(st.integers(100, 10**6))
def test_the_text_of_a_fraction_is_its_value_and_fits_the_wildcard(millionths: int) -> None:
    fraction = check_fraction(float(f"{millionths}e-6"))
    assert re.fullmatch(FRACTION_TEXT, fraction_text(fraction))
    assert float(fraction_text(fraction)) == fraction


@pytest.mark.parametrize("text", ["0.10", "1.0", "01", "1e-05", "0", ".5", "0.", "0.00000001"])
def test_another_text_of_a_fraction_does_not_fit_the_wildcard(text: str) -> None:
    assert not re.fullmatch(FRACTION_TEXT, text)


@pytest.mark.parametrize(
    "name", ["resnet18", "vit_small_patch14_dinov2.lvd142m", "resnet50.a1_in1k", "tiny", "ResNet-18", "1", "a" * 80]
)
def test_names_that_people_use_pass(name: str) -> None:
    assert check_backbone_name(name) == name
    assert re.fullmatch(BACKBONE_NAME, name)
    assert re.fullmatch(METHOD_NAME, "dino+augment_2")
    load_config({"pretrain": {"backbones": [name]}, "models": {name: {"timm": "vit_tiny_patch16_224"}}})
    assert ClassifySettings(arms=["dino+augment_2-linear", "scratch-knn"]).arms


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["pretrain", "dino", *RUN, "--backbone", "a/b"], "argument --backbone: 'a/b' cannot be a folder's name"),
        (["pretrain", "{x}", *RUN], "settings: methods: '{x}' cannot be a folder's name"),
        (["pretrain", "dino", *RUN, "--seed", "4294967296"], "argument --seed: 4294967296; expected whole numbers"),
        (["pretrain", "dino", *RUN, "--seed", "9" * 5000], "argument --seed: '999"),
        (["pretrain", "dino", *RUN, "--seed", "-1"], "argument --seed: "),
        (["classify", "..-linear", *RUN], "argument ARM: '..-linear' is not {init}-linear"),
        (["classify", "dino-linear\n", *RUN], "argument ARM: 'dino-linear\\n' is not {init}-linear"),
        (["classify", "dino-linear", *RUN, "--fraction", "1e-9"], "argument --fraction: 1e-09; expected a share"),
        (["classify", "dino-linear", *RUN, "--fraction", "x"], "argument --fraction: could not convert"),
        (["clinical", "--store", "s", "--out", "o", "--fraction", "nan"], "argument --fraction: nan; expected a share"),
        (["explain", "../x", *RUN], "argument INIT: '../x' cannot be a folder's name"),
    ],
)
def test_by_hand_the_same_is_one_line(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = cli.main(argv)
    except SystemExit as end:  # argparse's way
        code = int(str(end.code))
    line = capsys.readouterr().err
    assert code == 2
    assert line.startswith(f"octdino {argv[0]}: error: {said}"), line
    assert line.count("\n") == 1
    assert len(line) < 400
