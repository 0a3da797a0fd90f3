"""`octdino plan`: its schedule, its words, and a plan of a small phantom with and without trials."""

import re
import sys
from pathlib import Path

import pytest
import yaml

from octdino import cli
from octdino.cli.planning.cohort_facts import cohort_facts
from octdino.cli.planning.job_schedule import least_makespan, makespan
from octdino.cli.planning.plan_text import _size, about
from octdino.cli.planning.workflow_jobs import WorkflowJob
from octdino.config import load_config
from octdino.errors import EXIT_USER

SMALL = {
    "cohort": {"phantom": {"patients": 8, "visits": 2, "slices": 1}, "image": {"size": [24, 24]}},
    "models": {"tiny": {"timm": "resnet18", "args": {"channels": [8, 8, 8, 8]}}},
    "pretrain": {
        "methods": ["dino"],
        "variants": {"dino": {"prototypes": 16, "hidden_dim": 16}},
        "backbones": ["tiny"],
        "epochs": 2,
        "batch_size": 4,
        "augment": {"global_size": 16, "local_views": 0},
    },
    "classify": {"fractions": [1.0], "min_steps": [10], "augment": {"global_size": 16}},
}


def job(rule: str, *after: int, threads: int = 1, gpu: int = 0, priority: int = 0) -> WorkflowJob:
    return WorkflowJob(rule, {}, threads, gpu, 8000, list(after), priority)


def test_independent_jobs_share_the_cores_and_dependent_ones_wait() -> None:
    jobs = [job("a"), job("b"), job("c"), job("d", 0, 1, 2)]
    assert makespan(jobs, [4, 4, 4, 1], cores=2, gpus=1) == 9  # two, then one, then the last
    assert makespan(jobs, [4, 4, 4, 1], cores=8, gpus=1) == 5
    assert makespan(jobs, [4, 4, 4, 1], cores=1, gpus=1) == 13
    assert least_makespan(jobs, [4, 4, 4, 1], cores=2) == 6.5  # all work on both cores
    assert least_makespan(jobs, [4, 4, 4, 1], cores=8) == 5  # the longest chain


def test_jobs_on_one_gpu_run_one_after_the_other() -> None:
    jobs = [job("a", gpu=1), job("b", gpu=1), job("c")]
    assert makespan(jobs, [3, 3, 6], cores=8, gpus=1) == 6
    assert makespan(jobs, [3, 3, 3], cores=8, gpus=2) == 3


def test_a_job_with_more_threads_than_cores_gets_all() -> None:
    assert makespan([job("a", threads=8), job("b")], [2, 3], cores=2, gpus=1) == 5


def test_the_job_with_the_higher_priority_is_first() -> None:
    jobs = [job("short"), job("long", priority=10), job("after", 1)]
    assert makespan(jobs, [2, 5, 5], cores=1, gpus=1) == 12
    assert makespan(jobs, [5, 5, 5], cores=2, gpus=1) == 10


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (20, "less than 1 min"), (70, "about 1 min"), (400, "about 7 min"), (1560, "about 25 min"),
        (3500, "about 1 h"), (9400, "about 2.5 h"), (40_000, "about 11 h"), (400_000, "about 5 days"),
    ],
)  # fmt: skip
def test_times_are_rounded_to_what_is_known(seconds: float, words: str) -> None:
    assert about(seconds) == words


def test_sizes_have_two_digits() -> None:
    assert [_size(count) for count in (10, 4.26e6, 443e6, 1.26e9, 21.4e9, 214e9)] == [
        "-", "4.3 MB", "440 MB", "1.3 GB", "21 GB", "210 GB"
    ]  # fmt: skip


def test_scans_of_a_folder_are_listed_before_it_was_read(tmp_path: Path) -> None:
    rows = "".join(f"{n}.png,{n // 2},{n % 2}\n" for n in range(40))
    (tmp_path / "scans.csv").write_text("path,patient,fluid\n" + rows)
    for number in range(38):  # two are missing
        (tmp_path / f"{number}.png").touch()
    values = {"cohort": {"name": "folder", "root": str(tmp_path)}, "pretrain": {"methods": ["dino"]}}
    facts = cohort_facts(load_config(values), tmp_path / "results")
    assert (facts.scans, facts.patients, facts.labels, facts.labeled) == (38, 19, 1, 38)
    assert (facts.train, facts.val) == (22, 6)  # 15 % validate, 25 % test


@pytest.fixture
def warm(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Snakemake and the trials start warm."""
    monkeypatch.setattr(sys, "executable", str(programs / "warm-python"))


@pytest.mark.usefixtures("warm")
def test_a_plan_without_trials_has_jobs_and_sizes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(SMALL))
    here = Path.cwd()
    code = cli.main(
        [
            "plan",
            "--no-trial",
            "--configfile",
            str(tmp_path / "small.yaml"),
            "--directory",
            str(tmp_path),
            "--cores",
            "2",
        ]
    )
    text = capsys.readouterr().out
    assert code == 0
    assert Path.cwd() == here
    assert text.startswith("Cohort   phantom: 18 scans of 8 patients, ")
    assert "classify   classify      3" in text  # scratch-finetune, dino-linear, dino-finetune
    assert "Total    16 jobs" in text
    assert "Time" not in text
    assert [path.name for path in tmp_path.iterdir()] == ["small.yaml"]  # nothing is left behind


@pytest.mark.usefixtures("warm")
def test_a_plan_has_the_jobs_of_external_cohorts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = {"name": "b", "cohort": {"name": "phantom", "phantom": {"seed": 1, "patients": 8}}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({**SMALL, "evaluate": {"external": [site]}}))
    assert cli.main(["plan", "--no-trial", "--directory", str(tmp_path), "--cores", "2"]) == 0
    text = capsys.readouterr().out
    assert "cohort     external_cohort" in text
    assert "inference  score                3" in text  # one per arm
    assert "Total    22 jobs" in text


@pytest.mark.usefixtures("warm")
def test_a_plan_tries_each_kind_of_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(SMALL))
    code = cli.main(["plan", "--directory", str(tmp_path), "--cores", "2"])
    text = capsys.readouterr().out
    assert code == 0, text
    assert re.search(r"^pretrain   pretrain      1 .* (about|less than) \d+ min$", text, re.MULTILINE)
    assert re.search(r"^evaluate   evaluate      1 .* min \(rough\)$", text, re.MULTILINE)
    assert re.search(r"^Time     .* on 2 cores.*: .* at least, ", text, re.MULTILINE)
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["--configfile", "no.yaml"], "octdino plan: error: no.yaml: no such file, and no preset of that name"),
        (["--directory", "nowhere"], "octdino plan: error: --directory: no such folder: nowhere"),
        (["--snakefile", "no"], "octdino plan: error: --snakefile: no such file: "),
        (["--config", "cohort={nam: x}"], "octdino plan: error: config: cohort.nam: unknown key; did you mean name?"),
    ],
)
def test_a_mistake_is_one_line(
    argv: list[str], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text("{}")
    assert cli.main(["plan", "--no-trial", *argv]) == EXIT_USER
    said = capsys.readouterr().err.strip()
    assert said.startswith(line.replace("config: ", "config.yaml: ") if "nam" in line else line)
    assert "\n" not in said
