"""Start, dry run, stop and restart of the workflow; errors in the configuration."""

import os
import re
import resource
import signal
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.workflow.conftest import BIN, ROOT, Workflow, until

FLOW = {
    "phantom": 1,
    "cohort": 1,
    "pretrain": 1,
    "embed": 2,
    "classify": 2,
    "clinical": 1,
    "evaluate": 1,
    "explain": 2,
    "audit": 1,
    "report": 1,
    "inference": 1,
    "verdict": 1,
}

MISTAKES = {
    "{cohort: {nam: olives}}": "cohort.nam: unknown key; did you mean name?",
    "{cohort: {name: olives}}": "cohort.root: missing",
    "{cohort: {title: a/b}}": "cohort.title: 'a/b' is no folder name",
    "{cohort: {name: oliven}}": "cohort.name: 'oliven' is not allowed; Input should be 'phantom', 'olives', ",
    "{cohort: {name: olives, root: /nowhere}}": "cohort.root: no such folder: /nowhere",
    "{cohort: {name: folder, root: ., table: no.csv}}": "cohort.table: no such file",
    "{pretrain: {epochs: many}}": "pretrain.epochs: 'many' is not allowed; Input should be a valid integer",
    "{pretrain: {methods: [dinosaur]}}": "pretrain.methods: 'dinosaur' is no method; known: dino, dinov2, byol, ",
    "{classify: {fractions: [0.5, 2]}}": "classify.fractions: 2.0; expected a share from 0.0001 to 1",
    "{pretrain: {methods: [dino]}, classify: {arms: [scratch-finetune, moco-linear]}}": (
        "classify.arms: moco-linear: moco not among pretrain.methods ['dino']; add it there"
    ),
    "{classify: {arms: [scratch-finetune, saur-linear]}}": "classify.arms: saur-linear: 'saur' is no method; ",
    "{pretrain: {backbones: [resnet81]}}": "pretrain.backbones: 'resnet81' is no timm model; similar: resnet18",
    "{cohort: {phantom: {patients: 100000000}}}": "/cohort/scans.h5: ",
    "{evaluate: {reference: none}}": "evaluate.reference: 'none' is not among classify.arms",
    "{explain: {inits: [moco]}}": "explain.inits: moco not among pretrain.methods",
    "{explain: {arms: [dino-knn]}}": "explain.arms: 'dino-knn' is not {init}-linear or {init}-finetune",
    "{explain: {arms: [scratch-linear]}}": "explain.arms: scratch-linear not among classify.arms",
    "{models: {a: {tim: resnet18}}}": "models.a.tim: unknown key; did you mean timm?",
    "{pretrain: {backbones: ['{x}']}}": "pretrain.backbones: '{x}' cannot be a folder's name; expected 1 to 80 ",
    "{pretrain: {seeds: [0, 0]}}": "pretrain.seeds: 0 is given 2 times; expected each once",
    "{classify: {fractions: [1.0e-9]}}": "classify.fractions: 1e-09; expected a share from 0.0001 to 1",
}


def test_every_rule_runs_once_and_then_nothing(stubbed: Workflow) -> None:
    assert stubbed.rules() == FLOW
    done = stubbed.run("--cores", "2")
    assert done.returncode == 0, done.stderr
    assert f"The page: {stubbed.folder / 'results/phantom/report/report.html'}\n" in done.stderr
    assert "The audit: passed: no finding is open; not checkable: patient\n" in done.stderr
    assert len(stubbed.calls()) == sum(FLOW.values())
    assert len(list(stubbed.folder.glob("results/phantom/benchmarks/*.tsv"))) == sum(FLOW.values())
    assert not stubbed.rules()
    assert stubbed.rules("--forcerun", "evaluate") == {"evaluate": 1, "inference": 1, "report": 1}
    assert stubbed.rules("--forcerun", "pretrain") == {
        "pretrain": 1,
        "embed": 1,
        "classify": 1,
        "evaluate": 1,
        "inference": 1,
        "explain": 1,
        "audit": 1,
        "report": 1,
        "verdict": 1,
    }
    page = stubbed.folder / "report.html"
    assert stubbed.run("--report", str(page)).returncode == 0
    assert "metrics.csv" in page.read_text()


def test_explain_runs_without_methods_and_arms(tmp_path: Path) -> None:
    flow = Workflow(tmp_path, stub=True)
    values = {"pretrain": {"methods": []}, "classify": {"arms": []}, "explain": {"inits": ["scratch", "imagenet"]}}
    flow.configure(values)
    assert flow.rules() == {"phantom": 1, "cohort": 1, "embed": 2, "explain": 2, "audit": 1, "report": 1, "verdict": 1}
    done = flow.run("--cores", "2")
    assert done.returncode == 0, done.stderr
    (call,) = (call for call in flow.calls() if call.startswith("explain scratch"))
    assert "--masks-root results/phantom/cohort/files" in call
    assert "--classifier" not in call


@pytest.mark.parametrize("kind", ["--rulegraph", "--dag", "--filegraph"])
def test_graphs(kind: str, stubbed: Workflow) -> None:
    done = stubbed.run(kind)
    assert done.stdout.startswith("digraph")
    for rule in FLOW:
        assert rule in done.stdout


NO_ARMS = {"classify": {"arms": []}}


def runs_of(flow: Workflow, *args: str) -> set[str]:
    """{cohort}/pretrain/{method}/{backbone} of the pretrainings that a dry run lists."""
    ((code, output),) = flow.many([["-n", "--workflow-profile", "none", *args]])  # Snakemake's own list of files
    assert code == 0, output
    return set(re.findall(r"results/([^/]+/pretrain/[^/]+/[^/]+)/fold0-seed0/backbone", output))


def test_presets_are_valid(tmp_path: Path) -> None:
    flow = Workflow(tmp_path, stub=True)
    presets = sorted((ROOT / "config").glob("*.yaml"))
    assert presets
    (tmp_path / "OLIVES").mkdir()
    (tmp_path / "OLIVES" / "a.png").touch()
    below = {  # what a preset is laid over
        "olives-published": [str(ROOT / "config/olives.yaml")],
        "comparison": [str(ROOT / "config/oct2017.yaml")],
    }
    files = [[*below.get(path.stem, []), str(path)] for path in presets]
    done = flow.many([["-n", "--configfile", *each, "--config", "cohort={root: OLIVES}"] for each in files])
    assert [code for code, _ in done] == [0] * len(presets), done


def test_one_configuration_is_read(tmp_path: Path) -> None:
    """--configfile, or else the working directory's config.yaml, or else the default run; over built-in defaults."""
    own = {"cohort": {"title": "own"}, "classify": {"fractions": [1.0]}}
    given = tmp_path / "given.yaml"
    given.write_text(yaml.safe_dump({"cohort": {"title": "given"}, "pretrain": {"methods": ["dino"]}, **NO_ARMS}))
    folder = tmp_path / "work"
    folder.mkdir()
    flow = Workflow(folder, stub=True)
    title = ["--config", "cohort={title: flag}"]
    assert runs_of(flow) == {"phantom/pretrain/dino/resnet18_narrow", "phantom/pretrain/simclr/resnet18_narrow"}
    assert "flag/pretrain/dino/resnet18_narrow" in runs_of(flow, *title)
    flow.configure(own)
    assert "own/pretrain/dino/resnet18" in runs_of(flow)
    assert "flag/pretrain/dino/resnet18" in runs_of(flow, *title)
    assert runs_of(flow, "--configfile", str(given)) == {"given/pretrain/dino/resnet18"}


def test_mistakes_in_the_config_are_one_line(stubbed: Workflow) -> None:
    wrong = stubbed.folder / "wrong.yaml"
    commands = []
    for number, text in enumerate(MISTAKES):
        wrong = stubbed.folder / f"wrong{number}.yaml"
        wrong.write_text(text)
        commands.append(["--cores", "1", "--configfile", str(wrong)])
    for (code, output), expected in zip(stubbed.many(commands), MISTAKES.values(), strict=True):
        assert code == 2, output
        assert "Traceback" not in output
        (line,) = [line for line in output.splitlines() if line.startswith("octdino: error: ")]
        assert expected in line
    assert not (stubbed.folder / "calls.txt").exists()


def test_memory_of_jobs_is_asked_for_by_the_number_of_scans(tmp_path: Path) -> None:
    """80,000 scans of 50 kB, held once for training and once for the online evaluation: 8 GB beside the process."""
    flow = Workflow(tmp_path, stub=True)
    large = {
        "cohort": {"phantom": {"patients": 906, "visits": 8, "slices": 10}},
        "pretrain": {"methods": ["dino"], "online_eval_max_scans": 100_000},
    }
    flow.configure(large)
    cluster = ["--executor", "cluster-generic", "--cluster-generic-submit-cmd", "false", "--jobs", "1"]
    ((code, output),) = flow.many([["-n", "--workflow-profile", "none", *cluster]])
    assert code == 0, output
    asked = dict(re.findall(r"^rule (\w+):\n(?:    .*\n)*?    resources: .*?mem_mb=(\d+)", output, re.MULTILINE))
    assert int(asked["pretrain"]) == pytest.approx(9_730, abs=20)
    assert asked["embed"] == "8000"


def test_a_run_has_one_path_only(stubbed: Workflow) -> None:
    """Another text of the same fraction, fold or seed would be the same run in another folder."""
    run = "results/phantom/classify/dino-linear/resnet18/f{}/fold{}-seed{}/predictions.csv"
    asked = [
        ("1", "0", "0"),
        ("0.35", "0", "7"),
        ("0.10", "0", "0"),
        ("1.0", "0", "0"),
        ("1", "00", "0"),
        ("1", "0", "01"),
    ]
    done = stubbed.many([["-n", run.format(*texts)] for texts in asked])
    assert [code for code, _ in done] == [0, 0, 1, 1, 1, 1]
    for _, output in done[2:]:
        assert "snakemake: error: MissingRuleException: No rule to produce results/" in output


def test_a_mistake_takes_less_than_five_seconds(stubbed: Workflow) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = stubbed.command("--cores", "1", "--config", "cohort={nam: x}")
    done = subprocess.run(command, cwd=ROOT, env=stubbed.env, timeout=600)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 2
    # CPU time, so that a busy machine does not fail the test
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 5


def test_broken_yaml_is_no_traceback(stubbed: Workflow) -> None:
    wrong = stubbed.folder / "wrong.yaml"
    wrong.write_text("cohort: [name: {")
    done = stubbed.run("--cores", "1", "--configfile", str(wrong))
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "Config file is not valid JSON or YAML" in done.stderr


def test_a_failing_step_shows_its_reason_and_a_rerun_goes_on(stubbed: Workflow) -> None:
    done = stubbed.run("--cores", "1", STUB_FAILS="evaluate")
    assert done.returncode == 1
    assert "the reason of the failure" in done.stderr
    before = stubbed.calls()
    assert stubbed.run("--cores", "1").returncode == 0
    after = stubbed.calls()[len(before) :]
    assert [call for call in after if call in before] == [call for call in before if call.startswith("evaluate")]
    commands = [call.split()[0] for call in after]  # `models` may come before or after these two
    assert commands.index("evaluate") < commands.index("report") < commands.index("verdict")


def test_killed_snakemake_is_simply_started_again(stubbed: Workflow) -> None:
    """SIGKILL leaves a lock and incomplete outputs; while it lives, a second one is refused."""
    env = {**stubbed.env, "STUB_WAITS": "pretrain"}
    process = subprocess.Popen(
        stubbed.command("--cores", "2"), cwd=ROOT, env=env, start_new_session=True, stderr=subprocess.DEVNULL
    )
    until(lambda: any(call.startswith("pretrain") for call in stubbed.calls()))
    second = stubbed.run("--cores", "2")
    assert second.returncode == 2
    assert f"cannot be locked: process {process.pid} on host " in second.stderr
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = stubbed.run("--cores", "2")
    assert done.returncode == 0, done.stderr
    assert sum(call.startswith("pretrain") for call in stubbed.calls()) == 2
    assert sum(call.startswith("cohort") for call in stubbed.calls()) == 1


def test_lint() -> None:
    done = subprocess.run([BIN / "snakemake", "--lint"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_rules_keep_to_what_was_found_safe() -> None:
    """`exec`, no rule-level retries, a log, a benchmark, resources and an environment for every rule with a command."""
    for path in (ROOT / "workflow/rules").glob("*.smk"):
        for text in path.read_text().split("\nrule ")[1:]:
            name = text.split(":")[0]
            for needed in ("log:", "benchmark:", "threads:", "mem_mb=", "runtime=", "gpu=", "conda:", "version="):
                assert needed in text or (name, needed) == ("verdict", "version="), (name, needed)
            assert re.search(r'"exec (\{params.srun\})?octdino ', text), name  # a shell would outlive a signal
            assert "retries:" not in text
            assert "{config" not in text
    assert "default-resources" not in yaml.safe_load((ROOT / "profiles/default/config.yaml").read_text())
