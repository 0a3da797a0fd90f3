"""Each preset of the replication: from the data set's own files to its table, small enough for a test."""

import argparse
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

from octdino.config import Config, ModelSettings
from octdino.models.backbones import create_backbone
from replication.settings import ReplicationSettings
from tests.workflow.conftest import ROOT, Workflow

QUICK: dict[str, Any] = {
    "pretrain": {
        "epochs": 2, "batch_size": 16, "online_eval_max_scans": 100, "eval_every": 1,
        "augment": {"global_size": 32, "local_size": 16},
    },
    "classify": {
        "epochs": 2, "min_steps": 4, "batch_size": 16, "seeds": [0], "augment": {"global_size": 32},
        "inverse_regularization": [1.0],
    },
    "evaluate": {"resamples": 100, "min_positive_patients": 2, "min_test_patients": 2},
    "embed": {"size": 32},
    "explain": {"size": 32, "resamples": 100, "scans": 20, "examples": 2, "retrieval_gallery": 50},
    "replication": {"protocol": {"epochs": 2}},
}  # fmt: skip
FOLDER = ROOT / "replication"
SNAKEFILE = ["--snakefile", str(FOLDER / "Snakefile")]
RESNET = {"timm": "resnet18", "args": {"channels": [8, 8, 16, 16]}}
VIT = {"timm": "vit_tiny_patch16_224", "args": {"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}}
PRESETS = ["imagenette", "imagenette-hour", "byol-stl10", "cifar10-transfer", "voc12-attention"]


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`changes` laid over `base`, section by section."""
    found = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(found.get(key), dict)
        found[key] = merged(found[key], value) if both else value
    return found


def preset(name: str) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    return values


def warm_python(programs: Path, folder: Path) -> None:
    """Make `python -m replication VERB …` in a job start warm."""
    folder.mkdir()
    script = folder / "python"
    script.write_text(f'#!/bin/sh\nexec {programs}/warm-python "$@"\n')
    script.chmod(0o755)


def stub_python(programs: Path) -> None:
    """Make `python -m replication VERB …` in a job call the stub of the workflow's tests."""
    script = programs / "python"
    script.write_text(
        f'#!/bin/sh\nshift 2\nexec {sys.executable} -I -S {ROOT / "tests/workflow/octdino_stub.py"} "$@"\n'
    )
    script.chmod(0o755)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_makes_every_number_that_it_quotes(name: str, tmp_path: Path) -> None:
    """A dry run of the stub's world: each quoted number's table is one that the preset's rules make."""
    flow = Workflow(tmp_path, stub=True)
    stub_python(tmp_path / "bin")
    done = flow.run(*SNAKEFILE, "--cores", "2", "--configfile", str(FOLDER / f"{name}.yaml"))
    assert done.returncode == 0, done.stderr
    values = preset(name)
    replication = ReplicationSettings.parse(values.pop("replication"), name)
    results = tmp_path / "results" / Config.parse(values, name).cohort.results_name
    patterns = {
        "metrics": "classify/{name}/{backbone}/f{fraction:g}/fold0-seed0/predictions.csv",
        "protocol": "replication/{name}/{backbone}/f{fraction:g}/fold0-seed0/protocol.json",
        "history": "pretrain/{name}/{backbone}/fold0-seed0/history.csv",
        "jaccard": "explain/{name}/{backbone}/fold0-seed0/jaccard.csv",
    }
    assert (results / "replication" / "replication.md").is_file()
    assert replication.numbers
    for quoted in replication.numbers:
        assert quoted.corrected or quoted.repeated
        for number in filter(None, (quoted.repeated, quoted.corrected)):
            path = results / patterns[number.table].format(**number.model_dump())
            assert path.is_file(), path


def write_dino(folder: Path, model: dict[str, Any]) -> Path:
    """A checkpoint as the reference DINO writes it, with random weights."""
    network = create_backbone(ModelSettings(**model), 3, 32)
    teacher = {f"backbone.{name}": value for name, value in network.state_dict().items()}
    path = folder / f"{model['timm'].split('.')[0]}.pth"
    torch.save({"teacher": teacher, "epoch": 100, "args": argparse.Namespace(arch="vit_small")}, path)
    return path


def imagenette(data: Path, root: Path) -> None:
    """Twelve training and five validation images of each class, in their own folders."""
    counts: dict[tuple[str, str], int] = {}
    with tarfile.open(data / "imagenette2-160.tar") as archive:
        for member in archive:
            _, split, wnid, *_ = [*member.name.split("/"), "", ""]
            if member.isfile():
                counts[split, wnid] = counts.get((split, wnid), 0) + 1
                if counts[split, wnid] <= (12 if split == "train" else 5):
                    archive.extract(member, root, filter="data")


def cifar(data: Path, root: Path) -> None:
    """Twelve training and five test images of each class, as class folders."""
    counts: dict[tuple[str, str], int] = {}
    with tarfile.open(data / "cifar10_images.tar") as archive:
        for member in archive:
            split, name = [*member.name.split("/"), "", ""][1:3]
            if member.isfile():
                counts[split, name] = counts.get((split, name), 0) + 1
                if counts[split, name] <= (12 if split == "train" else 5):
                    archive.extract(member, root, filter="data")


def stl(data: Path, root: Path) -> None:
    """The published binaries, of CIFAR's pictures enlarged: 120 for training, 50 to test, 100 without a label."""
    cifar(data, root / "pictures")
    folder = root / "stl10_binary"
    folder.mkdir(parents=True)
    classes = sorted(path.name for path in (root / "pictures/cifar10/train").iterdir())
    for split in ("train", "test"):
        paths = sorted((root / "pictures/cifar10" / split).glob("*/*.jpg"))
        images = np.stack([np.asarray(Image.open(path).convert("RGB").resize((96, 96))) for path in paths])
        images.transpose(0, 3, 2, 1).tofile(folder / f"{split}_X.bin")
        labels = np.array([classes.index(path.parent.name) + 1 for path in paths], np.uint8)
        labels.tofile(folder / f"{split}_y.bin")
        if split == "train":
            images[:100, ::-1].transpose(0, 3, 2, 1).tofile(folder / "unlabeled_X.bin")
    (folder / "class_names.txt").write_text("\n".join(classes))
    (folder / "fold_indices.txt").write_text("0 1 2\n" * 10)


def voc(data: Path, root: Path) -> None:
    """The seven pictures with masks, three to train and four to validate, each mask as its objects too."""
    folder = root / "VOCdevkit" / "VOC2012"
    names = sorted(path.stem for path in (data / "voc2012_sample/JPEGImages").glob("*.jpg"))
    for kind, suffix in (("JPEGImages", "jpg"), ("SegmentationClass", "png"), ("SegmentationObject", "png")):
        source = "JPEGImages" if kind == "JPEGImages" else "SegmentationClass"
        (folder / kind).mkdir(parents=True)
        for name in names:
            content = (data / "voc2012_sample" / source / f"{name}.{suffix}").read_bytes()
            (folder / kind / f"{name}.{suffix}").write_bytes(content)
    lists = folder / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("\n".join(names[:3]) + "\n")
    (lists / "val.txt").write_text("\n".join(names[3:]) + "\n")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in PRESETS if name != "imagenette-hour"])  # its rules, smaller
def test_a_preset_runs_from_published_files_to_its_table(
    name: str, shared_data: Path, programs: Path, tmp_path: Path
) -> None:
    values = preset(name)
    cohort = values["cohort"]["name"]
    write = {"imagenette": imagenette, "cifar10": cifar, "stl10": stl, "voc12": voc}[cohort]
    write(shared_data, tmp_path / "data")
    models: dict[str, Any] = {}
    for backbone in values["pretrain"]["backbones"]:
        known = RESNET if "resnet" in backbone else VIT
        models[backbone] = {**known, "weights": str(write_dino(tmp_path, known))}
    image = {"size": [32, 32] if cohort != "voc12" else [64, 64]}
    changes = merged(QUICK, {"cohort": {"root": str(tmp_path / "data"), "image": image}, "models": models})
    (tmp_path / "changes.yaml").write_text(yaml.safe_dump(changes))
    flow = Workflow(tmp_path, stub=False)
    warm_python(programs, flow.stub)  # PATH begins with this folder
    done = flow.run(
        *SNAKEFILE,
        "--cores",
        "2",
        "--configfile",
        str(FOLDER / f"{name}.yaml"),
        str(tmp_path / "changes.yaml"),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    results = tmp_path / "results" / values["cohort"].get("title", cohort)
    table = pd.read_csv(results / "replication" / "replication.csv")
    quoted = values["replication"]["numbers"]
    assert table["item"].tolist() == [one["item"] for one in quoted]
    for one, row in zip(quoted, table.to_dict("records"), strict=True):
        for key in ("repeated", "corrected"):
            assert np.isfinite(row[key]) == (key in one), row
    assert (results / "report" / "report.html").is_file()


def test_mistakes_in_the_section_replication_end_before_any_job(tmp_path: Path) -> None:
    flow = Workflow(tmp_path, stub=True)
    mistakes = {
        "replication: protocol.epochs: 0 is not allowed": {"protocol": {"epochs": 0}},
        "replication: protocl: unknown key; did you mean protocol?": {"protocl": {}},
        "replication.protocol.arms: vicreg not among pretrain.methods": {"protocol": {"arms": ["vicreg-linear"]}},
    }
    for line, section in mistakes.items():
        (tmp_path / "own.yaml").write_text(yaml.safe_dump({"replication": section}))
        done = flow.run(*SNAKEFILE, "-n", "--configfile", str(tmp_path / "own.yaml"))
        assert done.returncode != 0
        assert f"octdino: error: {line}" in done.stderr


def test_the_ordinary_workflow_names_where_the_old_keys_went(tmp_path: Path) -> None:
    flow = Workflow(tmp_path, stub=True)
    flow.configure({"classify": {"reported": {"arms": []}}, "report": {"quoted": []}})
    done = flow.run("-n")
    assert "classify.reported: moved to replication.protocol of replication/Snakefile" in done.stderr
    assert "report.quoted: moved to replication.numbers of replication/Snakefile" in done.stderr


def test_octdino_imports_nothing_of_the_replication() -> None:
    for path in (ROOT / "octdino").rglob("*.py"):
        assert "import replication" not in path.read_text(), path
        assert "from replication" not in path.read_text(), path
