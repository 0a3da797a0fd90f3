"""VICReg: variance-invariance-covariance regularisation (Bardes et al. 2022, https://arxiv.org/abs/2105.04906)."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from octdino.config.methods import VicregSettings
from octdino.models import projection_head
from octdino.pretrain.methods.method import Batch, Features, OneNetwork

EPS = 1e-4  # under the root of the variance (eq. 2): without it a constant dimension has an infinite gradient


class Terms(NamedTuple):
    """The three parts of the loss, unweighted float32 scalars."""

    invariance: Tensor
    variance: Tensor
    covariance: Tensor


def vicreg_terms(a: Tensor, b: Tensor) -> Terms:
    """The parts of the loss, as the authors' code has them: the paper's eq. 5 and 6 differ by constants.

    Invariance is also averaged over D, variance is the mean of both branches, covariance their sum. One scan has
    neither variance nor covariance: those terms are then 0, without gradient.

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
    """How far the standard deviations of [N, D] fall short of 1, on average (eq. 1)."""
    return F.relu(1 - torch.sqrt(x.var(0) + EPS)).mean()


def _covariance(x: Tensor) -> Tensor:
    """Sum of the squared covariances between dimensions of [N, D], over D (eq. 3 and 4)."""
    centred = x - x.mean(0)
    squared = (centred.T @ centred / (len(x) - 1)).square()
    # Zero the diagonal rather than subtract its sum: the variances are the large part and would cost digits.
    off_diagonal = squared.masked_fill(torch.eye(x.shape[1], dtype=torch.bool, device=x.device), 0)
    return off_diagonal.sum() / x.shape[1]


def vicreg_loss(
    a: Tensor, b: Tensor, invariance: float = 25.0, variance: float = 25.0, covariance: float = 1.0
) -> Tensor:
    """The weighted sum of `vicreg_terms` (eq. 6), of embeddings [N, D] of two views."""
    terms = vicreg_terms(a, b)
    return invariance * terms.invariance + variance * terms.variance + covariance * terms.covariance


class Vicreg(OneNetwork):
    """Two views of a scan agree, while each dimension varies over scans and tells what the others do not.

    The expander sees both views in one batch, so its batch norms work from one scan on.
    """

    def __init__(self, settings: VicregSettings, make_backbone: Callable[[], nn.Module], dim: int) -> None:
        super().__init__(settings, make_backbone, dim)
        expander = projection_head([dim, *[self.settings.width] * 3], norm=True)
        self.network = nn.ModuleDict({"backbone": make_backbone(), "head": expander})

    def loss(self, encoded: Features, taught: Features, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        s = self.settings
        terms = vicreg_terms(*self.embed(encoded).chunk(2))
        loss = s.invariance * terms.invariance + s.variance * terms.variance + s.covariance * terms.covariance
        return loss, {name: term.detach() for name, term in terms._asdict().items()}
