"""Benchmark of `octdino predict`: scans per second from files to tables, decoding and start of processes included."""

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.scans import Scans
from benchmarks.stages import Row, in_new_process
from octdino.config import ImageSettings, ModelSettings
from octdino.data.schemas.metadata import Input, write_metadata
from octdino.data.schemas.model_folder import BACKBONE, DENSITY, HEAD, ModelMetadata
from octdino.data.weights_file import write_weights
from octdino.inference.predict import PredictOptions, predict
from octdino.inference.scan_model import Network, density_tensors
from octdino.models.backbones import create_backbone
from octdino.stats.feature_density import fit_density
from tests.scans.volumes.written_volumes import vol_bytes

LABELS = [f"biomarker {number}" for number in range(16)]
SIZE = 96  # px, of the default run
COPIES = 5
SLICES = 49  # B-scans per volume, as a Spectralis macular cube has


def inference(scans: Scans, folder: Path, workers: int) -> list[Row]:
    """Predict B-scans of 496 x 504 px as PNG and as `.vol`, in float32 and bfloat16, with the default run's network."""
    model = write_random_model(folder / "model")
    inputs = {"PNG": write_pngs(scans, folder / "large-png"), ".vol": write_volumes(scans, folder / "volumes")}
    rows = []
    for kind, place in inputs.items():
        for precision in ("float32", "bfloat16"):
            out = folder / "predicted"
            options = PredictOptions(precision=precision, workers=workers)
            counts, seconds, peak = in_new_process(_predict, model, place, out, options)
            rows.append(
                {
                    "files": kind,
                    "precision": precision,
                    "scans": counts["predicted"],
                    "scans/s": counts["predicted"] / seconds,
                    "peak memory": peak,
                }
            )
            shutil.rmtree(out)
    return rows


def _predict(model: Path, place: Path, out: Path, options: PredictOptions) -> dict[str, int]:
    return asdict(predict([model], [str(place)], out, options))


def write_random_model(folder: Path) -> Path:
    """Write a model folder with the default run's network and random weights, which take as long as trained ones."""
    torch.manual_seed(0)
    settings = ModelSettings(timm="resnet18", args={"channels": [16, 32, 64, 128]})
    image = ImageSettings(size=(SIZE, SIZE), crop="retina")
    given = Input(image=image, size=SIZE, mean=[0.2], std=[0.2])
    network = Network(create_backbone(settings, 1, SIZE).eval(), given)
    noise = np.random.default_rng(0).integers(0, 256, (300, 1, SIZE, SIZE)).astype(np.uint8)
    features = network.features(noise)
    head = {"weight": torch.randn(len(LABELS), network.pooled) / 10, "bias": torch.zeros(len(LABELS))}
    values: dict[str, Any] = {
        "format": 1, "arm": "scratch-linear", "backbone": "resnet18_narrow", "readout": "pooled",
        "spec": {"timm": settings.timm, "args": settings.args, "in_chans": 1, "size": SIZE},
        "input": given.plain(), "head": {"kind": "linear"}, "labels": LABELS, "exclusive": False,
        "thresholds": dict.fromkeys(LABELS, 0.5), "threshold_rule": "youden", "temperature": 1.0,
        "out_of_distribution": {
            "readout": network.widest, "threshold": 1000.0, "accepted": 0.95, "n_train_scans": 300, "n_val_scans": 1,
        },
        "validation_score": None, "metrics": [], "intended_use": "Timing.",
        "provenance": {
            "cohort": "phantom", "kind": "phantom", "source": "", "fraction": 1.0, "fold": 0, "seed": 0, "versions": {},
        },
        "sha256": {
            BACKBONE: write_weights(folder / BACKBONE, network.backbone.state_dict()),
            HEAD: write_weights(folder / HEAD, head),
            DENSITY: write_weights(folder / DENSITY, density_tensors(fit_density(features))),
        },
    }  # fmt: skip
    write_metadata(folder / "model.json", ModelMetadata.parse(values, str(folder)))
    return folder


def write_pngs(scans: Scans, folder: Path) -> Path:
    """Write all B-scans as PNG files of their own size, `COPIES` times, so that the start weighs little."""
    if not folder.exists():
        folder.mkdir(parents=True)
        for index, path in enumerate(_b_scans(scans)):
            with Image.open(path) as image:
                image.save(folder / f"0-{index:06d}.png")
            for copy in range(1, COPIES):
                shutil.copy(folder / f"0-{index:06d}.png", folder / f"{copy}-{index:06d}.png")
    return folder


def write_volumes(scans: Scans, folder: Path) -> Path:
    """Write the B-scans as `.vol` files of 49 each; 1 MB per B-scan."""
    if not folder.exists():
        folder.mkdir(parents=True)
        paths = _b_scans(scans)
        for start in range(0, len(paths) - SLICES + 1, SLICES):
            frames = [np.asarray(Image.open(path).convert("L"), np.float32) for path in paths[start : start + SLICES]]
            (folder / f"{start:06d}.vol").write_bytes(vol_bytes((np.stack(frames) / 255) ** 4))
    return folder


def _b_scans(scans: Scans) -> list[Path]:
    """Files of the phantom's B-scans, which are 496 px high and 504 px wide."""
    found = [path for path in sorted(scans.files.rglob("*")) if path.suffix in (".tif", ".png")]
    return [path for path in found if "masks" not in path.parts and _size(path) == (504, 496)]


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size
