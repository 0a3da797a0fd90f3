"""The embed stage: features of every scan equal those of a naive loop, whoever the weights are from."""

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from octdino.cli import main
from octdino.config import EmbedSettings, ModelSettings
from octdino.data.cohort_reader import read_cohort
from octdino.data.embeddings import read_embeddings
from octdino.embed import embedding_stage
from octdino.embed.embedding_stage import embed
from octdino.errors import UserError
from octdino.models.backbones import create_backbone, load_backbone
from octdino.models.initial_weights import start_backbone
from tests.small import TINY_RESNET, write_small_backbone, write_small_cohort

VIT = ModelSettings(timm="test_vit", args={"patch_size": 8})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_cohort(tmp_path_factory.mktemp("cohort"), patients=24)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_backbone(tmp_path_factory.mktemp("pretrained"), TINY_RESNET)


def run(init: str, store: Path, out: Path, model: ModelSettings = TINY_RESNET, size: int = 32, **more: Any) -> Path:
    named: dict[str, Any] = {"pretrained": None, "fold": 0, "seed": 0, **more}
    embed(init, EmbedSettings(size=size), store=store, backbone="b", model=model, out=out, **named)
    return out / "embeddings.h5"


def naive(network: nn.Module, store: Path) -> np.ndarray:
    """One scan at a time, standardized by the training patients of fold 0."""
    cohort = read_cohort(store)
    images = cohort.images(np.arange(len(cohort)))
    pixels = images[(cohort.manifest["split"] == "train").to_numpy(bool)] / 255
    network.eval()
    with torch.no_grad():
        rows = [network(torch.from_numpy((i[None] / 255 - pixels.mean()) / pixels.std()).float())[0] for i in images]
    return torch.stack(rows).numpy()


@pytest.mark.parametrize("model", [TINY_RESNET, VIT])
def test_features_are_those_of_a_loop_over_scans(
    store: Path, tmp_path: Path, model: ModelSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding_stage, "READ_BYTES", 1)  # blocks of 64 of the 144 scans
    read = read_embeddings(run("scratch", store, tmp_path, model), read_cohort(store))
    network, _ = start_backbone("scratch", model, 1, 32, pretrained=None, seed=0)
    np.testing.assert_allclose(read.pooled, naive(network, store), rtol=1e-3, atol=1e-4)
    assert read.attributes.pretrained is None
    assert (read.attributes.init, read.attributes.size, read.attributes.channels) == ("scratch", 32, 1)


def test_features_of_a_pretraining_name_its_weights(store: Path, pretrained: Path, tmp_path: Path) -> None:
    read = read_embeddings(run("dino", store, tmp_path, pretrained=pretrained), read_cohort(store))
    np.testing.assert_allclose(read.pooled, naive(load_backbone(pretrained)[0], store), rtol=1e-3, atol=1e-4)
    file = pretrained / "backbone.safetensors"
    assert read.attributes.pretrained == hashlib.sha256(file.read_bytes()).hexdigest()


def test_the_backbone_is_not_changed(store: Path, pretrained: Path) -> None:
    """Weights and batch-norm statistics: every byte is as before."""
    network = load_backbone(pretrained)[0].train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    cohort = read_cohort(store)
    attributes = read_embeddings(run("dino", store, store.parent / "embed", pretrained=pretrained), cohort).attributes
    list(embedding_stage.feature_blocks(network, cohort, attributes))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_size_mean_and_std_are_those_that_were_asked_for(store: Path, tmp_path: Path) -> None:
    small, large = (
        read_embeddings(run("scratch", store, tmp_path / str(size), size=size), read_cohort(store)) for size in (16, 32)
    )
    assert not np.allclose(small.features, large.features)
    cohort = read_cohort(store)
    assert (small.attributes.mean, small.attributes.std) == cohort.statistics(0)


def test_the_same_seed_gives_the_same_bytes(store: Path, tmp_path: Path) -> None:
    a, b, c = (
        run("scratch", store, tmp_path / name, seed=seed).read_bytes() for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert a == b != c


def test_a_diverged_pretraining_is_one_line(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> tuple[nn.Module, None]:
        network = create_backbone(TINY_RESNET, 1, 32)
        nn.init.constant_(network.conv1.weight, float("nan"))
        return network, None

    monkeypatch.setattr(embedding_stage, "start_backbone", broken)
    with pytest.raises(UserError, match="features of scratch are not finite"):
        run("scratch", store, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_mistakes_are_one_line(store: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="start from dino: name its pretraining run's folder with --pretrained"):
        run("dino", store, tmp_path)
    with pytest.raises(UserError, match=r"splits\.csv: no fold 3"):
        run("scratch", store, tmp_path, fold=3)


def test_memory_of_a_batch_does_not_grow_with_the_input(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cohort, seen = read_cohort(store), []
    monkeypatch.setattr(embedding_stage, "input_batches", lambda *_, batch, **__: seen.append(batch) or [])
    monkeypatch.setattr(embedding_stage, "extract_features", lambda *_: torch.zeros(0, 1))
    for size in (96, 128, 224, 480):
        attributes = type("Attributes", (), {"readout": "pooled", "size": size, "mean": [0.0], "std": [1.0]})
        list(embedding_stage.feature_blocks(nn.Identity(), cohort, attributes))
    assert seen == [256, 256, 83, 18]


def test_the_command_writes_what_arms_read_without_torch(store: Path, tmp_path: Path) -> None:
    """By hand, as the README has it; the processes of linear and knn import no torch, nor what else takes long."""
    model = TINY_RESNET.model_dump_json(exclude={"weights"})
    run = ["--store", str(store), "--backbone", "b"]
    embeddings = tmp_path / "embed"
    assert main(["embed", "scratch", *run, "--model", model, "--size", "32", "--out", str(embeddings)]) == 0
    heavy = ("torch", "timm", "sklearn", "scipy.stats", "matplotlib", "octdino.models.backbones")
    code = (
        "import sys; from octdino.cli import main; code = main(sys.argv[1:]); "
        f"print(code, [m for m in {heavy!r} if m in sys.modules])"
    )
    for arm in ("scratch-linear", "scratch-knn"):
        out = tmp_path / arm
        command = ["classify", arm, *run, "--embeddings", str(embeddings / "embeddings.h5"), "--out", str(out)]
        done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "0 []", arm
        assert len(pd.read_csv(out / "predictions.csv"))
