"""A small store with labels that can be learned, for the tests of training."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from octdino.config import ImageSettings, ModelSettings
from octdino.data.csv_io import write_table
from octdino.data.schemas.csv_schemas import MANIFEST, SPLITS
from octdino.data.schemas.metadata import BackboneSpec
from octdino.data.store import content_hash, statistics
from octdino.data.store_writer import StoreWriter
from octdino.models.backbones import create_backbone, save_backbone

LABELS = ["square", "stripes"]
INPUT = {"image": {"size": [32, 32]}, "size": 32, "mean": [0.2], "std": [0.2]}
# A ResNet of one narrow block per stage.
TINY_RESNET = ModelSettings(timm="resnet18", args={"channels": [8, 8, 16, 16], "layers": [1, 1, 1, 1]})
BACKBONE_CARD = {  # what `save_backbone` wants beside the spec
    "name": "dino", "backbone": "b", "fold": 0, "seed": 0, "cohort": "small", "scope": "train_patients", "input": INPUT,
}  # fmt: skip


def store_attributes(manifest: pd.DataFrame, size: int, channels: int = 1) -> dict[str, Any]:
    """What the cohort stage writes to a store of the manifest's scans, beside mean and std."""
    image = ImageSettings(size=(size, size), channels=channels)
    source = content_hash(image, manifest["path"], manifest["pixel_hash"])
    return {"source": source, "settings": {"image": image.model_dump(mode="json")}}


def write_small_backbone(folder: Path, model: ModelSettings) -> Path:
    """backbone.safetensors and backbone.json of random weights for inputs of 32 px, as of a pretraining run."""
    torch.manual_seed(0)
    spec = BackboneSpec(timm=model.timm, args=model.args, in_chans=1, size=32)
    save_backbone(folder, create_backbone(model, 1, 32), spec, BACKBONE_CARD)
    return folder


def write_small_cohort(
    folder: Path, patients: int = 20, scans: int = 6, size: int = 32, seed: int = 0, exclusive: bool = False
) -> Path:
    """manifest.csv, splits.csv and scans.h5 in `folder`; the labels are a bright square and dim stripes. The store.

    Half of each patient's scans are unlabeled; 60 % of patients train, 20 % validate, 20 % test. `exclusive`: either
    the square or the stripes, never both or none.
    """
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"p{i}" for i in range(patients)]
    side = ["train"] * (patients * 6 // 10) + ["val"] * (patients * 2 // 10)
    side += ["test"] * (patients - len(side))
    rows, images = [], []
    for patient, split in zip(names, side, strict=True):
        for scan in range(scans):
            truth = np.eye(2, dtype=int)[rng.integers(2)] if exclusive else rng.integers(0, 2, len(LABELS))
            image = rng.integers(0, 60, (1, size, size))
            top, left = rng.integers(0, size * 2 // 3, 2)
            image[0, top : top + size // 3, left : left + size // 3] += 120 * truth[0]
            image[0, ::4] += 40 * truth[1]
            images.append(image.astype(np.uint8))
            row = {"scan_id": f"{patient}-{scan}", "path": f"{patient}/{scan}.png", "patient": patient, "split": split}
            row |= {"cst": 250 + 100 * truth[0] + rng.normal(0, 5), "bcva": 70.0, "slice": scan + 1}
            row |= {label: value if scan % 2 else np.nan for label, value in zip(LABELS, truth, strict=True)}
            rows.append(row)
    manifest = pd.DataFrame(rows).assign(cohort="small", visit="V1")
    manifest["pixel_hash"] = [hashlib.sha256(image.tobytes()).hexdigest() for image in images]
    manifest["group"] = manifest["eye"] = manifest["patient"]
    write_table(folder / "manifest.csv", manifest, MANIFEST)
    splits = pd.DataFrame({"fold": 0, "patient": names, "group": names, "split": side})
    splits["rank"] = [index if split == "train" else None for index, split in enumerate(side)]
    write_table(folder / "splits.csv", splits, SPLITS)
    with StoreWriter(folder / "scans.h5", 1, (size, size)) as writer:
        for image, scan_id in zip(images, manifest["scan_id"], strict=True):
            writer.append(image, scan_id)
        mean, std = statistics(writer.moments[manifest["split"] == "train"])
        found = {"mean": mean, "std": std, "exclusive": exclusive, **store_attributes(manifest, size)}
        writer.finish(np.arange(len(images)), found)
    return folder / "scans.h5"
