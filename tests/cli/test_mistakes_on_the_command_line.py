"""A mistake on the command line is one line and exit code 2."""

from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_commands import RUN, failing


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["pretrainn"], "octdino: error: argument VERB: invalid choice: 'pretrainn'"),
        (["phantom"], "octdino phantom: error: the following arguments are required: --out"),
        (
            ["phantom", "--out", "o", "--patient", "9"],
            "octdino phantom: error: unknown --patient 9; did you mean --patients?",
        ),
        (
            ["phantom", "--out", "o", "--patients", "x"],
            "octdino phantom: error: settings: patients: 'x' is not allowed; ",
        ),
        (
            ["phantom", "--out", "o", "--patients", "1"],
            "octdino phantom: error: settings: patients: '1' is not allowed; ",
        ),
        (["phantom", "--out", "o", "--settings", "{"], "octdino phantom: error: argument --settings: not valid JSON"),
        (
            ["phantom", "--out", "o", "--settings", "no.yaml"],
            "octdino phantom: error: argument --settings: no.yaml: No such",
        ),
        (["phantom", "--out", "o", "--settings", "{a: 1}"], "octdino phantom: error: settings: a: unknown key; "),
        (["phantom", "--out", "o", "--workers", "0"], "octdino phantom: error: argument --workers: '0' is not a whole"),
        (["cohort", "oliven", "--out", "o"], "octdino cohort: error: settings: name: 'oliven' is not allowed; "),
        (["cohort", "phantom", "--out", "o"], "octdino cohort: error: --root: missing; "),
        (["cohort", "olives", "--out", "o"], "octdino cohort: error: settings: root: missing; "),
        (["pretrain", "dinoo", *RUN], "octdino pretrain: error: settings: methods: 'dinoo' is no method; "),
        (
            ["pretrain", "dino", *RUN, "--dino.lr", "0"],
            "octdino pretrain: error: settings: variants.dino: lr: '0' is not",
        ),
        (
            ["pretrain", "dino", *RUN, "--simclr.lr", "1"],
            "octdino pretrain: error: --simclr.*: dino is a variant of dino",
        ),
        (
            ["pretrain", "dino", *RUN, "--fold", "x"],
            "octdino pretrain: error: argument --fold: 'x' is not a whole number",
        ),
        (
            ["classify", "a-linear", *RUN, "--fraction", "2"],
            "octdino classify: error: argument --fraction: 2.0; expected a share from 0.0001 to 1 with",
        ),
        (
            ["evaluate", "--manifest", "m", "--out", "o"],
            "octdino evaluate: error: the following arguments are required: ",
        ),
    ],
)
def test_mistakes_are_one_line(argv: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert failing(capsys, *argv).startswith(line)


@pytest.mark.parametrize("out", ["a.txt", "a.txt/deep", "x" * 300])
def test_an_impossible_out_is_refused_before_the_work(
    stage: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], out: str
) -> None:
    called = stage("octdino.pretrain", "pretrain")
    (tmp_path / "a.txt").touch()
    argv = ["pretrain", "dino", *RUN[:-1], str(tmp_path / out)]
    assert failing(capsys, *argv).startswith(f"octdino pretrain: error: {tmp_path / out}: ")
    assert not called.named


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00", b"a: 2024-99-99", b"[" * 5000, b"a: &x [*x]", b"\0", b"a: [1, 2", b"- 1", b""]
)
def test_settings_that_are_no_mapping_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    path = tmp_path / "settings.yaml"
    path.write_bytes(content)
    line = failing(capsys, "phantom", "--out", "o", "--settings", str(path))
    assert line.startswith("octdino phantom: error: argument --settings: ")


def test_a_few_bytes_of_settings_do_not_become_gigabytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    path = tmp_path / "settings.yaml"
    path.write_text("\n".join(lines))
    assert "more than 100000 values" in failing(capsys, "phantom", "--out", "o", "--settings", str(path))


@pytest.mark.parametrize("store", ["", ".", "a/.."])
def test_a_store_without_a_name(capsys: pytest.CaptureFixture[str], store: str) -> None:
    argv = ["pretrain", "dino", "--store", store, *RUN[2:]]
    assert failing(capsys, *argv).startswith(f"octdino pretrain: error: argument --store: {store!r} is no file")


def test_explain_refuses_impossible_settings(capsys: pytest.CaptureFixture[str]) -> None:
    explain = ["explain", "scratch", *RUN, "--embeddings", "e.h5"]
    assert "attention_masses: each above 0" in failing(capsys, *explain, "--attention-masses", "2")
    assert "attention_mass: '1.5' is not allowed" in failing(capsys, *explain, "--attention-mass", "1.5")
    assert "neighbors: each from 1 to 100,000" in failing(capsys, *explain, "--neighbors", "0")
