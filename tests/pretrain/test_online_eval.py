"""Online evaluation compared with known cases."""

import numpy as np
import pytest
import torch
from torch import nn

from octdino.config import ImageSettings
from octdino.data.schemas.metadata import Input
from octdino.pretrain.online_eval import evaluate_online, feature_spread, rank_me
from octdino.pretrain.pretraining_data import OnlineEvalSet


def test_feature_spread_and_rank_me_at_known_distributions():
    generator = torch.Generator().manual_seed(0)
    cloud = torch.randn(4000, 32, generator=generator)
    assert feature_spread(cloud) == pytest.approx(1, abs=0.02)
    assert rank_me(cloud) > 30
    assert rank_me(cloud + 100) == pytest.approx(rank_me(cloud), rel=1e-3)  # features are centered
    assert rank_me(cloud[:, :1] * torch.randn(32)) == pytest.approx(1, abs=0.01)
    collapsed = torch.ones(100, 32)
    assert feature_spread(collapsed) == pytest.approx(0, abs=1e-6)
    assert rank_me(collapsed) == pytest.approx(1, abs=0.01)


def test_exclusive_labels_give_knn_accuracies():
    """Scans of class c are filled with gray c: a backbone that returns the mean classifies every query."""
    classes = torch.arange(12) % 3
    images = (40 + 80 * classes).to(torch.uint8)[:, None, None, None].expand(-1, 1, 16, 16)
    query = np.arange(12) >= 9
    labels = np.eye(3, dtype=np.float32)[classes]
    labels[9] = labels[10]  # one wrong label of three
    scans = OnlineEvalSet(images, labels, torch.arange(12), query, exclusive=True)
    backbone = nn.Sequential(nn.AvgPool2d(16), nn.Flatten(), Turn())
    given = Input(image=ImageSettings(), size=16, mean=[0.0], std=[1.0])
    found = evaluate_online(backbone, scans, given, 1, torch.device("cpu"))
    assert found["knn_accuracy"] == pytest.approx(2 / 3)
    assert found["knn5_accuracy"] == pytest.approx(2 / 3)


class Turn(nn.Module):
    """Maps a number to a direction, so that cosine similarity separates numbers."""

    def forward(self, x):
        return torch.cat([torch.cos(3 * x), torch.sin(3 * x)], dim=1)
