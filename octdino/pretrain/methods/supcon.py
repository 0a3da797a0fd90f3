"""SupCon: supervised contrastive learning on clinical values.

Khosla et al. 2020, https://arxiv.org/abs/2004.11362; Kokilepersaud et al. 2023, https://arxiv.org/abs/2305.15154.
"""

import pandas as pd
import torch
from torch import Tensor

from octdino.errors import UserError
from octdino.pretrain.methods.contrastive import Contrastive, cosines, same_group, without
from octdino.pretrain.methods.method import Batch, Features

UNKNOWN = -1


def supcon_loss(embeddings: Tensor, values: Tensor, groups: Tensor, temperature: float) -> Tensor:
    """SupCon, the outside-sum form L_out (Khosla eq. 2), averaged over anchors.

    Args:
        embeddings: [2 * B, D]; rows b and B + b are two views of scan b; any length (normalized here).
        values: int64 [B]; scans with equal values are positives; with `UNKNOWN` only views of the same scan.
        groups: int64 [B]; scans of one group that are not positives are not negatives either.
        temperature: > 0.
    """
    own = torch.eye(len(embeddings), dtype=torch.bool, device=embeddings.device)
    equal = (values[:, None] == values[None, :]) & (values[:, None] != UNKNOWN)
    equal |= torch.eye(len(values), dtype=torch.bool, device=embeddings.device)
    positive = equal.repeat(2, 2) & ~own
    excluded = same_group(groups) & ~positive
    log_probability = torch.log_softmax(without(cosines(embeddings) / temperature, excluded), dim=-1)
    summed = log_probability.masked_fill(~positive, 0).sum(-1)
    return -(summed / positive.sum(-1)).mean()


class Supcon(Contrastive):
    """Scans with the same clinical value are positives; with several values the losses are summed."""

    def targets(self, manifest: pd.DataFrame) -> Tensor:
        columns = [self._codes(manifest[name], name) for name in self.settings.positives]
        return torch.cat([super().targets(manifest), torch.stack(columns, dim=1)], dim=1)

    def _codes(self, values: pd.Series, name: str) -> Tensor:
        """Return an integer code per value, measured values binned; missing is UNKNOWN."""
        width = {"cst": self.settings.cst_bin, "bcva": self.settings.bcva_bin}.get(name)
        if values.replace("", pd.NA).isna().all():
            raise UserError(
                f"positives: no scan has a {name}, so there are no positives; expected a column with known values"
            )
        codes, _ = pd.factorize(values.replace("", pd.NA) if width is None else values // width, sort=True)
        return torch.from_numpy(codes.astype("int64"))  # factorize gives missing values -1

    def loss(self, encoded: Features, teacher_features: Features, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        embeddings, groups = self.embed(encoded), batch.targets[:, 0]
        values = batch.targets[:, 1:].unbind(1)
        losses = [supcon_loss(embeddings, each, groups, self.settings.temperature) for each in values]
        return torch.stack(losses).sum(), {}
