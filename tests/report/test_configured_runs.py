"""The page shows the runs of the present configuration; those of an earlier one stay on the disk beside them."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from octdino.config import ReportSettings, load_config
from octdino.errors import UserError
from octdino.report import write_report
from octdino.report.configured_runs import ConfiguredRuns, has_arms, with_configured_runs
from octdino.report.results_reader import Results, read_results
from tests.results import write_arm, write_cohort, write_pretraining, write_tables

RUNS = (
    "dino/resnet18/fold0-seed0", "dino/resnet18/fold0-seed1", "dino/resnet18/fold1-seed0",
    "dino/resnet18/foldall-seed0", "dino/resnet34/fold0-seed0", "simclr/resnet18/fold0-seed0",
)  # fmt: skip
EXPLAINED = ("dino/resnet18/fold0-seed0", "dino/resnet18/fold0-seed1", "scratch/resnet18/fold0-seed0")


def configuration(**sections: dict[str, Any]) -> dict[str, Any]:
    """Return all settings as the workflow gives them to the report, of dino on resnet18 where nothing else is said."""
    given = {"pretrain": {"methods": ["dino"]}, "classify": {"arms": ["scratch-finetune", "dino-linear"]}}
    return load_config({key: given.get(key, {}) | sections.get(key, {}) for key in given | sections}).model_dump(
        mode="json"
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Results of several configurations, one after the other."""
    root = tmp_path_factory.mktemp("configured")
    write_cohort(root / "cohort")
    first = write_pretraining(root / "pretrain", "dino")
    for run in RUNS[1:]:
        shutil.copytree(first, root / "pretrain" / run)
    for run in EXPLAINED:
        (root / "explain" / run).mkdir(parents=True)
        (root / "explain" / run / "explain.json").write_text("{}")
    return read_results(root)


@pytest.mark.parametrize(
    ("sections", "pretrained", "explained"),
    [
        ({}, RUNS[:1], ("dino/resnet18/fold0-seed0", "scratch/resnet18/fold0-seed0")),
        ({"pretrain": {"seeds": [1]}, "explain": {"seeds": [1]}}, RUNS[1:2], EXPLAINED[1:2]),
        ({"pretrain": {"scope": "all"}}, RUNS[3:4], ("dino/resnet18/fold0-seed0", "scratch/resnet18/fold0-seed0")),
        ({"cohort": {"split": {"protocol": "crossval", "folds": 2}}}, (RUNS[0], RUNS[2]), (EXPLAINED[0], EXPLAINED[2])),
        ({"pretrain": {"backbones": ["resnet34"]}}, RUNS[4:5], ()),
        (
            {
                "pretrain": {
                    "methods": ["dino", "simclr"], "backbones": ["resnet18", "resnet34"],
                    "variants": {"dino": {"backbones": ["resnet34"]}},
                },
            },
            RUNS[4:], ("scratch/resnet18/fold0-seed0",),
        ),
        ({"pretrain": {"methods": []}, "classify": {"arms": []}}, (), ("scratch/resnet18/fold0-seed0",)),
        ({"explain": {"inits": []}}, RUNS[:1], ()),
        ({"explain": {"inits": ["dino"]}}, RUNS[:1], EXPLAINED[:1]),
    ],
)  # fmt: skip
def test_runs_of_another_configuration_are_left_out(
    found: Results, sections: dict[str, Any], pretrained: tuple[str, ...], explained: tuple[str, ...]
) -> None:
    kept = with_configured_runs(found, configuration(**sections))
    assert [f"{run.method}/{run.backbone}/{run.run}" for run in kept.pretraining] == sorted(pretrained)
    assert [folder.relative_to(found.root / "explain").as_posix() for folder in kept.explained] == sorted(explained)


@pytest.mark.parametrize("config", [{}, {"pretrain": None}, {"pretrain": {"seeds": [0, 1]}, "classify": {}}])
def test_keys_that_are_not_given_leave_nothing_out(found: Results, config: dict[str, Any]) -> None:
    kept = with_configured_runs(found, config)
    assert (kept.pretraining, kept.explained) == (found.pretraining, found.explained)


def test_a_list_that_is_none_is_one_line(found: Results) -> None:
    with pytest.raises(UserError, match=r"--config: seeds: expected a list, found 0"):
        with_configured_runs(found, {"pretrain": {"seeds": 0}})


@pytest.mark.parametrize(
    ("job", "asked"),
    [
        ("cohort", True),
        ("evaluate", True),
        ("pretrain.dino.resnet18.fold0-seed0", True),
        ("pretrain.simclr.resnet18.fold0-seed0", False),
        ("pretrain.dino.resnet18.foldall-seed0", False),
        ("classify.dino-linear.resnet18.f0.1.fold0-seed0", True),
        ("classify.dino-linear.resnet18.f0.2.fold0-seed0", False),
        ("classify.scratch-finetune.resnet18.f0.2.fold0-seed0", True),
        ("classify.dino-linear.resnet18.a1_in1k.f1.fold0-seed0", False),
        ("classify.dino-knn.resnet18.f1.fold0-seed0", False),
        ("classify.dino-linear.resnet18.f1.fold0-seed3", False),
        ("clinical.none.f1.fold0-seed0", True),
        ("clinical.none.f1.fold1-seed0", False),
        ("embed.dino.resnet18.fold0-seed0", True),
        ("embed.dino.resnet18.fold0-seed7", False),
        ("embed.imagenet.resnet18.fold0-seed0", False),
        ("explain.scratch.resnet18.fold0-seed0", True),
        ("explain.imagenet.resnet18.fold0-seed0", False),
    ],
)
def test_benchmarks_are_of_jobs_that_the_configuration_has(job: str, asked: bool) -> None:
    config = configuration(classify={"arm_fractions": {"scratch-finetune": [0.2]}})
    assert ConfiguredRuns(config).has_job(job) == asked
    assert ConfiguredRuns({}).has_job(job)


@pytest.mark.parametrize(
    ("job", "asked"),
    [
        ("embed.retfound.retfound.fold0-seed0", True),
        ("embed.retfound.resnet18.fold0-seed0", False),
        ("classify.retfound-linear.retfound.f1.fold0-seed0", True),
        ("classify.retfound-linear.resnet18.f1.fold0-seed0", False),
        ("explain.retfound.retfound.fold0-seed0", True),
        ("embed.dino.resnet18.fold0-seed0", True),
        ("embed.dino.retfound.fold0-seed0", False),
    ],
)
def test_published_weights_are_of_the_network_of_their_name(job: str, asked: bool, tmp_path: Path) -> None:
    (tmp_path / "retfound.pth").touch()
    published = {"timm": "vit_tiny_patch16_224", "weights": str(tmp_path / "retfound.pth"), "layout": "retfound_mae"}
    arms = ["scratch-finetune", "dino-linear", "retfound-linear"]
    config = configuration(models={"retfound": published}, classify={"arms": arms})
    assert ConfiguredRuns(config).has_job(job) == asked


@pytest.mark.parametrize("job", ["evaluate", "inference", "clinical.none.f1.fold0-seed0"])
def test_without_arms_there_are_no_jobs_of_the_comparison(job: str) -> None:
    config = configuration(classify={"arms": []})
    assert not has_arms(config)
    assert not ConfiguredRuns(config).has_job(job)


def test_without_arms_the_page_has_no_comparison_of_an_earlier_run(tmp_path: Path) -> None:
    root = tmp_path / "phantom"
    write_cohort(root / "cohort")
    write_pretraining(root / "pretrain", "dino")
    arms = [write_arm(root / "classify", root / "cohort", arm) for arm in ("scratch-finetune", "dino-linear")]
    write_tables(root, arms)
    (root / "benchmarks").mkdir()
    for job in ("cohort", "evaluate"):
        (root / "benchmarks" / f"{job}.tsv").write_text("s\th:m:s\tmax_rss\n12.5\t0:00:12\t512.5\n")
    out = root / "report" / "report.html"
    for arms_given, shown in ((["scratch-finetune", "dino-linear"], True), ([], False)):
        write_report(ReportSettings(), root, configuration(classify={"arms": arms_given}), out)
        assert ('id="comparison"' in out.read_text()) == shown
        assert ("2 jobs" in out.with_name("methods.md").read_text()) == shown
    shutil.rmtree(root / "evaluate")  # classifiers of an earlier configuration need no evaluation
    write_report(ReportSettings(), root, configuration(classify={"arms": []}), out)
