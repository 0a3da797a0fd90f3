"""The classifiers of arms, as far as a map a label can be made of them: linear on pooled features, or fine-tuned."""

import copy
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from octdino.config import Arm
from octdino.data.schemas.metadata import ClassifierMetadata, Input, read_metadata
from octdino.data.weights_file import read_weights
from octdino.errors import UserError


@dataclass(frozen=True)
class Classifier:
    """A backbone and the linear classifier on its pooled features.

    Attributes:
        arm: its name.
        labels: L names.
        backbone: the frozen one, or the one that was fine-tuned with the classifier.
        weight, bias: [L, D], [L].
        size, mean, std: the input that it was trained on.
    """

    arm: str
    labels: list[str]
    backbone: nn.Module
    weight: Tensor
    bias: Tensor
    size: int
    mean: list[float]
    std: list[float]


def input_size(folders: list[Path]) -> int | None:
    """px, the side of the input that the first of these classifiers was trained on; None where there is none."""
    return _card(folders[0])[1].size if folders else None


def _card(folder: Path) -> tuple[ClassifierMetadata, Input]:
    path = folder / "classifier.json"
    card = read_metadata(path, ClassifierMetadata, "classify")
    if card.input is None:
        raise UserError(f"{path}: of the arm {card.arm}, which sees no image; expected a linear or fine-tuned arm")
    return card, card.input


def read_classifier(folder: Path, init: str, backbone: nn.Module) -> Classifier:
    """The classifier of an arm that starts where `backbone` does, which stays as it is.

    Raises:
        UserError: a file is missing, the arm starts elsewhere, is neither linear nor fine-tuned, or does not fit.
    """
    card, given = _card(folder)
    start, mode = Arm.named(card.arm)
    if start != init or mode not in ("linear", "finetune"):
        raise UserError(f"{folder}: of the arm {card.arm}; expected {init}-linear or {init}-finetune")
    path = folder / "classifier.safetensors"
    tensors = read_weights(path, card.weights_sha256)
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
    if weight.shape[1] != backbone.num_features:
        raise UserError(f"{path}: for {weight.shape[1]} features, the backbone has {backbone.num_features}")
    return Classifier(card.arm, card.labels, backbone, weight, bias, given.size, given.mean, given.std)
