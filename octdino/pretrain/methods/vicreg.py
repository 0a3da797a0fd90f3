"""VICReg: variance-invariance-covariance regularization (Bardes et al. 2022, https://arxiv.org/abs/2105.04906)."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from octdino.config.methods import VicregSettings
from octdino.models.heads import projection_head
from octdino.pretrain.methods.method import Batch, Features, OneNetwork

EPS = 1e-4  # under the root of the variance (eq. 2): without it a constant dimension has an infinite gradient


class Terms(NamedTuple):
    """The three parts of the loss, unweighted float32 scalars."""

    invariance: Tensor
    variance: Tensor
    covariance: Tensor


def vicreg_terms(a: Tensor, b: Tensor) -> Terms:
    """Return the three parts of the loss, scaled as in the authors' code: the paper's eq. 5 and 6 differ by constants.

    Invariance is also averaged over D, variance is the mean of both branches, covariance their sum. With one scan
    variance and covariance are undefined: those terms are then 0, without gradient.

    Args:
        a, b: [N, D], embeddings of the first and of the second views.
    """
    with torch.autocast(a.device.type, enabled=False):
        a, b = a.float(), b.float()
        invariance = F.mse_loss(a, b)
        if len(a) < 2:
            return Terms(invariance, a.new_zeros(()), a.new_zeros(()))
        return Terms(invariance, (_variance(a) + _variance(b)) / 2, _covariance(a) + _covariance(b))


def _variance(x: Tensor) -> Tensor:
    """Return the mean hinge loss max(0, 1 - standard deviation) of the dimensions of [N, D] (eq. 1)."""
    return F.relu(1 - torch.sqrt(x.var(0) + EPS)).mean()


def _covariance(x: Tensor) -> Tensor:
    """Return the sum of squared covariances between dimensions of [N, D], divided by D (eq. 3 and 4)."""
    centered = x - x.mean(0)
    squared = (centered.T @ centered / (len(x) - 1)).square()
    # Zero the diagonal rather than subtract its sum: the variances are large and the difference would lose precision.
    off_diagonal = squared.masked_fill(torch.eye(x.shape[1], dtype=torch.bool, device=x.device), 0)
    return off_diagonal.sum() / x.shape[1]


def vicreg_loss(
    a: Tensor, b: Tensor, invariance: float = 25.0, variance: float = 25.0, covariance: float = 1.0
) -> Tensor:
    """Return the weighted sum of `vicreg_terms` (eq. 6) of embeddings [N, D] of two views."""
    terms = vicreg_terms(a, b)
    return invariance * terms.invariance + variance * terms.variance + covariance * terms.covariance


class Vicreg(OneNetwork):
    """Two views of a scan agree, while each dimension varies over scans and is uncorrelated with the others.

    The expander sees both views in one batch, so its batch norms work even with one scan.
    """

    def __init__(self, settings: VicregSettings, make_backbone: Callable[[], nn.Module], dim: int) -> None:
        super().__init__(settings, make_backbone, dim)
        expander = projection_head([dim, *[self.settings.width] * 3], norm=True)
        self.network = nn.ModuleDict({"backbone": make_backbone(), "head": expander})

    def loss(self, encoded: Features, teacher_features: Features, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        s = self.settings
        terms = vicreg_terms(*self.embed(encoded).chunk(2))
        loss = s.invariance * terms.invariance + s.variance * terms.variance + s.covariance * terms.covariance
        return loss, {name: term.detach() for name, term in terms._asdict().items()}
