"""The command line: flags are generated from the settings, mistakes are one line, each verb calls its stage."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from octdino import cli
from octdino.config import ClassifySettings, CohortSettings, EmbedSettings, PhantomSettings
from octdino.errors import StoppedEarly, UserError

ROOT = Path(__file__).parents[2]
RUN = ["--store", "s.h5", "--backbone", "resnet18", "--out", "out"]


def failing(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Run a command that must exit with code 2; return the one line that it prints."""
    try:
        code = cli.main(list(argv))
    except SystemExit as end:
        code = end.code
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
    started = ["pretrain", "dino", "--dino.init", "imagenet"]
    for argv, verb in ((started, "pretrain"), (["classify", "imagenet-linear"], "classify")):
        called = stage("octdino.classify.train_arm" if verb == "classify" else f"octdino.{verb}", verb)
        assert cli.main([*argv, *RUN, flag, "w.pth"]) == 0
        assert called.named["model"].weights == Path("w.pth")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["pretrain", "dino"], "--model.weights: dino starts from random weights; expected --dino.init imagenet, or "
         "resnet18 as its init, to start from a file"),
        (["pretrain", "dino", "--dino.init", "earlier"], "--model.weights: dino starts from earlier; expected"),
        (["classify", "dino-finetune"], "--model.weights: dino is a pretraining method, whose weights are those of "
         "--pretrained; expected an init of another name for published weights, such as dino_published"),
        (["embed", "dino"], "--model.weights: dino is a pretraining method"),
        (["explain", "simclr", "--embeddings", "e.h5"], "--model.weights: simclr is a pretraining method"),
        (["classify", "own-finetune", "--pretrained", "run"], "--model.weights: own starts from --pretrained run; "
         "expected one of them"),
        (["embed", "scratch"], "--model.weights: scratch starts from random weights; expected imagenet, or an init"),
        (["classify", "scratch-finetune"], "--model.weights: scratch starts from random weights"),
        (["explain", "scratch", "--embeddings", "e.h5"], "--model.weights: scratch starts from random weights"),
        (["classify", "own-linear", "--embeddings", "e.h5"], "--model.weights: the features are those of --embeddings "
         "e.h5; expected one of them"),
    ],
)  # fmt: skip
def test_weights_that_a_run_would_not_start_from_are_refused(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in failing(capsys, *argv, *RUN, "--model.weights", "w.pth")


def test_weights_of_a_backbone_start_a_run_by_its_name(stage: Any) -> None:
    called = stage("octdino.pretrain", "pretrain")
    assert cli.main(["pretrain", "dino", *RUN, "--dino.init", "resnet18", "--model.weights", "w.pth"]) == 0
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
