"""The classifiers of arms, as far as a map a label can be made of them: linear on pooled features, or fine-tuned."""

import copy
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from octdino.errors import UserError
from octdino.files import read_json
from octdino.tensors import read_tensors


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


def read_card(folder: Path) -> dict[str, object]:
    """classifier.json.

    Raises:
        UserError: it is missing or damaged.
    """
    path = folder / "classifier.json"
    try:
        card = read_json(path, "classify")
        return {**card, "input": dict(card["input"]), "arm": str(card["arm"]), "labels": list(card["labels"])}
    except UserError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: cannot be read as classifier.json: {error}") from None


def input_size(folders: list[Path]) -> int | None:
    """px, the side of the input that the first of these classifiers was trained on; None where there is none."""
    given = read_card(folders[0])["input"] if folders else {}
    assert isinstance(given, dict)
    return int(given["size"]) if given else None


def read_classifier(folder: Path, init: str, backbone: nn.Module) -> Classifier:
    """The classifier of an arm that starts where `backbone` does, which stays as it is.

    Raises:
        UserError: a file is missing, the arm starts elsewhere, is neither linear nor fine-tuned, or does not fit.
    """
    card = read_card(folder)
    arm, given = str(card["arm"]), card["input"]
    start, _, mode = arm.rpartition("-")
    if start != init or mode not in ("linear", "finetune"):
        raise UserError(f"{folder}: of the arm {arm}; expected {init}-linear or {init}-finetune")
    path = folder / "classifier.safetensors"
    try:
        tensors = read_tensors(path, "classify")
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
    assert isinstance(given, dict)
    labels = [str(label) for label in card["labels"]]  # type: ignore[attr-defined]
    return Classifier(arm, labels, backbone, weight, bias, int(given["size"]), given["mean"], given["std"])
