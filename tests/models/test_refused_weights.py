"""Weights from outside that are refused: what does not fit, no checkpoint, code to be run, unknown tags."""

import os
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from octdino.config import ModelSettings
from octdino.errors import UserError
from octdino.models.backbones import create_backbone
from tests.models.test_weights import NARROW, SIZE, randomised, tiny, written


def without(state: dict[str, Tensor], *keys: str) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if key not in keys}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: without(s, "norm.bias", "blocks.1.norm1.bias"), r"timm's names.*2 missing: blocks.1.norm1.bias"),
        (lambda s: s | {"blocks.3.norm1.bias": torch.zeros(16)}, r"1 left over: blocks.3.norm1.bias"),
        (lambda s: s | {"norm.bias": torch.zeros(8)}, r"1 of another shape: norm.bias \[8\] for \[16\]"),
        (lambda s: s | {"pos_embed": torch.zeros(1, 12, 16)}, r"does not fit vit_tiny"),
        (lambda _: torchvision.models.resnet18(weights=None).state_dict(), r"names as their project has them.*missing"),
        (lambda _: {"epoch": 3, "name": "x"}, r"a mapping of epoch, name and no tensors by name"),
        (lambda _: {"student": {"norm.bias": torch.zeros(8)}}, r"a mapping of student and no tensors"),
        (lambda _: [1, 2], r"holds list and no tensors"),
        (lambda s: s | {"extra": Path("x")}, r"a pickled pathlib\S*Path, which only .* refused; expected a state dict"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_line(tmp_path, change, message):
    state = randomised(create_backbone(tiny(), 3, SIZE)).state_dict()
    refused(written(tmp_path, change(state)), message)


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "w.bin"])
@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"PK\x03\x04 broken", b"\x80\x02garbage", b"\0" * 64])
def test_files_that_are_no_checkpoints_are_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, "not a safetensors file" if "safe" in name else "not a checkpoint; expected")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_cannot_run_code(tmp_path, legacy):
    class Trap:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path}/sprung",)

    path = tmp_path / "w.pth"
    torch.save({"model": {}, "args": Trap()}, path, _use_new_zipfile_serialization=not legacy)
    refused(path, r"a pickled (posix|nt|os)\.system, which only running its code could read: refused")
    assert not (tmp_path / "sprung").exists()


def refused(path: Path, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        create_backbone(tiny().model_copy(update={"weights": path}), 3, SIZE, imagenet=True)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_timms_download_takes_tags_and_is_loaded_whole(monkeypatch):
    def load(model: nn.Module, **_: Any) -> None:
        torch.manual_seed(1)
        randomised(model)

    monkeypatch.setattr("timm.models._builder.load_pretrained", load)
    backbone = create_backbone(ModelSettings(timm="vit_small_patch16_224.dino"), 1, 96, imagenet=True)
    source = timm.create_model("vit_small_patch16_224.dino", pretrained=True, num_classes=0)
    assert source.pretrained_cfg["tag"] == "dino"
    torch.testing.assert_close(backbone.patch_embed.proj.weight, source.patch_embed.proj.weight.sum(1, keepdim=True))
    torch.testing.assert_close(backbone.blocks[11].mlp.fc2.weight, source.blocks[11].mlp.fc2.weight)
    with pytest.raises(UserError, match=r"timm's download: does not fit resnet18: 5 missing: .*; 95 of another shape"):
        create_backbone(ModelSettings(timm="resnet18", args=NARROW), 1, SIZE, imagenet=True)


def test_a_tag_that_timm_does_not_know_is_one_line():
    with pytest.raises(UserError, match=r"no weights of this name; it has .*vit_small_patch16_224\.dino"):
        create_backbone(ModelSettings(timm="vit_small_patch16_224.dyno"), 1, SIZE)
