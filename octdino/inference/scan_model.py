"""ScanModel: a model folder in memory; preprocessed scans to probabilities, embeddings and distances."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from octdino.config import ModelSettings
from octdino.config.names import Readout
from octdino.data.schemas.metadata import Input, read_metadata
from octdino.data.schemas.model_folder import BACKBONE, DENSITY, HEAD, ModelMetadata
from octdino.data.weights_file import read_weights
from octdino.errors import UserError
from octdino.inference.heads import MAY_LACK, Head, head_width, make_head
from octdino.models.backbones import create_backbone, num_features
from octdino.models.input_batches import input_batches
from octdino.models.readouts import extract_features
from octdino.stats.calibration import at_temperature
from octdino.stats.feature_density import FeatureDensity
from octdino.training.precision import autocast, pick_device

BATCH_PIXELS = 2**22  # of the inputs of one batch, which bounds the memory of its activations


@dataclass(frozen=True)
class Outputs:
    """What a model computes for N scans.

    Attributes:
        raw: probabilities before calibration, float64 [N, L]; thresholds are chosen on them.
        probabilities: calibrated, float64 [N, L].
        calls: whether each label is called, bool [N, L]: the most probable one where labels exclude each other, else
            those at or above their threshold; False where a label has no threshold.
        embeddings: pooled features of the backbone, float32 [N, D].
        out_of_distribution: distance to the training scans over the threshold, float64 [N]; above 1 a scan is flagged.
    """

    raw: np.ndarray
    probabilities: np.ndarray
    calls: np.ndarray
    embeddings: np.ndarray
    out_of_distribution: np.ndarray


@dataclass(frozen=True)
class Network:
    """A backbone with the input that it takes: preprocessed scans to features of its layers.

    Attributes:
        widest: the read-out with the features of all layers where timm gives them, else the pooled one.
    """

    backbone: nn.Module
    input: Input
    precision: str = "float32"

    @property
    def widest(self) -> Readout:
        """The read-out that has all features that are used: for the head, for embeddings and for the density."""
        return "layers" if hasattr(self.backbone, "forward_intermediates") else "pooled"

    @property
    def pooled(self) -> int:
        """Number of the last columns of `features`, which are the pooled features."""
        return num_features(self.backbone)

    def batches(self, images: np.ndarray) -> list[Tensor]:
        """Return standardized inputs [B, C, S, S] of uint8 images [N, C, H, W], on the device of the backbone."""
        size = self.input.size
        device = next(self.backbone.parameters()).device
        batch = max(BATCH_PIXELS // size**2, 1)
        stored = torch.from_numpy(images)
        return list(input_batches(stored, self.input.mean, self.input.std, size, device, batch=batch))

    def features(self, images: np.ndarray) -> np.ndarray:
        """Return float32 [N, D] of uint8 images [N, C, H, W]: earlier layers first, the pooled features last."""
        batches = self.batches(images)
        with autocast(next(self.backbone.parameters()).device, self.precision):
            return extract_features(self.backbone, batches, self.widest).numpy()

    def part(self, features: np.ndarray, readout: Readout) -> np.ndarray:
        """Return the columns of `features` that belong to a read-out."""
        return features if readout == self.widest else features[:, -self.pooled :]


@dataclass(frozen=True)
class ScanModel:
    """A model that was read from its folder, on the GPU if there is one.

    Attributes:
        metadata: model.json.
        network: backbone and its input.
        head: features to uncalibrated probabilities.
        density: of the features of training scans.
    """

    folder: Path
    metadata: ModelMetadata
    network: Network
    head: Head
    tensors: dict[str, Tensor]
    density: FeatureDensity

    @property
    def labels(self) -> list[str]:
        """L names."""
        return self.metadata.labels

    def thresholds(self) -> np.ndarray:
        """Return the decision thresholds of calibrated probabilities, float64 [L]; NaN where a label has none.

        Exclusive labels have none: the most probable one is called.
        """
        raw = np.array([self.metadata.thresholds[label] for label in self.labels], np.float64)
        if self.metadata.exclusive:
            return np.full(len(raw), np.nan)
        calibrated: np.ndarray = self._calibrated(raw[None])[0]
        return calibrated

    def outputs(self, images: np.ndarray) -> Outputs:
        """Compute everything for preprocessed scans, uint8 [N, C, H, W] of the store's size."""
        features = self.network.features(images)
        raw = self.head(self.network.part(features, self.metadata.readout))
        ood = self.metadata.out_of_distribution
        distances = self.density.distances(self.network.part(features, ood.readout))
        return Outputs(
            raw=raw,
            probabilities=self._calibrated(raw),
            calls=self._calls(raw),
            embeddings=self.network.part(features, "pooled"),
            out_of_distribution=distances / ood.threshold,
        )

    def _calibrated(self, raw: np.ndarray) -> np.ndarray:
        temperature = self.metadata.temperature
        return raw if temperature is None else at_temperature(raw, temperature, self.metadata.exclusive)

    def _calls(self, raw: np.ndarray) -> np.ndarray:
        if self.metadata.exclusive:
            called: np.ndarray = raw.argmax(1)[:, None] == np.arange(len(self.labels))
            return called
        thresholds = np.array([self.metadata.thresholds[label] for label in self.labels], np.float64)
        with np.errstate(invalid="ignore"):
            return np.asarray(raw >= thresholds)  # False at NaN


def load_scan_model(folder: Path, precision: str = "float32") -> ScanModel:
    """Read a model folder and put its backbone on the GPU if there is one.

    Args:
        precision: float32, as the classify stage predicts; bfloat16; or auto, as in pretraining.

    Raises:
        UserError: no model folder, a damaged file, other weights than those of model.json, or weights that do not fit.
    """
    path = folder / "model.json"
    metadata = read_metadata(path, ModelMetadata, "models")
    spec = metadata.spec
    backbone = create_backbone(ModelSettings(timm=spec.timm, args=spec.args), spec.in_chans, spec.size)
    may_lack = MAY_LACK if metadata.head.kind == "knn" else ()
    read = {name: read_weights(folder / name, metadata.sha256[name], may_lack) for name in (BACKBONE, HEAD, DENSITY)}
    try:
        backbone.load_state_dict(read[BACKBONE])
    except RuntimeError as error:
        raise UserError(f"{folder / BACKBONE}: does not fit {spec.timm} of {path}: {error}") from None
    network = Network(backbone.to(pick_device()).eval(), metadata.input, precision)
    try:
        head = make_head(metadata.head, read[HEAD], metadata.exclusive)
        _check_width(network, metadata.readout, head_width(metadata.head, read[HEAD]))
        density = density_of(read[DENSITY])
        _check_width(network, metadata.out_of_distribution.readout, len(density.mean))
    except (KeyError, IndexError, RuntimeError, ValueError) as error:
        raise UserError(f"{folder}: {HEAD} or {DENSITY} does not fit {path}: {error}") from None
    return ScanModel(folder, metadata, network, head, read[HEAD], density)


def _check_width(network: Network, readout: Readout, width: int) -> None:
    """Check that a read-out of the network has `width` features."""
    if readout == "layers" and network.widest != "layers":
        raise ValueError("timm gives no earlier layers of this network")
    images = np.zeros((1, network.input.image.channels, *network.input.image.size), np.uint8)
    found = network.part(network.features(images), readout).shape[1]
    if found != width:
        raise ValueError(f"for {width} features; the backbone has {found}")


def density_tensors(density: FeatureDensity) -> dict[str, Tensor]:
    """Return the tensors of density.safetensors, float64."""
    arrays = {name: getattr(density, name) for name in ("mean", "scale", "components", "variances")}
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in arrays.items()} | {
        "noise": torch.tensor([density.noise], dtype=torch.float64)
    }


def density_of(tensors: dict[str, Tensor]) -> FeatureDensity:
    """Return the density that `density_tensors` wrote.

    Raises:
        KeyError, ValueError: a tensor is missing or of another shape.
    """
    mean, scale, components, variances, noise = (
        tensors[name].double().numpy() for name in ("mean", "scale", "components", "variances", "noise")
    )
    count, width = components.shape
    if mean.shape != (width,) or scale.shape != (width,) or variances.shape != (count,) or noise.shape != (1,):
        raise ValueError("tensors of the density have shapes that do not belong together")
    if (scale <= 0).any() or (variances <= 0).any() or noise[0] <= 0:
        raise ValueError("the density has a scale or a variance that is not positive")
    return FeatureDensity(mean, scale, components, variances, float(noise[0]))
