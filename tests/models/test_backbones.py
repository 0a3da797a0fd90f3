"""Backbones are timm's, carry their own description, and fail with one line."""

import inspect
import json
import socket

import pytest
import timm
import timm.models
import torch
from safetensors.torch import load_file

from octdino.config import ModelSettings
from octdino.config.networks import LOADING, is_timm_name
from octdino.data.schemas.metadata import BackboneSpec
from octdino.errors import UserError
from octdino.models.backbones import create_backbone, load_backbone, save_backbone
from octdino.models.heads import PrototypeHead
from tests.small import BACKBONE_CARD

NARROW = ModelSettings(timm="resnet18", args={"channels": [8, 8, 16, 16]})


def spec(model, size=32):
    return BackboneSpec(timm=model.timm, args=model.args, in_chans=1, size=size)


@pytest.mark.parametrize("model", [NARROW, ModelSettings(timm="test_vit")])
def test_a_saved_backbone_comes_back_and_is_timms_own(tmp_path, model):
    backbone = create_backbone(model, 1, 32).eval()
    save_backbone(tmp_path, backbone, spec(model), BACKBONE_CARD)
    loaded, found = load_backbone(tmp_path)
    x = torch.randn(2, 1, 32, 32)
    assert torch.equal(loaded.eval()(x), backbone(x))
    assert found.spec == spec(model)
    extra = {"img_size": 32} if "vit" in model.timm else {}
    plain = timm.create_model(model.timm, in_chans=1, num_classes=0, **model.args, **extra)
    plain.load_state_dict(load_file(tmp_path / "backbone.safetensors"))


def test_vits_take_views_of_several_sizes():
    backbone = create_backbone(ModelSettings(timm="test_vit"), 1, 64)
    assert backbone(torch.randn(2, 1, 64, 64)).shape == backbone(torch.randn(2, 1, 32, 32)).shape


FAMILIES = {
    "resnet18": 512, "resnet50": 2048, "vit_tiny_patch16_224": 192, "vit_small_patch16_224": 384,
    "vit_base_patch16_224": 768, "vit_small_patch8_224": 384, "vit_base_patch8_224": 768,
}  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_usual_backbones_take_large_and_small_views(name, channels):
    args = {"drop_path_rate": 0.1} if "vit" in name else {}
    with torch.device("meta"):  # shapes without arithmetic
        backbone = create_backbone(ModelSettings(timm=name, args=args), channels, 224)
        for size in (224, 96):
            assert backbone(torch.empty(2, channels, size, size)).shape == (2, FAMILIES[name])


def test_imagenet_weights_from_a_local_file_are_summed_over_the_colours(tmp_path):
    torch.manual_seed(0)
    colour = timm.create_model("resnet18", channels=[8, 8, 16, 16], num_classes=1000)
    torch.save(colour.state_dict(), tmp_path / "resnet18.pth")
    model = NARROW.model_copy(update={"weights": tmp_path / "resnet18.pth"})
    grey = create_backbone(model, 1, 32, imagenet=True)
    torch.testing.assert_close(grey.conv1.weight, colour.conv1.weight.sum(1, keepdim=True))
    torch.testing.assert_close(grey.layer1[0].conv1.weight, colour.layer1[0].conv1.weight)


@pytest.mark.parametrize(
    ("model", "imagenet", "message"),
    [
        (ModelSettings(timm="resnet81"), False, "no timm model.*resnet18"),
        (ModelSettings(timm="resnet18", args={"chanels": 3}), False, "refuses the arguments.*chanels"),
        (ModelSettings(timm="test_vit", args={"num_heads": 0}), False, "refuses the arguments.*num_heads"),
        (ModelSettings(timm="resnet18", args={"channels": [-1, 8, 8, 8]}), False, "resnet18: .*arguments.*channels"),
        (ModelSettings(timm="resnet18", weights="/nowhere/w.pth"), True, "/nowhere/w.pth: no such weights file"),
    ],
)
def test_wrong_models_are_one_clear_line(model, imagenet, message):
    with pytest.raises(UserError, match=message) as caught:
        create_backbone(model, 1, 32, imagenet=imagenet)
    assert "\n" not in str(caught.value)


def test_no_network_and_no_file_says_both(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("timm.models._builder.load_pretrained", _refuse)
    with pytest.raises(UserError, match=r"local file as models.NAME.weights, or run where there is a network"):
        create_backbone(ModelSettings(timm="resnet18"), 1, 32, imagenet=True)


def _refuse(*_, **__):
    raise ConnectionError("no network")


@pytest.mark.parametrize("damage", ["missing", "other model"])
def test_a_damaged_run_is_one_clear_line(tmp_path, damage):
    save_backbone(tmp_path, create_backbone(NARROW, 1, 32), spec(NARROW), BACKBONE_CARD)
    if damage == "missing":
        (tmp_path / "backbone.safetensors").unlink()
    else:
        other = NARROW.model_copy(update={"args": {"channels": [8, 8, 8, 16]}})
        save_backbone(tmp_path, create_backbone(other, 1, 32), spec(NARROW), BACKBONE_CARD)
    with pytest.raises(UserError, match=r"backbone\.safetensors"):
        load_backbone(tmp_path)


def test_every_argument_that_loads_is_refused():
    """timm's own signatures: what create_model and its builder take by name is no argument of a network."""
    taken = {
        name
        for function in (timm.create_model, timm.models.build_model_with_cfg)
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    }
    assert taken <= LOADING
    names = timm.list_models() + timm.list_models(pretrained=True)
    assert [name for name in names if not is_timm_name(name)] == []


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("args", {"pretrained": True}, r"backbone\.json: spec\.args\.pretrained: refused"),
        ("args", {"pretrained_cfg": {"file": "w.pth"}}, r"args\.pretrained_cfg: refused"),
        ("args", {"pretrained_cfg_overlay": {"hf_hub_id": "a/b"}}, r"args\.pretrained_cfg_overlay: refused"),
        ("args", {"checkpoint_path": "w.pth"}, r"args\.checkpoint_path: refused"),
        ("args", {"cache_dir": "here"}, r"args\.cache_dir: refused"),
        ("timm", "hf-hub:timm/resnet18.a1_in1k", r"spec\.timm: 'hf-hub:timm/resnet18.a1_in1k' is not allowed"),
        ("timm", "local-dir:here", r"spec\.timm: 'local-dir:here' is not allowed"),
    ],
)
def test_a_card_opens_no_connection_and_no_other_file(tmp_path, monkeypatch, key, value, message):
    save_backbone(tmp_path, create_backbone(NARROW, 1, 32), spec(NARROW), BACKBONE_CARD)
    card = json.loads((tmp_path / "backbone.json").read_text())
    card["spec"][key] = value
    (tmp_path / "backbone.json").write_text(json.dumps(card))
    touched = []
    monkeypatch.setattr(socket.socket, "connect", lambda *_: touched.append("connect"))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: touched.append("getaddrinfo"))
    monkeypatch.setattr("octdino.data.safetensors_torch.load_file", lambda *_: touched.append("weights"))
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: touched.append("create_model"))
    monkeypatch.setattr("timm.models._hub.load_state_dict_from_hf", lambda *_, **__: touched.append("hub"))
    with pytest.raises(UserError, match=message) as caught:
        load_backbone(tmp_path)
    assert "\n" not in str(caught.value)
    assert not touched


def test_prototype_similarities_are_cosines():
    head = PrototypeHead(6, 8, 5, 7, norm=True, bottleneck_norm=True)
    out = head(torch.randn(9, 6) * 100)
    assert out.shape == (9, 7)
    assert out.abs().max() <= 1 + 1e-5
    with torch.no_grad():
        head.prototypes.weight.mul_(13)
    torch.manual_seed(0)
    x = torch.randn(9, 6)
    head.eval()
    before = head(x)
    with torch.no_grad():
        head.prototypes.weight.mul_(0.1)
    torch.testing.assert_close(head(x), before)


def test_a_network_that_is_built_and_cannot_run_is_one_line():
    with pytest.raises(UserError, match=r"resnet18: timm refuses the arguments .*layer4"):
        create_backbone(ModelSettings(timm="resnet18", args={"channels": [8, 8, 8]}), 1, 16)
