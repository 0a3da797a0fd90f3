"""A whole model as one module of torch: from stored scans to calibrated probabilities, for exporters of graphs.

Everything is float32 and made of plain operators. The resize is two matrix products: runtimes compute ONNX's operator
Resize in different ways where it is anti-aliased.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from octdino.augment import resize, standardize
from octdino.config.names import Readout
from octdino.inference.scan_model import ScanModel
from octdino.models.backbones import num_features
from octdino.models.readouts import read_out
from octdino.stats.calibration import CLIP
from octdino.stats.feature_density import FeatureDensity

VOTE_TEMPERATURE = 0.07  # of `octdino.stats.neighbors.knn_scores`
ROWS = 32  # columns of a resize matrix that are computed at a time, to bound memory


def resize_matrix(extent: int, size: int) -> Tensor:
    """Return the matrix [size, extent] of `octdino.augment.resize` along one axis.

    The resize is linear and separable: its matrix is what it makes of the unit vectors, here as images 1 px wide.
    """
    units = torch.eye(extent)[:, None, :, None]
    return torch.cat([resize(each, size)[:, 0, :, 0] for each in torch.split(units, ROWS)]).T.contiguous()


class LinearHead(nn.Module):
    """Features [N, D] to logits [N, L]."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        self.register_buffer("weight", tensors["weight"].float())
        self.register_buffer("bias", tensors["bias"].float())

    def forward(self, features: Tensor) -> Tensor:
        return F.linear(features, cast(Tensor, self.weight), cast(Tensor, self.bias))


class MlpHead(nn.Module):
    """Features [N, D] to logits [N, L], as `octdino.models.mlp.Mlp`."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            self.register_buffer(name.replace(".", "_"), tensor.float())

    def forward(self, features: Tensor) -> Tensor:
        own = cast(dict[str, Tensor], dict(self.named_buffers()))
        hidden = F.linear((features - own["mean"]) / own["std"], own["layers_0_weight"], own["layers_0_bias"])
        return F.linear(hidden.relu(), own["layers_3_weight"], own["layers_3_bias"])


class KnnHead(nn.Module):
    """Features [N, D] to clipped log odds [N, L] of the votes of `octdino.stats.neighbors.knn_scores`.

    Exclusive labels: to the logarithm of the votes, of which the softmax is the votes again.
    """

    def __init__(self, tensors: dict[str, Tensor], count: int, exclusive: bool) -> None:
        super().__init__()
        bank, labels = tensors["bank"].float(), tensors["labels"].float()
        self.register_buffer("bank", F.normalize(bank, dim=-1))
        self.register_buffer("known", (~labels.isnan()).float())
        self.register_buffer("positive", labels.nan_to_num())
        self.count, self.exclusive = min(count, len(bank)), exclusive

    def forward(self, features: Tensor) -> Tensor:
        bank, known, positive = (cast(Tensor, each) for each in (self.bank, self.known, self.positive))
        top, index = (F.normalize(features, dim=-1) @ bank.T).topk(self.count, dim=1)
        weight = torch.exp(top / VOTE_TEMPERATURE)[:, :, None] * known[index]
        total = weight.sum(1)
        some = total.clamp(min=1e-30)
        votes = torch.where(total > 0, (weight * positive[index]).sum(1) / some, 0.5)
        log_votes = votes.clamp(min=CLIP).log()
        if self.exclusive:
            return log_votes
        against = torch.where(total > 0, (weight * (1 - positive[index])).sum(1) / some, 0.5)
        return log_votes - against.clamp(min=CLIP).log()  # 1 - votes would lose digits near 1


class Calibrated(nn.Module):
    """A head's logits [N, L] to calibrated probabilities [N, L], as `octdino.stats.calibration` clips them."""

    def __init__(self, temperature: float | None, exclusive: bool) -> None:
        super().__init__()
        self.temperature, self.exclusive = temperature, exclusive
        self.least = float(torch.logit(torch.tensor(CLIP, dtype=torch.float64)))
        self.least_log = float(torch.tensor(CLIP, dtype=torch.float64).log())

    def forward(self, logits: Tensor) -> Tensor:
        if self.exclusive:
            if self.temperature is None:
                return logits.softmax(1)
            return (logits.log_softmax(1).clamp(min=self.least_log) / self.temperature).softmax(1)
        if self.temperature is None:
            return logits.sigmoid()
        return (logits.clamp(self.least, -self.least) / self.temperature).sigmoid()


class Distance(nn.Module):
    """Features [N, D] to their distance from the training scans over the threshold, [N]; `FeatureDensity.distances`.

    The part outside of the leading directions is the length of a vector, not a difference of two large squares, which
    float32 would not hold.
    """

    def __init__(self, density: FeatureDensity, threshold: float) -> None:
        super().__init__()
        self.noise, self.threshold = density.noise, threshold
        for name in ("mean", "scale", "components", "variances"):
            self.register_buffer(name, torch.from_numpy(getattr(density, name)).float())

    def forward(self, features: Tensor) -> Tensor:
        mean, scale, components, variances = self.buffers()
        centered = (features - mean) / scale
        along = centered @ components.T
        rest = centered - along @ components
        squared = (along**2 / variances).sum(1) + (rest**2).sum(1) / self.noise
        return squared.sqrt() / self.threshold


class ScanGraph(nn.Module):
    """Stored scans to all outputs of a model.

    Args:
        backbone: plain timm, in eval mode.
    """

    def __init__(self, model: ScanModel, backbone: nn.Module) -> None:
        super().__init__()
        metadata = model.metadata
        given, exclusive = metadata.input, metadata.exclusive
        self.register_buffer("mean", torch.tensor(given.mean))
        self.register_buffer("std", torch.tensor(given.std))
        self.resizes = given.image.size != (given.size, given.size)
        if self.resizes:
            height, width = given.image.size
            self.register_buffer("rows", resize_matrix(height, given.size))
            self.register_buffer("columns", resize_matrix(width, given.size).T.contiguous())
        self.backbone = backbone
        self.head: nn.Module
        if metadata.head.kind == "linear":
            self.head = LinearHead(model.tensors)
        elif metadata.head.kind == "mlp":
            self.head = MlpHead(model.tensors)
        else:
            assert metadata.head.neighbors is not None, "the schema checks it"
            self.head = KnnHead(model.tensors, metadata.head.neighbors, exclusive)
        self.calibrated = Calibrated(metadata.temperature, exclusive)
        ood = metadata.out_of_distribution
        self.distance = Distance(model.density, ood.threshold)
        self.readouts = (metadata.readout, ood.readout)
        self.width = num_features(backbone)
        self.widest: Readout = "layers" if "layers" in self.readouts else "pooled"

    def forward(self, scans: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """uint8 [N, C, H, W] to probabilities [N, L], embeddings [N, D] and distances over the threshold [N]."""
        images = standardize(scans, cast(Tensor, self.mean), cast(Tensor, self.std))
        if self.resizes:
            images = cast(Tensor, self.rows) @ images @ cast(Tensor, self.columns)
        features = read_out(self.backbone, images, self.widest)
        pooled = features[:, -self.width :]
        head, density = (features if readout == "layers" else pooled for readout in self.readouts)
        return self.calibrated(self.head(head)), pooled, self.distance(density)
