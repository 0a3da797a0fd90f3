"""The command line: flags are generated from the settings, mistakes are one line, each verb calls its stage."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from octdino import cli
from octdino.cli.entry import build_parser
from octdino.cli.flags import MARK, _written
from octdino.config import ClassifySettings, CohortSettings, EmbedSettings, PhantomSettings
from octdino.errors import StoppedEarly, UserError

ROOT = Path(__file__).parents[2]
RUN = ["--store", "s.h5", "--backbone", "resnet18", "--out", "out"]


class Called:
    """A mock of a stage's function that records its arguments."""

    def __init__(self, raises: BaseException | None = None) -> None:
        self.args: tuple[Any, ...] = ()
        self.named: dict[str, Any] = {}
        self.raises = raises

    def __call__(self, *args: Any, **named: Any) -> None:
        self.args, self.named = args, named
        if self.raises:
            raise self.raises


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Replace a stage's function: `stage("octdino.pretrain", "pretrain")`."""

    def replace(module: str, name: str, raises: BaseException | None = None) -> Called:
        called = Called(raises)
        stand_in = type(sys)(module)
        setattr(stand_in, name, called)
        monkeypatch.setitem(sys.modules, module, stand_in)
        return called

    return replace


def failing(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Run a command that must exit with code 2; return the one line that it prints."""
    try:
        code = cli.main(list(argv))
    except SystemExit as end:
        code = end.code  # type: ignore[assignment]
    assert code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_phantom(stage: Any) -> None:
    called = stage("octdino.phantom", "write_phantom")
    argv = ["phantom", "--out", "files", "--patients", "12", "--no-flaws", "--difficulty", "0.25", "--workers", "3"]
    assert cli.main(argv) == 0
    assert called.args == (PhantomSettings(patients=12, flaws=False, difficulty=0.25), Path("files"), 3)


def test_cohort(stage: Any) -> None:
    called = stage("octdino.cohort.ingest", "build_cohort")
    flags = [
        "--image.size",
        "96",
        "128",
        "--image.percentiles",
        "1",
        "99",
        "--labels",
        "IRF",
        "SRF",
        "--image.channels",
        "3",
    ]
    assert cli.main(["cohort", "folder", "--root", "data", "--out", "out", *flags, "--split.val", "0.2"]) == 0
    settings = called.args[0]
    assert settings == CohortSettings.model_validate(
        {
            "name": "folder",
            "root": "data",
            "labels": ["IRF", "SRF"],
            "image": {"size": [96, 128], "percentiles": [1, 99], "channels": 3},
            "split": {"val": 0.2},
        }
    )


def test_flags_win_over_settings_and_null_is_nothing(stage: Any) -> None:
    called = stage("octdino.cohort.ingest", "build_cohort")
    given = '{"image": {"size": [32, 32], "percentiles": [1, 99]}, "root": "data"}'
    argv = ["cohort", "folder", "--out", "out", "--settings", given, "--image.percentiles", "null", "--labels", "null"]
    assert cli.main(argv) == 0
    assert called.args[0].image.size == (32, 32)
    assert called.args[0].image.percentiles is None
    assert called.args[0].labels is None


def test_settings_from_a_file(stage: Any, tmp_path: Path) -> None:
    called = stage("octdino.report", "write_report")
    path = tmp_path / "report.yaml"
    path.write_text(yaml.safe_dump({"title": "Ours", "examples": 2}))
    argv = ["report", "--results", "results/x", "--out", "page.html", "--settings", str(path), "--examples", "3"]
    assert cli.main([*argv, "--config", '{"cohort": {"name": "x"}}']) == 0
    assert (called.args[0].title, called.args[0].examples) == ("Ours", 3)
    assert called.args[1:] == (Path("results/x"), {"cohort": {"name": "x"}}, Path("page.html"))


@pytest.mark.parametrize("flag", ["--weights", "--model.weights"])
def test_weights_have_a_short_flag(stage: Any, flag: str) -> None:
    for argv, verb in ((["pretrain", "dino"], "pretrain"), (["classify", "imagenet-linear"], "classify")):
        called = stage("octdino.classify.train_arm" if verb == "classify" else f"octdino.{verb}", verb)
        assert cli.main([*argv, *RUN, flag, "w.pth"]) == 0
        assert called.named["model"].weights == Path("w.pth")


def test_pretrain(stage: Any) -> None:
    called = stage("octdino.pretrain", "pretrain")
    flags = [
        "--epochs",
        "3",
        "--dino.prototypes",
        "64",
        "--augment.local-views",
        "2",
        "--model.args",
        '{"drop_rate": 0}',
    ]
    assert cli.main(["pretrain", "dino", *RUN, *flags, "--fold", "all", "--seed", "4", "--max-minutes", "0.5"]) == 0
    name, settings = called.args
    assert (name, settings.methods, settings.epochs, settings.scope) == ("dino", ["dino"], 3, "all")
    assert settings.augment.local_views == 2
    assert settings.variant("dino").prototypes == 64
    assert called.named["fold"] is None
    assert called.named["model"].timm == "resnet18"
    assert called.named["model"].args == {"drop_rate": 0}
    assert (called.named["seed"], called.named["max_minutes"]) == (4, 0.5)


def test_pretrain_a_variant(stage: Any) -> None:
    called = stage("octdino.pretrain", "pretrain")
    variants = '{"ours": {"method": "supcon", "positives": ["eye"], "lr": 0.1}}'
    assert cli.main(["pretrain", "ours", *RUN, "--variants", variants, "--supcon.lr", "0.2"]) == 0
    variant = called.args[1].variant("ours")
    assert (variant.method, variant.positives, variant.lr) == ("supcon", ["eye"], 0.2)
    assert called.named["fold"] == 0


def test_embed(stage: Any) -> None:
    called = stage("octdino.embed.embedding_stage", "embed")
    assert cli.main(["embed", "dino", *RUN, "--pretrained", "run", "--fold", "2", "--seed", "3", "--size", "64"]) == 0
    assert called.args == ("dino", EmbedSettings(size=64))
    assert (called.named["fold"], called.named["seed"], called.named["pretrained"]) == (2, 3, Path("run"))
    assert called.named["model"].timm == "resnet18"


def test_classify(stage: Any) -> None:
    called = stage("octdino.classify.train_arm", "classify")
    argv = [
        "classify",
        "dino-linear",
        *RUN,
        "--embeddings",
        "run/e.h5",
        "--fraction",
        "0.3",
        "--inverse-regularization",
        "1",
        "2",
    ]
    assert cli.main([*argv, "--augment.global-size", "64"]) == 0
    arm, settings = called.args
    assert (arm, settings.inverse_regularization, settings.augment.global_size) == ("dino-linear", [1.0, 2.0], 64)
    assert settings.augment.global_scale == ClassifySettings().augment.global_scale
    assert (called.named["embeddings"], called.named["fraction"]) == (Path("run/e.h5"), 0.3)
    assert called.named["pretrained"] is None


def test_clinical_and_evaluate(stage: Any) -> None:
    control = stage("octdino.classify.clinical", "clinical_baseline")
    assert cli.main(["clinical", "--store", "c/scans.h5", "--fraction", "1", "--out", "o"]) == 0
    assert (control.args, control.named["fraction"]) == ((Path("c/scans.h5"),), 1.0)
    compared = stage("octdino.evaluate", "evaluate")
    assert cli.main(["evaluate", "--manifest", "m.csv", "--out", "o", "--resamples", "200", "a", "b"]) == 0
    settings, manifest, folders, out = compared.args
    assert (settings.resamples, manifest, folders, out) == (200, Path("m.csv"), [Path("a"), Path("b")], Path("o"))


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


def test_exit_codes(stage: Any, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["pretrain", "dino", *RUN]
    stage("octdino.pretrain", "pretrain", UserError("s.h5: no such\nstore"))
    assert failing(capsys, *argv) == "octdino pretrain: error: s.h5: no such store"
    stage("octdino.pretrain", "pretrain", StoppedEarly("stopped by SIGTERM"))
    assert cli.main(argv) == 75
    assert capsys.readouterr().err == "octdino pretrain: stopped by SIGTERM\n"
    stage("octdino.pretrain", "pretrain", KeyboardInterrupt())
    assert cli.main(argv) == 130
    assert capsys.readouterr().err == "octdino pretrain: interrupted\n"
    stage("octdino.pretrain", "pretrain", PermissionError(13, "Permission denied", "/out"))
    assert failing(capsys, *argv) == "octdino pretrain: error: /out: Permission denied"
    stage("octdino.pretrain", "pretrain", OSError(28, "No space left on device"))
    assert failing(capsys, *argv) == "octdino pretrain: error: No space left on device"
    stage("octdino.pretrain", "pretrain", NotADirectoryError(20, "Not a directory", "a", None, "b/c"))
    assert failing(capsys, *argv) == "octdino pretrain: error: b/c: Not a directory"
    stage("octdino.pretrain", "pretrain", OSError("of neither file nor disk"))
    with pytest.raises(OSError, match="neither"):
        cli.main(argv)
    stage("octdino.pretrain", "pretrain", ZeroDivisionError("ours"))
    with pytest.raises(ZeroDivisionError):  # a traceback and exit code 1: it is ours to mend
        cli.main(argv)


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
    parser = build_parser()._subparsers._group_actions[0].choices[verb]  # type: ignore[union-attr, index]
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
    begin = time.monotonic()
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    done = subprocess.run([sys.executable, "-m", "octdino.cli", "--help"], env=env, capture_output=True, text=True)
    assert done.returncode == 0
    assert time.monotonic() - begin < 2


def test_explain(stage: Any) -> None:
    called = stage("octdino.explain", "explain")
    flags = [
        "--embeddings",
        "e.h5",
        "--classifier",
        "a",
        "b",
        "--masks-root",
        "files",
        "--attention-mass",
        "0.5",
        "--attention-masses",
        "0.2",
        "--seed",
        "3",
    ]
    assert cli.main(["explain", "scratch", *RUN, *flags]) == 0
    init, settings = called.args
    assert (init, settings.attention_mass, settings.attention_masses) == ("scratch", 0.5, [0.2])
    assert called.named["classifiers"] == [Path("a"), Path("b")]
    assert (called.named["masks_root"], called.named["embeddings"]) == (Path("files"), Path("e.h5"))
    assert (called.named["seed"], called.named["pretrained"]) == (3, None)


def test_explain_refuses_impossible_settings(capsys: pytest.CaptureFixture[str]) -> None:
    explain = ["explain", "scratch", *RUN, "--embeddings", "e.h5"]
    assert "attention_masses: each above 0" in failing(capsys, *explain, "--attention-masses", "2")
    assert "attention_mass: '1.5' is not allowed" in failing(capsys, *explain, "--attention-mass", "1.5")
    assert "neighbors: each from 1 to 100,000" in failing(capsys, *explain, "--neighbors", "0")
