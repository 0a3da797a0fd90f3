"""The network of a trained classifier in a results folder: its backbone with all weights, and its head."""

import logging
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from octdino.config import Arm, ModelSettings
from octdino.config.names import Readout
from octdino.data.predictions import Predictions
from octdino.data.schemas.metadata import BackboneMetadata, ClassifierMetadata, read_metadata
from octdino.data.schemas.model_folder import HeadSpec
from octdino.data.weights_file import read_weights
from octdino.errors import UserError
from octdino.inference.heads import MAY_LACK, Head, make_head
from octdino.inference.scan_model import Network
from octdino.models.backbones import create_backbone, load_backbone, set_image_size
from octdino.models.initial_weights import start_backbone
from octdino.training.precision import pick_device

log = logging.getLogger("octdino.inference")


@dataclass(frozen=True)
class OpenedClassifier:
    """A trained classifier of a results folder in memory, on the GPU if there is one.

    Attributes:
        model: what timm makes of the backbone.
        pretraining: folder and metadata of the pretraining run that it started from; None for other weights.
        readout: the features that the head reads.
        head: features to uncalibrated probabilities; `spec` and `tensors` are what it is made of.
    """

    model: ModelSettings
    pretraining: tuple[Path, BackboneMetadata] | None
    network: Network
    readout: Readout
    spec: HeadSpec
    tensors: dict[str, Tensor]
    head: Head


def open_classifier(results: Path, predictions: Predictions) -> OpenedClassifier:
    """Read the network of a trained classifier.

    Args:
        results: results/{cohort}, which has the pretraining run that it started from.
        predictions: of the classifier, which name its folder.

    Raises:
        UserError: a file is missing or damaged, or it is no classifier of scans.
    """
    metadata, path = predictions.metadata, predictions.folder / "classifier.json"
    if metadata.input is None:
        raise UserError(f"{path}: has no image input; expected a classifier of scans")
    weights = read_weights(predictions.folder / "classifier.safetensors", metadata.weights_sha256, MAY_LACK)
    model = ModelSettings.parse(metadata.plain().get("model") or {}, f"{path}: model")
    pretraining = pretraining_of(results, metadata)
    backbone = trained_backbone(metadata, model, weights, pretraining[0] if pretraining else None)
    network = Network(backbone.to(pick_device()).eval(), metadata.input)
    spec, tensors = trained_head(metadata, weights)
    readout: Readout = metadata.embeddings.readout if metadata.embeddings else "pooled"
    if metadata.embeddings and spec.kind == "knn":
        readout = "pooled"  # kNN compares pooled features, whatever the embeddings hold
    head = make_head(spec, tensors, metadata.exclusive)
    return OpenedClassifier(model, pretraining, network, readout, spec, tensors, head)


def pretraining_of(results: Path, metadata: ClassifierMetadata) -> tuple[Path, BackboneMetadata] | None:
    """Return folder and metadata of the pretraining run that a classifier started from; None for other weights.

    Raises:
        UserError: the run with these weights is not below `results`.
    """
    init = Arm.named(metadata.arm).init
    if init in ("scratch", "imagenet") or metadata.published:
        return None
    for path in sorted((results / "pretrain" / init / metadata.backbone).glob("*/backbone.json")):
        found = read_metadata(path, BackboneMetadata, "pretrain")
        if found.weights_sha256 == metadata.pretrained:
            return path.parent, found
    raise UserError(
        f"{results}/pretrain/{init}/{metadata.backbone}: no run with the weights that {metadata.arm} started from; "
        "run the workflow again"
    )


def trained_backbone(
    metadata: ClassifierMetadata, model: ModelSettings, tensors: dict[str, Tensor], pretrained: Path | None
) -> nn.Module:
    """Return the backbone with which a classifier predicts: its own where it was trained, else the frozen one.

    Args:
        model: what timm makes of it.
        tensors: of classifier.safetensors.
        pretrained: folder of the pretraining run; None for all other weights.

    Raises:
        UserError: the weights do not fit, or cannot be had.
    """
    assert metadata.input is not None, "the clinical baseline has no network"
    channels, size = metadata.input.image.channels, metadata.input.size
    init, mode = Arm.named(metadata.arm)
    if mode == "finetune":
        backbone = load_backbone(pretrained)[0] if pretrained else create_backbone(model, channels, size)
        state = {name.removeprefix("0."): value for name, value in tensors.items() if name.startswith("0.")}
        try:
            backbone.load_state_dict(state)
        except RuntimeError as error:
            raise UserError(f"classifier.safetensors of {metadata.arm}: does not fit {model.timm}: {error}") from None
        return set_image_size(backbone, size)  # of its training, where it was pretrained at another size
    seed = metadata.embeddings.seed if metadata.embeddings and metadata.embeddings.seed is not None else metadata.seed
    backbone, sha256 = start_backbone(init, model, channels, size, pretrained=pretrained, seed=seed)
    if metadata.published and sha256 != metadata.pretrained:
        raise UserError(
            f"{model.weights_file}: other weights than those that {metadata.arm} started from; run it again"
        )
    return set_image_size(backbone, size)


def trained_head(metadata: ClassifierMetadata, tensors: dict[str, Tensor]) -> tuple[HeadSpec, dict[str, Tensor]]:
    """Return the head of a classifier and its tensors as `octdino.inference.heads` takes them.

    Raises:
        UserError: a tensor or the number of neighbors is missing.
    """
    mode = Arm.named(metadata.arm).mode
    try:
        if mode in ("linear", "finetune"):
            prefix = "head." if mode == "linear" else "1."
            return HeadSpec(kind="linear"), {name: tensors[prefix + name] for name in ("weight", "bias")}
        if mode == "mlp":
            hidden = tensors["layers.0.weight"].shape[0]
            return HeadSpec(kind="mlp", hidden=hidden), tensors
        return HeadSpec(kind="knn", neighbors=_neighbors(metadata)), {
            name: tensors[name] for name in ("bank", "labels")
        }
    except KeyError as error:
        raise UserError(f"classifier.safetensors of {metadata.arm}: no tensor {error}; run classify again") from None


def _neighbors(metadata: ClassifierMetadata) -> int:
    """Number of neighbors that validation patients chose."""
    return int(metadata.plain()["chosen"]["neighbors"])
