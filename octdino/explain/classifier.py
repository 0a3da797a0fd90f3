"""Read classifiers that give one map per label: linear ones on frozen features, and fine-tuned ones."""

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from octdino.config import Arm
from octdino.config.names import Readout
from octdino.data.schemas.metadata import ClassifierMetadata, Input, read_metadata
from octdino.data.weights_file import read_weights
from octdino.errors import UserError
from octdino.models.readouts import extract_features
from octdino.training.precision import pick_device


@dataclass(frozen=True)
class Classifier:
    """A backbone and the linear classifier on its features.

    Attributes:
        arm: its name.
        labels: L names.
        backbone: the frozen one, or the one that was fine-tuned with the classifier.
        readout: which features of the backbone it reads.
        weight, bias: [L, D], [L].
        size, mean, std: the input that it was trained on.
    """

    arm: str
    labels: list[str]
    backbone: nn.Module
    readout: Readout
    weight: Tensor
    bias: Tensor
    size: int
    mean: list[float]
    std: list[float]


def input_size(folders: list[Path]) -> int | None:
    """Return the input size (px) that the first of these classifiers was trained on; None where there is none."""
    return _read(folders[0])[1].size if folders else None


def _read(folder: Path) -> tuple[ClassifierMetadata, Input]:
    path = folder / "classifier.json"
    metadata = read_metadata(path, ClassifierMetadata, "classify")
    if metadata.input is None:
        raise UserError(
            f"{path}: of the arm {metadata.arm}, which has no image input; expected a linear or fine-tuned arm"
        )
    return metadata, metadata.input


def read_classifier(folder: Path, init: str, backbone: nn.Module) -> Classifier:
    """Return the classifier of an arm that starts from the weights of `backbone`, which is not changed.

    Raises:
        UserError: a file is missing, the arm starts elsewhere, is neither linear nor fine-tuned, or does not fit.
    """
    metadata, used = _read(folder)
    start, mode = Arm.named(metadata.arm)
    if start != init or mode not in ("linear", "finetune"):
        raise UserError(f"{folder}: of the arm {metadata.arm}; expected {init}-linear or {init}-finetune")
    path = folder / "classifier.safetensors"
    tensors = read_weights(path, metadata.weights_sha256)
    try:
        if mode == "linear":
            weight, bias = tensors["head.weight"].float(), tensors["head.bias"].float()
        else:
            backbone = copy.deepcopy(backbone)
            state = {name.removeprefix("0."): value for name, value in tensors.items() if name.startswith("0.")}
            backbone.load_state_dict(state)
            weight, bias = tensors["1.weight"].float(), tensors["1.bias"].float()
    except (KeyError, RuntimeError) as error:
        raise UserError(f"{path}: does not fit the backbone: {error}") from None
    readout = metadata.embeddings.readout if metadata.embeddings else "pooled"
    images = torch.zeros(1, used.image.channels, used.size, used.size, device=pick_device())
    if weight.shape[1] != (expected := extract_features(backbone, [images], readout).shape[1]):
        raise UserError(f"{path}: for {weight.shape[1]} features, the backbone has {expected}")
    return Classifier(metadata.arm, metadata.labels, backbone, readout, weight, bias, used.size, used.mean, used.std)
