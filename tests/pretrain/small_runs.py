"""Small pretraining runs on the small cohort, and what tests read from their folders."""

import json
import os
import signal

import torch

from octdino.config import METHODS, AugmentSettings, ModelSettings, PretrainSettings
from octdino.pretrain import pretrain
from octdino.pretrain.batch_loader import BatchLoader
from octdino.pretrain.trainer import Trainer
from tests.small import TINY_RESNET

MODELS = {
    "resnet": TINY_RESNET,
    "vit": ModelSettings(timm="test_vit", args={"patch_size": 8, "depth": 2, "drop_path_rate": 0.1}),
}
# For comparisons of loops or processes, which drop different paths; their tolerances are those of this depth.
NO_DROP_PATH = {
    "resnet": ModelSettings(timm="resnet18", args={"channels": [8, 8, 16, 16]}),
    "vit": ModelSettings(timm="test_vit", args={"patch_size": 8}),
}
SETTINGS = PretrainSettings(
    epochs=2,
    batch_size=16,
    augment=AugmentSettings(global_size=32, local_size=16, local_views=2),
    methods=list(METHODS),
    variants={"dino": {"prototypes": 32}},
)
STEPS = 4  # per epoch: 72 training scans in batches of 16
PRECISIONS = ("float32", "bfloat16")
TIMES = ("images_per_second", "utilisation", "data_wait", "augmentation")
MASKED = ("dinov2", "mae")  # a ResNet has no patches to mask
PAIRS = [(name, model) for name in METHODS for model in MODELS if (name in MASKED, model) != (True, "resnet")]


def settings(**changes):
    """Return SETTINGS with some values changed."""
    return SETTINGS.model_copy(update=changes)


def starting_from(init):
    """Return settings of one epoch of dino with `init`."""
    return settings(variants={**SETTINGS.variants, "dino": {**SETTINGS.variants["dino"], "init": init}}, epochs=1)


def run(store, out, name="dino", model="resnet", settings=SETTINGS, **changes):
    """Pretrain into the folder `out`."""
    arguments = {"store": store, "backbone": "b", "model": MODELS[model], "fold": 0, "seed": 0, "out": out, **changes}
    pretrain(name, settings, **arguments)


def stop_at(monkeypatch, step):
    """Send this process SIGTERM in the middle of a step, once."""
    take_step = Trainer.take_step

    def stopping(self):
        if self.step == step:
            os.kill(os.getpid(), signal.SIGTERM)
        take_step(self)

    monkeypatch.setattr(Trainer, "take_step", stopping)


def make_loss_nan(monkeypatch, *steps):
    """Make the loss of these steps NaN."""
    load = BatchLoader.load

    def spoiling(self, step, rows=None):
        batch = load(self, step, rows)
        if step in steps:
            batch.views[0][0, 0] = torch.nan
        return batch

    monkeypatch.setattr(BatchLoader, "load", spoiling)


def weights(folder):
    """Return the bytes of a run's backbone."""
    return (folder / "backbone.safetensors").read_bytes()


def metadata(folder):
    """Return a run's backbone.json."""
    return json.loads((folder / "backbone.json").read_text())
