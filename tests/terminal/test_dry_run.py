"""What a dry run would do, in words."""

import json

import pytest

from octdino.terminal.dry_run import DryRun, Request, changed_settings, reason_words


def changed(before: object, now: object) -> str:
    """The text of Snakemake for changed params, as its persistence writes them: reprs, joined by commas."""
    texts = [",".join(map(repr, values)) for values in (["2", json.dumps(before)], ["2", json.dumps(now)])]
    return f"Union of exclusive params before and now across all output: before: {texts[0]} now: {texts[1]} "


def test_reasons_of_snakemake_are_told_in_words() -> None:
    follows = "Input files updated by another job: results/c/cohort/manifest.csv, x"
    assert reason_words("Missing output files: results/a; " + follows) == "its results are missing"
    assert reason_words(follows) == "it follows a job that runs again"
    assert reason_words("Forced execution") == "forced"
    assert reason_words("Code has changed since last execution") == "its command has changed"
    assert reason_words("A new reason of Snakemake: x") == "A new reason of Snakemake"


def test_changed_settings_are_named_with_both_values() -> None:
    before = {"epochs": 24, "dino": {"lr": 0.016, "momentum": 0.9}, "views": [1, 2]}
    now = {"epochs": 30, "dino": {"lr": 0.016, "momentum": None}, "views": [1, 2]}
    reason = "Params have changed since last execution: " + changed(before, now)
    assert reason_words(reason) == "settings changed: epochs 24 → 30, dino.momentum 0.9 → null"
    many = changed_settings(changed({str(n): 0 for n in range(9)}, {str(n): 1 for n in range(9)}))
    assert many == "settings changed: 0 0 → 1, 1 0 → 1, 2 0 → 1 and 6 more"


def test_params_that_are_no_settings_are_changed_all_the_same() -> None:
    assert changed_settings("before: 2 now: 3 ") == "settings or version changed"
    assert changed_settings("before: '{\"a\"' now: '[' ") == "settings or version changed"
    assert changed_settings("") == "settings or version changed"


def test_the_table_has_one_row_per_rule() -> None:
    dry = DryRun()
    dry.add("all", "Input files updated by another job: x")
    dry.add("cohort", "Missing output files: x")
    for _ in range(12):
        dry.add("classify", "Input files updated by another job: x")
    for _ in range(3):
        dry.add("classify", "Missing output files: x")
    assert dry.lines()[:-1] == [
        "rule      jobs  why",
        "cohort       1  its results are missing",
        "classify    15  12: it follows a job that runs again; 3: its results are missing",
        "total       16",
    ]
    assert max(map(len, dry.lines(40))) <= 40 + len(dry.lines()[-1])
    assert DryRun().lines() == []


@pytest.mark.parametrize(
    ("memory", "expected"), [(500, "0.5 GB"), (8000, "8 GB"), (21_480, "21.5 GB"), (1_500_000, "1,500 GB")]
)
def test_memory_is_written_out(memory: int, expected: str) -> None:
    assert str(Request("long", 1, 0, memory, 0)) == f"long: 1 core, {expected}"


def test_a_cluster_s_queue_and_the_largest_request_of_a_rule_s_jobs_are_shown() -> None:
    dry = DryRun()
    missing = "Missing output files: x"
    resources = {"slurm_partition": "long", "mem_mb": 8000, "runtime": 90, "gpu": 0}
    dry.add("cohort", missing, Request.of(1, resources))
    dry.add("pretrain", missing, Request.of(8, {**resources, "gpu": 1, "runtime": 10}))
    dry.add("pretrain", missing, Request.of(4, {**resources, "gpu": 2, "mem_mb": 21500}))
    dry.add("report", missing, Request.of(1, {"lsf_queue": "normal", "mem_mb": "<TBD>"}))
    dry.add("verdict", missing, Request.of(1, {"mem_mb": 8000, "runtime": 90}))
    assert dry.lines()[:-1] == [
        "rule      jobs  requested per job                           why",
        "cohort       1  long: 1 core, 8 GB, 1 h 30 min              its results are missing",
        "pretrain     2  long: 8 cores, 2 GPUs, 21.5 GB, 1 h 30 min  its results are missing",
        "report       1  normal: 1 core                              its results are missing",
        "verdict      1                                              its results are missing",
        "total        5",
    ]
