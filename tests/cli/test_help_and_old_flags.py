"""`--help` and `schema` print the settings with their defaults; an old flag is told its new name."""

import os
import resource
import subprocess
import sys
from typing import Any

import pytest
import yaml

from octdino import cli
from octdino.cli.entry import build_parser
from octdino.cli.flags import MARK, _written
from tests.cli.test_commands import ROOT, RUN, failing


@pytest.mark.parametrize("verb", [[], *([verb] for verb in cli.VERBS)])
def test_help_is_quick_and_complete(verb: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([*verb, "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert "MISSING" not in text
    assert "PydanticUndefined" not in text
    if verb == ["classify"]:
        assert "default: 0.6 1.0" in " ".join(text.split())  # the section's own default, not the class's


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (
            ["pretrain", "dino", *RUN, "--augment.blur", "0"],
            "pretrain: error: --augment.blur: renamed; write --augment.blur-p",
        ),
        (
            ["pretrain", "dino", *RUN, "--accumulate=2"],
            "pretrain: error: --accumulate: renamed; write --grad-cache-chunks",
        ),
        (
            ["pretrain", "dino", *RUN, "--tensorboard"],
            "pretrain: error: --tensorboard: renamed; write --tracking",
        ),
        (
            ["pretrain", "dinov2", *RUN, "--dinov2.koleo-neighbours", "all"],
            "pretrain: error: --dinov2.koleo-neighbours: renamed; write --dinov2.koleo-neighbors",
        ),
        (
            ["classify", "dino-linear", *RUN, "--penalties", "1", "10"],
            "classify: error: --penalties: renamed; write --inverse-regularization",
        ),
        (
            ["classify", "dino-finetune", *RUN, "--augment.grey", "0.2"],
            "classify: error: --augment.grey: renamed; write --augment.color.gray-p",
        ),
        (
            ["evaluate", "a", "--manifest", "m", "--out", "o", "--no-expand"],
            "evaluate: error: --no-expand: renamed; write --no-small-sample-correction",
        ),
        (
            ["classify", "dino-linear", *RUN, "--settings", "{penalties: [1]}"],
            "classify: error: settings: penalties: renamed; write inverse_regularization",
        ),
        (
            ["classify", "dino-finetune", *RUN, "--settings", "{augment: {blur: 0}}"],
            "classify: error: settings: augment.blur: renamed; write augment.blur_p",
        ),
    ],
)
def test_an_old_flag_is_told_its_new_name(argv: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert failing(capsys, *argv).removesuffix(f"; see octdino {argv[0]} --help") == f"octdino {line}"


@pytest.mark.parametrize(
    ("verb", "section"),
    [
        ("phantom", "cohort.phantom"),
        ("cohort", "cohort"),
        ("pretrain", "pretrain"),
        ("classify", "classify"),
        ("evaluate", "evaluate"),
        ("audit", "audit"),
        ("explain", "explain"),
        ("report", "report"),
    ],
)
def test_help_has_the_defaults_of_default_yaml(verb: str, section: str) -> None:
    values: Any = yaml.safe_load((ROOT / "config/default.yaml").read_text())
    for part in section.split("."):
        values = values[part]
    parser = build_parser()._subparsers._group_actions[0].choices[verb]
    helps = {action.dest.removeprefix(MARK): action.help for action in parser._actions if action.dest.startswith(MARK)}
    compared = 0
    for key, text in helps.items():
        value, found = values, True
        for part in key.split("."):
            found = found and isinstance(value, dict) and part in value
            value = value[part] if found else None
        if found:
            assert text is not None
            assert text.replace("%%", "%").endswith(f"(default: {_written(value)})"), key
            compared += 1
    assert compared


def test_schema_prints_both_generated_files(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["schema", "--defaults"]) == 0
    assert capsys.readouterr().out == (ROOT / "config/default.yaml").read_text()
    assert cli.main(["schema"]) == 0
    assert capsys.readouterr().out == (ROOT / "workflow/schemas/config.schema.json").read_text()


def test_help_from_a_shell_takes_less_than_two_seconds() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    done = subprocess.run([sys.executable, "-m", "octdino.cli", "--help"], env=env, capture_output=True, text=True)
    assert done.returncode == 0
    # Processor time, so that a busy machine changes nothing.
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 2
