"""Short trials in a process of their own: the real training steps and embeddings, on random scans of the real size.

As a program it reads a trial as JSON from standard input and prints what it measured as JSON. Times depend on the size
of scans and views and on the networks, not on what the scans show; no weights are read or downloaded.
"""

import functools
import json
import logging
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from octdino.classify.finetune import Finetune, Schedule
from octdino.classify.linear import fit_linear
from octdino.classify.mlp import fit_mlp
from octdino.cli.planning.random_scans import random_data, random_labeled, random_labels
from octdino.cohort.registry import READERS
from octdino.config import ClassifySettings, CohortSettings, ModelSettings, PretrainSettings
from octdino.config.cohort import ImageSettings
from octdino.config.names import Readout
from octdino.models.backbones import create_backbone
from octdino.models.initial_weights import Start
from octdino.models.input_batches import input_batches
from octdino.models.readouts import extract_features
from octdino.phantom import write_phantom
from octdino.pretrain.pretraining_data import PretrainData
from octdino.pretrain.trainer import Trainer
from octdino.scans.decode_pool import decode_scans
from octdino.training.checkpoints import RunState
from octdino.training.determinism import set_determinism
from octdino.training.precision import device_name, pick_device

WARM = 3  # first steps, which are left out
MEASURED = 128  # scans that are embedded
FITTED = 1500  # labeled scans of a trial of linear probes

Measured = dict[str, Any]
Seconds = list[float]  # on a machine without other work (its processor's time), as measured, and of slow steps


def trial_pretrain(asked: dict[str, Any], folder: Path) -> Measured:
    """Take some steps of the real trainer.

    Args:
        asked: method, settings, backbone, model; scans: that the run trains on; image: settings of the store; steps and
            seconds: the most of them.
        folder: temporary.

    Returns:
        step_seconds; evaluation_seconds: per scan of the online evaluation; total_steps, epochs: of the real run;
        state_bytes: of a checkpoint; weights_bytes: of the backbone.
    """
    settings = PretrainSettings.model_validate(asked["settings"]).at_size(asked["scans"])
    settings = settings.model_copy(update={"export": "last"})
    set_determinism(settings.deterministic)
    variant = settings.variant(asked["method"]).model_copy(update={"init": None})
    data = random_data(asked["scans"], ImageSettings.model_validate(asked["image"]), variant)
    start = Start(variant, ModelSettings.model_validate(asked["model"]), asked["backbone"], 0, 0)
    trainer = Trainer(settings, asked["method"], start, data, 0, RunState(folder / "state", {}, 1e9))
    trainer.method.train()
    trainer.count_flops()
    step = time_steps(trainer.take_step, asked["steps"], asked["seconds"], trainer.batches.total_steps)
    return {
        "step_seconds": step,
        "evaluation_seconds": _time_features(trainer.method.exported, data, settings.augment.global_size, "pooled"),
        "total_steps": trainer.batches.total_steps,
        "epochs": settings.length,
        "state_bytes": tensor_bytes(trainer.position()),
        "weights_bytes": tensor_bytes(trainer.method.exported.state_dict()),
    }


def trial_classify(asked: dict[str, Any], folder: Path) -> Measured:
    """Take some steps of fine-tuning, embed some scans, and fit classifiers on random features.

    Args:
        asked: settings, model, readout, size (of embedded scans), image, labels, labeled (scans that train); modes: of
            the arms with this backbone.
        folder: unused.

    Returns:
        step_seconds: of fine-tuning; validation_seconds: per scan; embed_seconds: per scan; linear_seconds: per
        labeled scan; mlp_seconds: per step; features: that are embedded; weights_bytes.
    """
    del folder
    settings = ClassifySettings.model_validate(asked["settings"])
    set_determinism(settings.deterministic)
    model, image = ModelSettings.model_validate(asked["model"]), ImageSettings.model_validate(asked["image"])
    data = random_data(max(asked["labeled"], 2), image)
    device, rng = pick_device(), np.random.default_rng(0)
    found: Measured = {}
    size = settings.augment.global_size
    network = create_backbone(model, image.channels, size)
    found["weights_bytes"] = tensor_bytes(network.state_dict())
    if "finetune" in asked["modes"]:
        found |= _finetune(settings, data, network, asked)
    network = create_backbone(model, image.channels, asked["size"]).to(device).to(memory_format=torch.channels_last)
    found["embed_seconds"] = _time_features(network, data, asked["size"], asked["readout"])
    inputs = input_batches(data.images[:2], data.mean, data.std, asked["size"], device)
    found["features"] = extract_features(network, inputs, asked["readout"]).shape[1]
    count = min(FITTED, max(asked["labeled"], 8))
    x, truth = rng.normal(size=(count, found["features"])), random_labels(count, asked["labels"])
    if "linear" in asked["modes"] or "finetune" in asked["modes"]:
        found["linear_seconds"] = time_once(lambda: fit_linear(x, truth, x[:64], truth[:64], settings), count)
    if "mlp" in asked["modes"]:
        short = settings.model_copy(update={"epochs": 1, "min_steps": [20], "lr": settings.lr[:1]})
        steps = max(20, count // settings.batch_size)
        found["mlp_seconds"] = time_once(lambda: fit_mlp(x, truth, x[:64], truth[:64], short, False, 0), steps)
    return found


def _finetune(settings: ClassifySettings, data: PretrainData, network: torch.nn.Module, asked: Measured) -> Measured:
    labeled = random_labeled(data, asked["labels"])
    batch = min(settings.batch_size, len(labeled.manifest))
    schedule = Schedule(batch, max(1, len(labeled.manifest) // batch), 10**6, 10**6)  # never validates
    tuned = Finetune(settings, labeled, network, lr=settings.lr[0], schedule=schedule, pretrained=False, seed=0)
    seconds = time_steps(tuned.train_step, asked["steps"], asked["seconds"], 10**6)
    rows = np.arange(min(len(labeled.manifest), MEASURED))
    tuned.logits(rows[:8])
    return {"step_seconds": seconds, "validation_seconds": time_once(lambda: tuned.logits(rows), len(rows))}


def _time_features(network: torch.nn.Module, data: PretrainData, size: int, readout: Readout) -> Seconds:
    """Return the seconds per scan of embedding, after a first small batch."""
    found = []
    for count in (8, MEASURED):
        images = data.images[:count]
        inputs = input_batches(images, data.mean, data.std, size, pick_device())
        found.append(time_once(functools.partial(extract_features, network, inputs, readout), len(images)))
    return found[-1]


def trial_cohort(asked: dict[str, Any], folder: Path) -> Measured:
    """Decode some scans of the cohort; those of the phantom are written before.

    Args:
        asked: settings of the cohort; scans: the most to decode.

    Returns:
        decode_seconds: per scan; for the phantom also write_seconds and file_bytes per scan.
    """
    settings = CohortSettings.model_validate(asked["settings"])
    found: Measured = {}
    if settings.name == "phantom":
        few = settings.phantom.model_copy(update={"patients": 8, "visits": 2, "slices": 2, "flaws": False})
        seconds = time_once(lambda: write_phantom(few, folder / "files"))
        scans = [path for path in (folder / "files").rglob("*") if path.suffix in (".png", ".tif", ".jpg")]
        count = max(1, len([path for path in scans if "masks" not in path.parts]))
        found["write_seconds"] = [each / count for each in seconds]
        found["file_bytes"] = sum(path.stat().st_size for path in scans) / count
        settings = settings.model_copy(update={"root": folder / "files"})
    table = READERS[settings.name](settings)
    paths = table.scans["path"].tolist()
    chosen = paths[:: max(1, len(paths) // asked["scans"])][: asked["scans"]]
    source = table.image_source()
    found["decode_seconds"] = time_once(
        lambda: list(decode_scans(chosen, source, settings.image, 1)), max(1, len(chosen))
    )
    return found


def time_steps(step: Callable[[], object], steps: int, seconds: float, total: int) -> Seconds:
    """Return the seconds per step after the first ones, which allocate memory and tune kernels."""
    begin, found = time.perf_counter(), []
    for number in range(min(WARM + steps, max(total, 1))):
        found.append(time_once(step))
        if number >= WARM and time.perf_counter() - begin > seconds:
            break
    walls, frees = zip(*((typical, free) for free, typical, _ in found[WARM:] or found[-1:]), strict=True)
    slow = sorted(walls)[-2 if len(walls) > 3 else -1]
    return [statistics.median(frees), statistics.median(walls), slow]


def time_once(work: Callable[[], object], count: int = 1) -> Seconds:
    """Return the seconds per item of `work`, which does `count` of them."""
    device = pick_device()
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    free = wall if device.type == "cuda" else min(wall, cpu / torch.get_num_threads())
    return [free / count, wall / count, wall / count]


def tensor_bytes(value: Any) -> int:
    """Return the bytes of all tensors in nested mappings and lists."""
    if isinstance(value, Tensor):
        return value.nbytes
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return sum(map(tensor_bytes, inner))


TRIALS: dict[str, Callable[[dict[str, Any], Path], Measured]] = {
    "cohort": trial_cohort, "pretrain": trial_pretrain, "classify": trial_classify
}  # fmt: skip


def main() -> None:
    """Print what the trial on standard input measured."""
    logging.disable(logging.WARNING)
    asked = json.load(sys.stdin)
    startup = time.time() - asked["started"]
    startup_free = min(startup, time.process_time())
    with tempfile.TemporaryDirectory(prefix="octdino-plan-") as folder:
        found = TRIALS[asked["kind"]](asked, Path(folder))
    device = pick_device()
    found |= {
        "startup": [startup_free, startup, startup],
        "device": device_name(device),
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        "device_memory": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
