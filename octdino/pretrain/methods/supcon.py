"""SupCon: supervised contrastive learning on clinical values.

Khosla et al. 2020, https://arxiv.org/abs/2004.11362; Kokilepersaud et al. 2023, https://arxiv.org/abs/2305.15154. Pairs
with weights: Dufumier et al. 2021, https://arxiv.org/abs/2106.08808.
"""

import pandas as pd
import torch
from torch import Tensor

from octdino.errors import UserError
from octdino.pretrain.eye_visits import eye_visit_columns, same_eye
from octdino.pretrain.methods.contrastive import Contrastive, cosines, same_group, without
from octdino.pretrain.methods.method import Batch, Features

UNKNOWN = -1
STEP = 1000  # measured values as soft targets are whole thousandths of a bin
NOT_MEASURED = torch.iinfo(torch.int64).min // 2


def supcon_loss(embeddings: Tensor, values: Tensor, groups: Tensor, temperature: float) -> Tensor:
    """SupCon, the outside-sum form L_out (Khosla eq. 2), averaged over anchors.

    Args:
        embeddings: [2 * B, D]; rows b and B + b are two views of scan b; any length (normalized here).
        values: int64 [B]; scans with equal values are positives; with `UNKNOWN` only views of the same scan.
        groups: int64 [B]; scans of one group that are not positives are not negatives either.
        temperature: > 0.
    """
    return weighted_supcon_loss(embeddings, equal_values(values).float(), groups, temperature)


def equal_values(values: Tensor) -> Tensor:
    """Return which scans [B] have equal known values, bool [B, B]."""
    return (values[:, None] == values[None, :]) & (values[:, None] != UNKNOWN)


def near_values(values: Tensor) -> Tensor:
    """Return how near the values of scans, int64 [B] in STEP-ths of a bin, are: float32 [B, B].

    1 for equal ones, falling linearly to 0 for those a whole bin apart; 0 where one is NOT_MEASURED.
    """
    measured = values != NOT_MEASURED
    weights = (1 - (values[:, None] - values[None, :]).abs().float() / STEP).clamp(min=0)
    return weights * (measured[:, None] & measured[None, :])


def weighted_supcon_loss(embeddings: Tensor, weights: Tensor, groups: Tensor, temperature: float) -> Tensor:
    """Return SupCon's loss where a pair of scans is positive with a weight; L_out, if all weights are 0 or 1.

    Args:
        embeddings, groups, temperature: see `supcon_loss`.
        weights: [B, B], from 0 to 1; the other view of a scan itself always has 1.
    """
    own = torch.eye(len(embeddings), dtype=torch.bool, device=embeddings.device)
    alone = torch.eye(len(weights), dtype=torch.bool, device=embeddings.device)
    pairs = weights.masked_fill(alone, 1).repeat(2, 2).masked_fill(own, 0)
    positive = pairs > 0
    excluded = same_group(groups) & ~positive
    log_probability = torch.log_softmax(without(cosines(embeddings) / temperature, excluded), dim=-1)
    summed = (pairs * log_probability.masked_fill(~positive, 0)).sum(-1)
    return -(summed / pairs.sum(-1)).mean()


class Supcon(Contrastive):
    """Scans with the same clinical value are positives; with several values the losses are summed.

    Targets are the group, one column per value and, where visits of an eye have limits, three for the eye.
    """

    def targets(self, manifest: pd.DataFrame) -> Tensor:
        s = self.settings
        columns = [self._codes(manifest[name], name) for name in s.positives]
        parts = [super().targets(manifest), torch.stack(columns, dim=1)]
        return torch.cat([*parts, eye_visit_columns(manifest, s)] if s.limited else parts, dim=1)

    def _codes(self, values: pd.Series, name: str) -> Tensor:
        """Return an integer code per value, measured values binned; missing is UNKNOWN."""
        width = {"cst": self.settings.cst_bin, "bcva": self.settings.bcva_bin}.get(name)
        if values.replace("", pd.NA).isna().all():
            raise UserError(
                f"positives: no scan has a known {name}, so there are no positives; expected a column with values"
            )
        if width is not None and self.settings.soft:
            return torch.tensor([NOT_MEASURED if pd.isna(v) else round(v / width * STEP) for v in values])
        codes, _ = pd.factorize(values.replace("", pd.NA) if width is None else values // width, sort=True)
        return torch.from_numpy(codes.astype("int64"))  # factorize gives missing values -1

    def loss(self, encoded: Features, teacher_features: Features, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        embeddings, groups = self.embed(encoded), batch.targets[:, 0]
        temperature = self.settings.temperature
        losses = [
            weighted_supcon_loss(embeddings, self._weights(name, values, batch), groups, temperature)
            for name, values in zip(self.settings.positives, batch.targets[:, 1:].unbind(1), strict=False)
        ]
        return torch.stack(losses).sum(), {}

    def _weights(self, name: str, values: Tensor, batch: Batch) -> Tensor:
        """Return the weight of each pair of scans as positives of one of the values, float32 [B, B]."""
        if name == "eye" and self.settings.limited:
            return same_eye(batch.targets[:, -3:], self.settings).float()
        soft = self.settings.soft and name in ("bcva", "cst")
        return near_values(values) if soft else equal_values(values).float()
