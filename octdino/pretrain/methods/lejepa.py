"""LeJEPA: prediction between views with sketched isotropic Gaussian regularization, SIGReg.

Balestriero and LeCun 2025, https://arxiv.org/abs/2511.08544.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from octdino.augment import View
from octdino.config import AugmentSettings
from octdino.config.methods import LejepaSettings
from octdino.models.heads import projection_head
from octdino.pretrain.methods.method import Batch, Features, OneNetwork, encode_views

GLOBAL_VIEWS = 2
KNOTS, LIMIT = 17, 3.0  # of the quadrature, as in the authors' code


def epps_pulley(samples: Tensor, knots: int = KNOTS, limit: float = LIMIT) -> Tensor:
    """Return the Epps-Pulley statistic of normality N(0, 1) of samples [..., N], float32 [...].

    N times the integral of |empirical characteristic function - exp(-t^2 / 2)|^2 exp(-t^2 / 2) over -limit .. limit
    (Epps and Pulley 1983, https://doi.org/10.1093/biomet/70.3.723), by the trapezoidal rule. The integrand is even, so
    only t >= 0 is computed. Of normal samples its mean is sqrt(2 pi) (1 - 1 / sqrt(3)) = 1.06 for every N.

    Args:
        knots: points from 0 to `limit`.
    """
    with torch.autocast(samples.device.type, enabled=False):
        t = torch.linspace(0, limit, knots, device=samples.device)
        normal = torch.exp(-t.square() / 2)
        angles = samples.float()[..., None] * t  # [..., N, knots]
        error = (angles.cos().mean(-2) - normal).square() + angles.sin().mean(-2).square()
        statistic: Tensor = 2 * torch.trapezoid(error * normal, t, dim=-1) * samples.shape[-1]
        return statistic


def sigreg(embeddings: Tensor, directions: Tensor) -> Tensor:
    """Return SIGReg: the mean statistic of embeddings [V, B, D], each view's projected on directions [D, M]."""
    with torch.autocast(embeddings.device.type, enabled=False):
        return epps_pulley((embeddings.float() @ directions).transpose(1, 2)).mean()


def random_directions(dim: int, count: int, seed: int) -> Tensor:
    """Return `count` random unit vectors, uniform on the sphere, [dim, count], a function of the seed."""
    normal = torch.randn(dim, count, generator=torch.Generator().manual_seed(seed))
    return nn.functional.normalize(normal, dim=0)


def prediction_loss(embeddings: Tensor, large: int) -> Tensor:
    """Return the mean squared distance of all views [V, B, D] to the mean of the first `large` views of their scan.

    The gradient passes through both sides: there is no teacher and no stop-gradient.
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        z = embeddings.float()
        return (z - z[:large].mean(0)).square().mean()


class Lejepa(OneNetwork):
    """Each view's embedding predicts the mean of the large views' ones, and all are normal in random projections.

    The statistic is that of the whole batch: as every loss, it is computed from the features of all processes. The
    directions are a function of the run's seed and the step, so that they are the same in each of them.
    """

    def __init__(self, settings: LejepaSettings, make_backbone: Callable[[], nn.Module], dim: int) -> None:
        super().__init__(settings, make_backbone, dim)
        s = self.settings
        head = projection_head([dim, s.hidden_dim, s.hidden_dim, s.out_dim], norm=True)
        self.network = nn.ModuleDict({"backbone": make_backbone(), "head": head})

    def views(self, augment: AugmentSettings) -> list[View]:
        large = View(GLOBAL_VIEWS, augment.global_size, augment.global_scale)
        small = View(augment.local_views, augment.local_size, augment.local_scale)
        return [large, small] if augment.local_views else [large]

    def sample(self, batch: int, generator: torch.Generator) -> Features:
        """Return a seed of the step's directions, the same for each scan, int64 [1, batch]."""
        return {"directions": torch.randint(2**62, (1, 1), generator=generator).expand(1, batch)}

    def encode(self, batch: Batch) -> Features:
        return {"views": torch.cat([encode_views(self.network["backbone"], view) for view in batch.views])}

    def loss(self, encoded: Features, teacher_features: Features, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        s = self.settings
        embeddings = self.embed(encoded).view(*encoded["views"].shape[:2], -1)
        seed = int(batch.sampled["directions"].numpy()[0, 0])  # on the host: reading it waits for no device
        directions = random_directions(s.out_dim, s.directions, seed).to(embeddings.device, non_blocking=True)
        prediction, statistic = prediction_loss(embeddings, GLOBAL_VIEWS), sigreg(embeddings, directions)
        loss = (1 - s.regularization) * prediction + s.regularization * statistic
        return loss, {"prediction": prediction.detach(), "sigreg": statistic.detach()}
