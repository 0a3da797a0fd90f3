"""A preset that names another project's recipe has that project's values, read from its own code."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightly.models.modules import DINOProjectionHead
from lightly.transforms import DINOTransform
from torch import nn

from octdino.config import METHODS, Config, ModelSettings, load_config
from octdino.config.methods import DinoSettings
from octdino.models.backbones import create_backbone
from octdino.models.sync_batchnorm import has_batch_norm
from octdino.pretrain.methods.dino import Dino

PRESET = Path(__file__).parents[2] / "replication" / "imagenette.yaml"


@pytest.fixture(scope="module")
def config() -> Config:
    values = yaml.safe_load(PRESET.read_text())
    return load_config({key: section for key, section in values.items() if key != "replication"}, PRESET.name)


def parts(view: Any) -> dict[str, Any]:
    """The transforms of one of lightly's views, by class name; what a RandomApply holds stands beside it."""
    found = {type(part).__name__: part for part in view.transform.transforms}
    (found["ColorJitter"],) = found["RandomApply"].transforms
    return found


def test_the_imagenette_preset_has_lightlys_views(config: Config) -> None:
    ours = config.pretrain.augment
    theirs = DINOTransform(global_crop_size=ours.global_size, local_crop_size=ours.local_size)
    assert (ours.global_size, ours.local_size, len(theirs.transforms)) == (128, 64, 2 + ours.local_views)
    first, second, *small = (parts(view) for view in theirs.transforms)
    for view, size, scale in (
        (first, ours.global_size, ours.global_scale),
        (second, ours.global_size, ours.global_scale),
        (small[0], ours.local_size, ours.local_scale),
    ):
        crop, jitter = view["RandomResizedCrop"], view["ColorJitter"]
        assert (crop.size, crop.scale) == ((size, size), scale)
        assert crop.ratio == pytest.approx(ours.ratio, abs=1e-4)
        assert view["RandomHorizontalFlip"].p == ours.flip_p
        assert view["RandomApply"].p == ours.jitter_p
        strengths = {"brightness": ours.brightness_max, "contrast": ours.contrast_max}
        for name, strength in {**strengths, "saturation": ours.color.saturation_max}.items():
            assert getattr(jitter, name) == pytest.approx((1 - strength, 1 + strength))
        assert jitter.hue == pytest.approx((-ours.color.hue_max, ours.color.hue_max))
        assert view["RandomGrayscale"].p == ours.color.gray_p
        assert view["GaussianBlur"].sigmas == ours.blur_sigma
    assert ours.blur_p == tuple(view["GaussianBlur"].prob for view in (first, second, small[0]))
    assert ours.solarize_p == tuple(view["RandomSolarization"].prob for view in (first, second, small[0]))
    assert (ours.rotate_degrees, ours.gamma_max, ours.speckle_max) == (0, 1, 0)  # lightly has none of them


def norms(head: nn.Module) -> list[tuple[int, bool]]:
    return [(part.num_features, part.affine) for part in head.modules() if isinstance(part, nn.BatchNorm1d)]


def shapes(head: nn.Module) -> list[tuple[int, ...]]:
    """Of the matrices; lightly's last one has a length beside it, [K, 1]."""
    return sorted(tuple(p.shape) for p in head.parameters() if p.ndim == 2 and p.shape[1] > 1)


def test_the_imagenette_preset_has_lightlys_head(config: Config) -> None:
    settings = config.pretrain.variant("dino").resolved(9_469)
    assert isinstance(settings, DinoSettings)
    backbone = ModelSettings(timm="resnet18")
    ours = Dino(settings.for_backbone(batch_norm=True), lambda: create_backbone(backbone, 3, 32), 512).student["head"]
    theirs = DINOProjectionHead(512, 2048, 256, 2048, batch_norm=True)
    assert norms(ours) == norms(theirs) == [(2048, True)] * 2
    assert shapes(ours) == shapes(theirs)


@pytest.mark.parametrize(
    ("name", "model", "expected"),
    [
        ("dino", {"timm": "resnet18", "args": {"channels": [8, 8, 16, 16]}}, True),
        ("dino", {"timm": "test_vit", "args": {"patch_size": 8}}, False),
        ("dinov2", {"timm": "test_vit", "args": {"patch_size": 8}}, False),
    ],
)
def test_the_head_has_batch_norm_where_the_backbone_has(name: str, model: dict[str, Any], expected: bool) -> None:
    """Caron 2021, sec. 3.1: with vision transformers, which have no batch norm, there is none in the heads either."""
    with torch.device("meta"):
        network = create_backbone(ModelSettings(**model), 1, 32)
    settings: Any = METHODS[name]()
    resolved = settings.for_backbone(has_batch_norm(network))
    assert (resolved.head_norm, resolved.bottleneck_norm) == (expected, expected)
    changed = settings.model_copy(update={"head_norm": True, "bottleneck_norm": False})
    assert changed.for_backbone(has_batch_norm(network)) == changed
