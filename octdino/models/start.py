"""The backbone that a classifier or an explanation starts from: random, ImageNet or a pretraining run's weights."""

from pathlib import Path

import torch
from torch import nn

from octdino.config import ModelSettings
from octdino.errors import UserError
from octdino.models.backbones import create_backbone, load_backbone
from octdino.models.weights_file import sha256_of
from octdino.training import seed_of


def start_backbone(
    init: str, model: ModelSettings, channels: int, size: int, *, pretrained: Path | None, seed: int
) -> tuple[nn.Module, str | None]:
    """The backbone, and the hash of its weights if they come from a file: a run made with others is not gone on with.

    Args:
        init: scratch, imagenet or a pretraining run's name.
        channels: of the scans.
        size: px, the side of the images that it will see.
        pretrained: folder of the pretraining run, for every init but scratch and imagenet.
        seed: of random weights.

    Raises:
        UserError: no folder named, no weights to be had, or weights for another number of channels.
    """
    if init in ("scratch", "imagenet"):
        torch.manual_seed(seed_of(seed, "weights"))
        network = create_backbone(model, channels, size, imagenet=init == "imagenet")
        return network, sha256_of(model.weights) if init == "imagenet" and model.weights else None
    if pretrained is None:
        raise UserError(f"the arm or the maps start from {init}: name its pretraining run's folder with --pretrained")
    network, card = load_backbone(pretrained)
    if card.spec.in_chans != channels:
        raise UserError(f"{pretrained}: takes {card.spec.in_chans} channel(s), the store has {channels}")
    return network, card.weights_sha256
