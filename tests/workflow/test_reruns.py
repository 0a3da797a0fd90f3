"""An edit of a section of config.yaml reruns what depends on it, and nothing else."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from octdino import STAGES
from octdino.config import Config
from tests.workflow.conftest import DEFAULT_RUN, ROOT, Workflow, jobs

PAGE = {"report": 1}
AUDITED = {"audit": 1, "verdict": 1, **PAGE}
END = {"evaluate": 1, "inference": 1, **AUDITED}
TRAINED = {"embed": 2, "classify": 12, "explain": 2, **END}  # all arms but scratch-finetune, at three fractions
STORE = {"cohort": 1, "pretrain": 2, "embed": 3, "classify": 15, "clinical": 3, "explain": 3, **END}
# The same with the built-in methods and arms.
BUILT_IN = {"cohort": 1, "pretrain": 3, "embed": 4, "classify": 15, "clinical": 3, "explain": 4, **END}

EDITS: dict[str, tuple[dict[str, Any], dict[str, int]]] = {
    "nothing": ({}, {}),
    "phantom": ({"cohort": {"phantom": {"seed": 1}}}, {"phantom": 1, **STORE}),
    "image": ({"cohort": {"image": {"size": [64, 64]}}}, STORE),
    "split": ({"cohort": {"split": {"seed": 1}}}, STORE),
    "folds": (
        {"cohort": {"split": {"protocol": "crossval"}}},
        {"cohort": 1, "pretrain": 10, "embed": 11, "classify": 75, "clinical": 15, "explain": 3, **END},
    ),
    "a model in use": (
        {"models": {"resnet18_narrow": {"timm": "resnet34"}}},
        {"pretrain": 2, "embed": 3, "classify": 15, "explain": 3, **END},
    ),
    "a model not in use": ({"models": {"another": {"timm": "resnet34"}}}, {"report": 1}),
    "what methods share": ({"pretrain": {"epochs": 7}}, {"pretrain": 2, **TRAINED}),
    "views, which classify inherits": (
        {"pretrain": {"augment": {"flip_p": 0}}},
        {"pretrain": 2, **TRAINED, "classify": 15},
    ),
    "views of pretraining only": ({"pretrain": {"augment": {"local_views": 3}}}, {"pretrain": 2, **TRAINED}),
    "one method": (
        {"pretrain": {"variants": {"dino": {"prototypes": 64}}}},
        {"pretrain": 1, "embed": 1, "classify": 6, "explain": 1, **END},
    ),
    "one variant": (
        {"pretrain": {"variants": {"simclr": {"temperature": 0.2}}}},
        {"pretrain": 1, "embed": 1, "classify": 6, "explain": 1, **END},
    ),
    "another method": (
        {"pretrain": {"methods": ["dino", "simclr", "supcon_cst"]}},
        {"pretrain": 1, "embed": 1, "explain": 1, **AUDITED},
    ),
    "another pretraining seed": ({"pretrain": {"seeds": [0, 1]}}, {"pretrain": 2, **AUDITED}),
    "another backbone": (
        {"pretrain": {"backbones": ["resnet18_narrow", "vit_tiny"]}},
        {"pretrain": 2, "embed": 3, "classify": 15, "explain": 3, **END},
    ),
    "scope": ({"pretrain": {"scope": "all"}}, {"pretrain": 2, **TRAINED}),
    "checkpoints": ({"pretrain": {"checkpoint_seconds": 5}, "classify": {"checkpoint_seconds": 5}}, {"report": 1}),
    "trackers": ({"pretrain": {"tracking": "mlflow"}, "classify": {"tracking": "none"}}, {"report": 1}),
    "another fraction": ({"classify": {"fractions": [0.05, 0.25, 0.5, 1.0]}}, {"classify": 5, "clinical": 1, **END}),
    "one fraction less": ({"classify": {"fractions": [0.05, 1.0]}}, END),
    "another seed": ({"classify": {"seeds": [0, 1]}}, {"classify": 15, "clinical": 3, **END}),
    "linear": ({"classify": {"inverse_regularization": [1.0]}}, {"classify": 12, "explain": 2, **END}),
    "finetune": ({"classify": {"lr": 0.01}}, {"classify": 9, **END}),
    "views of finetune": ({"classify": {"augment": {"flip_p": 0}}}, {"classify": 9, **END}),
    "input of all arms": (
        {"classify": {"augment": {"global_size": 80}}},
        {"embed": 3, "classify": 15, "explain": 3, **END},
    ),
    "input of embeddings": ({"embed": {"size": 64}}, {"embed": 3, "classify": 6, "explain": 3, **END}),
    "determinism": ({"classify": {"deterministic": False}}, {"classify": 9, **END}),
    "evaluate": ({"evaluate": {"resamples": 200}}, {"evaluate": 1, "inference": 1, **PAGE}),
    "audit": ({"audit": {"similarity": 0.9}}, AUDITED),
    "explain": ({"explain": {"attention_mass": 0.5}}, {"explain": 3, "report": 1}),
    "whose weights are explained": ({"explain": {"inits": ["dino"], "arms": []}}, {"explain": 1, "report": 1}),
    "report": ({"report": {"title": "Another"}}, {"report": 1}),
}


@pytest.fixture(scope="module")
def found(finished: Workflow, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, int]]:
    """What a dry run would do after each edit."""
    folder = tmp_path_factory.mktemp("edits")
    for edit, (values, _) in EDITS.items():
        (folder / f"{edit}.yaml").write_text(yaml.safe_dump(values))
    done = finished.many([["-n", "--configfile", str(DEFAULT_RUN), str(folder / f"{edit}.yaml")] for edit in EDITS])
    return {edit: dict(jobs(each)) for edit, each in zip(EDITS, done, strict=True)}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_reruns_what_depends_on_it(edit: str, found: dict[str, dict[str, int]]) -> None:
    assert found[edit] == EDITS[edit][1]


def test_every_section_is_edited() -> None:
    assert {section for edit, _ in EDITS.values() for section in edit} == set(Config.model_fields)


def test_a_changed_table_reads_the_cohort_again(tmp_path: Path) -> None:
    flow = Workflow(tmp_path, stub=True)
    table = tmp_path / "scans.csv"
    table.write_text(rows := "path,label,cst\na.png,1,250\nb.png,0,300\nc.png,1,300\n")
    flow.configure(
        {"cohort": {"name": "folder", "root": str(tmp_path), "table": str(table)}, "classify": {"seeds": [0]}}
    )
    assert flow.run("--cores", "2").returncode == 0
    assert not flow.rules()
    table.write_text(rows.replace("b.png,0", "b.png,1"))  # another label
    assert flow.rules() == BUILT_IN
    table.write_text(rows + "d.png,1,300\n")  # another scan
    assert flow.rules() == BUILT_IN
    table.write_text(rows)  # as it was: content counts, not time
    assert not flow.rules()


# What a new number of a stage reruns: the stage and all that follows it.
AFTER = {
    "cohort": {"phantom": 1, **STORE},
    "pretrain": {"pretrain": 2, **TRAINED},
    "embed": {"embed": 3, "classify": 6, "explain": 3, **END},
    "classify": {"classify": 15, "clinical": 3, "explain": 2, **END},
    "evaluate": {"evaluate": 1, "inference": 1, **PAGE},
    "audit": AUDITED,
    "explain": {"explain": 3, "report": 1},
    "report": PAGE,
    "inference": {"inference": 1},
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_whose_results_have_changed_runs_again(stage: str, finished: Workflow) -> None:
    done = finished.run_after(f"import octdino; octdino.STAGES[{stage!r}] += 1", "-n")
    assert jobs((done.returncode, done.stdout + done.stderr)) == AFTER[stage]


def test_forced_and_lost_results_run_again_with_what_follows(finished: Workflow, tmp_path: Path) -> None:
    assert finished.rules("--forcerun", "evaluate") == {"evaluate": 1, "inference": 1, **PAGE}
    flow = Workflow(tmp_path / "copy", stub=False)
    shutil.copytree(finished.folder, flow.folder, symlinks=True)
    shutil.rmtree(flow.folder / "results/phantom/classify/dino-linear/resnet18_narrow/f1")
    assert flow.rules() == {"classify": 1, "explain": 1, **END}


def test_another_library_trains_nothing_again(finished: Workflow) -> None:
    env = ROOT / "envs" / "octdino.yaml"
    stamp = env.stat()
    try:
        env.touch()
        assert not finished.rules()
    finally:
        os.utime(env, (stamp.st_atime, stamp.st_mtime))
