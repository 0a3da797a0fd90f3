"""Multi-layer perceptron (MLP) on embeddings."""

import numpy as np
import torch
from torch import Tensor, nn


class Mlp(nn.Module):
    """Features [N, D] to logits [N, L]: standardized by the training scans' statistics, one hidden layer."""

    mean: Tensor
    std: Tensor

    def __init__(self, features: Tensor, hidden: int, labels: int) -> None:
        super().__init__()
        self.register_buffer("mean", features.mean(0))
        self.register_buffer("std", features.std(0) + 1e-6)
        dim = features.shape[1]
        self.layers = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Dropout(0.5), nn.Linear(hidden, labels))

    def forward(self, features: Tensor) -> Tensor:
        """[N, D] to [N, L]."""
        logits: Tensor = self.layers((features - self.mean) / self.std)
        return logits


@torch.no_grad()
def mlp_logits(network: Mlp, features: np.ndarray) -> np.ndarray:
    """Return logits float64 [N, L] of features [N, D]."""
    found: np.ndarray = network.eval()(torch.from_numpy(features).float()).double().numpy()
    return found
