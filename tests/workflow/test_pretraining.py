"""Pretraining runs in the workflow: backbones, initial weights, rerun triggers."""

from pathlib import Path
from typing import Any

from tests.workflow.conftest import FEW, Workflow

CHAIN = "results/phantom/pretrain/simclr/{backbone}/fold{fold}-seed{seed}"


def workflow(folder: Path, **changes: Any) -> Workflow:
    flow = Workflow(folder, stub=True)
    values = {
        "pretrain": {
            "methods": ["dino", "simclr", "second"],
            "backbones": ["resnet18", "vit_tiny_patch16_224"],
            "variants": {
                "dino": {"backbones": ["vit_tiny_patch16_224"]},
                "second": {"method": "dino", "backbones": ["resnet18"], "init": CHAIN},
            },
            **changes,
        },
        "classify": {"arms": ["scratch-finetune", "dino-linear", "simclr-linear", "second-linear"], "fractions": [1.0]},
    }
    flow.configure(values)
    return flow


def test_a_method_trains_the_backbones_that_its_settings_name(tmp_path: Path) -> None:
    flow = workflow(tmp_path)
    counts = flow.rules()
    assert counts["pretrain"] == 4  # one, two, one
    assert counts["classify"] == 6  # two of scratch, one, two, one
    assert flow.run("--cores", "2").returncode == 0
    calls = [call for call in flow.calls() if call.startswith("pretrain dino ")]
    assert len(calls) == 1
    assert "--backbone vit_tiny_patch16_224" in calls[0]


def test_embeddings_are_made_once_per_run_that_arms_start_from(tmp_path: Path) -> None:
    flow = Workflow(tmp_path, stub=True)
    flow.configure(
        {
            "models": {"resnet18_narrow": {"timm": "resnet18", "weights": str(tmp_path / "w.pth")}},
            "pretrain": {"methods": ["dino"], "seeds": [1], "backbones": ["resnet18_narrow"]},
            "classify": {
                "arms": ["scratch-linear", "imagenet-linear", "imagenet-knn", "dino-linear", "dino-knn"],
                "fractions": [0.5, 1.0],
                "seeds": [2, 3],
            },
            "evaluate": {"reference": "scratch-linear"},
            "explain": {"seeds": [3]},
        }
    )
    (tmp_path / "w.pth").write_text("weights")
    assert flow.run("--cores", "2").returncode == 0
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.glob("results/*/embed/*/*/*/embeddings.h5")}
    runs = ("scratch/resnet18_narrow/fold0-seed2", "scratch/resnet18_narrow/fold0-seed3",
            "imagenet/resnet18_narrow/fold0-seed2", "dino/resnet18_narrow/fold0-seed1")  # fmt: skip
    assert found == {f"results/phantom/embed/{run}/embeddings.h5" for run in runs}
    (call,) = (call for call in flow.calls() if call.startswith("embed imagenet"))
    assert f"--model.weights {tmp_path}/w.pth" in call
    for call in flow.calls():
        if call.startswith("classify"):
            assert "--pretrained" not in call
            assert "--model" not in call


def test_a_run_that_starts_from_another_comes_after_it(tmp_path: Path) -> None:
    flow = workflow(tmp_path)
    assert flow.run("--cores", "2").returncode == 0
    calls = [" ".join(call.split()[:2]) + f" {'resnet' in call}" for call in flow.calls()]
    assert calls.index("pretrain second True") > calls.index("pretrain simclr True")
    weights = tmp_path / "results/phantom/pretrain/simclr/resnet18/fold0-seed0/backbone.safetensors"
    weights.write_text("other weights")
    assert flow.rules()["pretrain"] == 1


def test_what_changes_no_weight_trains_nothing_again(tmp_path: Path) -> None:
    flow = workflow(tmp_path)
    assert flow.run("--cores", "2").returncode == 0
    untracked = {"extend": True, "tracking": "wandb", "keep_checkpoints": 3, "checkpoint_seconds": 1.0}
    for name, value in untracked.items():
        changed = [f"pretrain={{{name}: {str(value).lower()}}}"]
        assert flow.rules("--config", *changed) == {"report": 1}, name
    assert flow.rules("--config", "pretrain={export: best}")["pretrain"] == 4


def test_flags_that_change_no_weight_reach_the_command(tmp_path: Path) -> None:
    flow = workflow(tmp_path, extend=True, tracking=["auto", "wandb"], keep_checkpoints=2)
    assert flow.run("--cores", "2").returncode == 0
    calls = [call for call in flow.calls() if call.startswith("pretrain")]
    assert all(
        "--extend" in call and "--tracking auto wandb" in call and "--keep-checkpoints 2" in call for call in calls
    )


def test_imagenet_weights_are_an_input_of_a_run_that_starts_from_them(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_text("weights")
    flow = Workflow(tmp_path, stub=True)
    flow.configure(
        {
            **FEW,
            "models": {"resnet18": {"timm": "resnet18", "weights": "w.pth"}},
            "pretrain": {"methods": ["dino"], "variants": {"dino": {"init": "imagenet"}}},
        }
    )
    assert flow.run("--cores", "2").returncode == 0
    (call,) = (call for call in flow.calls() if call.startswith("pretrain"))
    assert "--model.weights w.pth" in call
    (tmp_path / "w.pth").write_text("others")
    assert flow.rules()["pretrain"] == 1
