"""Model folders with random weights and any head, without a training."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from octdino.config import ModelSettings
from octdino.data.schemas.metadata import Input, write_metadata
from octdino.data.schemas.model_folder import BACKBONE, DENSITY, HEAD, ModelMetadata
from octdino.data.weights_file import write_weights
from octdino.inference.scan_model import Network, density_tensors
from octdino.models.backbones import create_backbone
from octdino.models.mlp import Mlp
from octdino.stats.feature_density import fit_density
from tests.small import TINY_RESNET

VIT = ModelSettings(
    timm="vit_tiny_patch16_224", args={"patch_size": 8, "embed_dim": 16, "depth": 3, "num_heads": 2}
)  # fmt: skip
LABELS = ["square", "stripes", "ring | <b>"]
SCORES = [
    {"label": "macro", "metric": "auroc", "value": 0.8125, "low": 0.75, "high": 0.875, "n_patients": 12},
    {"label": "square", "metric": "auroc", "value": 0.7, "low": 0.6, "high": 0.8, "n_patients": 12},
    {"label": "ring | <b>", "metric": "auroc", "value": None},
    {"label": "macro", "metric": "brier", "value": 0.21, "low": 0.2, "high": 0.25, "n_patients": 12},
]


@dataclass(frozen=True)
class Recipe:
    """What distinguishes a model folder."""

    model: ModelSettings = TINY_RESNET
    kind: str = "linear"
    readout: str = "pooled"
    exclusive: bool = False
    temperature: float | None = 1.7
    stored: tuple[int, int] = (32, 32)
    size: int = 32
    channels: int = 1
    percentiles: tuple[float, float] | None = None


def smooth_scans(count: int, channels: int, size: tuple[int, int], seed: int) -> np.ndarray:
    """Blurred noise, uint8 [N, C, H, W]: neither the noise nor the patterns of the export's own check."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.random((count, channels, 5, 6)))
    fine = nn.functional.interpolate(coarse, size, mode="bicubic").clamp(0, 1).numpy()
    scans: np.ndarray = np.rint(255 * fine * rng.uniform(0.3, 1, (count, 1, 1, 1))).astype(np.uint8)
    return scans


def write_model_folder(folder: Path, recipe: Recipe) -> Path:
    """Write a model folder of random weights; its logits vary over scans."""
    torch.manual_seed(0)
    backbone = create_backbone(recipe.model, recipe.channels, recipe.size).eval()
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    image = {"size": recipe.stored, "channels": recipe.channels, "percentiles": recipe.percentiles}
    mean, std = [0.2, 0.3, 0.4][: recipe.channels], [0.2, 0.25, 0.3][: recipe.channels]
    given = Input.model_validate({"image": image, "size": recipe.size, "mean": mean, "std": std})
    network = Network(backbone, given)
    features = network.features(smooth_scans(60, recipe.channels, recipe.stored, seed=1))
    head = random_head(recipe, torch.from_numpy(network.part(features, recipe.readout)))
    density = fit_density(features)
    sha256 = {
        BACKBONE: write_weights(folder / BACKBONE, backbone.state_dict()),
        HEAD: write_weights(folder / HEAD, head),
        DENSITY: write_weights(folder / DENSITY, density_tensors(density)),
    }
    spec = {"timm": recipe.model.timm, "args": recipe.model.args, "in_chans": recipe.channels, "size": recipe.size}
    more = {"linear": {}, "mlp": {"hidden": 8}, "knn": {"neighbors": 7}}[recipe.kind]
    values: dict[str, Any] = {
        "arm": "dino-linear", "backbone": "b", "spec": spec, "input": given.plain(), "readout": recipe.readout,
        "head": {"kind": recipe.kind, **more}, "labels": LABELS, "exclusive": recipe.exclusive,
        "thresholds": dict(zip(LABELS, (0.3, 0.5, None), strict=True)), "threshold_rule": "youden",
        "temperature": recipe.temperature, "validation_score": 0.8, "metrics": SCORES, "sha256": sha256,
        "out_of_distribution": {
            "readout": network.widest, "threshold": 9.5, "accepted": 0.95, "n_train_scans": 60, "n_val_scans": 20,
        },
        "intended_use": "For tests.",
        "provenance": {
            "cohort": "clinic-a", "kind": "folder", "source": "abc", "scope": "train_patients", "fraction": 1.0,
            "fold": 0, "seed": 0, "n_train_patients": 9, "n_train_scans": 30, "versions": {"octdino": "0.1.0"},
            "notes": str(folder),
        },
    }  # fmt: skip
    write_metadata(folder / "model.json", ModelMetadata.parse(values, "model.json"))
    return folder


def random_head(recipe: Recipe, features: torch.Tensor) -> dict[str, torch.Tensor]:
    """Tensors of a head whose logits have about unit variance over the scans."""
    count = len(LABELS)
    if recipe.kind == "linear":
        weight = 2 * torch.randn(count, features.shape[1]) / (features.std(0) + 1e-3) / features.shape[1] ** 0.5
        return {"weight": weight.double(), "bias": -(weight @ features.mean(0)).double()}
    if recipe.kind == "mlp":
        return dict(Mlp(features, 8, count).state_dict())
    labels = torch.randint(0, 2, (len(features), count)).float()
    if recipe.exclusive:
        labels = torch.eye(count)[torch.randint(0, count, (len(features),))]
    return {"bank": features, "labels": labels}
