"""Maps: attention read from the hook is attention computed by hand; class maps are the classifier's own sums."""

from typing import Any

import pytest
import timm
import torch
from timm.layers import set_fused_attn
from torch import Tensor, nn

from octdino.models.readouts import extract_features
from octdino.models.saliency import attention, attention_query, has_attention, label_maps, last_map, whole_patches

VITS: dict[str, tuple[str, dict[str, Any]]] = {
    "class token": ("test_vit", {}),
    "registers": ("test_vit", {"reg_tokens": 3}),
    "query and key norms": ("test_vit", {"qk_norm": True}),
    "no class token": ("test_vit", {"class_token": False, "global_pool": "avg", "no_embed_class": True}),
    "registers alone": ("test_vit", {"class_token": False, "global_pool": "avg", "reg_tokens": 2}),
    "average pooling": ("test_vit", {"global_pool": "avg"}),
    "patches of 8": ("vit_tiny_patch16_224", {"patch_size": 8, "depth": 2}),
}


def make(name: str, **args: Any) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = timm.create_model(name, num_classes=0, in_chans=1, **args)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))  # no bias or norm is left at its neutral value
    return model.eval()


def by_hand(model: Any, images: Tensor) -> Tensor:
    """Tokens through all blocks but the last by timm; then its norm and the softmax, head by head, in NumPy's way."""
    entered: list[Tensor] = []
    hook = model.blocks[-1].norm1.register_forward_hook(lambda _, __, out: entered.append(out.detach()))
    model.forward_features(images)
    hook.remove()
    attn, x = model.blocks[-1].attn, entered[0]
    dim = attn.num_heads * attn.head_dim
    weight, bias = attn.qkv.weight.detach(), attn.qkv.bias.detach()
    maps = []
    for head in range(attn.num_heads):
        own = slice(head * attn.head_dim, (head + 1) * attn.head_dim)
        q = attn.q_norm(x @ weight[:dim][own].T + bias[:dim][own])
        k = attn.k_norm(x @ weight[dim : 2 * dim][own].T + bias[dim : 2 * dim][own])
        scores = torch.exp(q @ k.transpose(1, 2) / attn.head_dim**0.5)
        maps.append(scores / scores.sum(-1, keepdim=True))
    found = torch.stack(maps, 1)
    first = model.num_prefix_tokens
    if model.cls_token is not None:
        return found[:, :, 0, first:]
    return found[:, :, first:, first:].mean(2)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("kind", VITS)
def test_attention_is_that_of_the_last_block(kind: str, fused: bool) -> None:
    name, args = VITS[kind]
    set_fused_attn(fused)
    try:
        model = make(name, img_size=64, dynamic_img_size=True, **args)
    finally:
        set_fused_attn(True)
    assert model.blocks[-1].attn.fused_attn == fused
    assert has_attention(model)
    assert attention_query(model) == ("mean over patches" if args.get("class_token") is False else "class token")
    for size in (64, 96):  # the second is not the one that its positions were made for
        images = torch.randn(2, 1, size, size)
        found = attention(model, images)
        patch = model.patch_embed.patch_size[0]
        assert found.shape == (2, model.blocks[-1].attn.num_heads, size // patch, size // patch)
        torch.testing.assert_close(found.flatten(2), by_hand(model, images).detach(), rtol=1e-4, atol=1e-6)
        assert (found.sum((2, 3)) <= 1 + 1e-5).all()


def test_rows_and_columns_of_patches_are_those_of_the_image() -> None:
    """A model that attends to what is bright: the brightest patch of the map is the bright patch of the image."""
    model = make("vit_tiny_patch16_224", patch_size=16, depth=1, img_size=64, dynamic_img_size=True)
    images = torch.zeros(1, 1, 64, 96)
    base = attention(model, images)
    images[:, :, 16:32, 64:80] = 3.0
    change = (attention(model, images) - base).abs().sum(1)[0]
    assert change.shape == (4, 6)
    assert divmod(int(change.argmax()), 6) == (1, 4)


def test_networks_without_attention_say_so() -> None:
    assert not has_attention(make("test_resnet"))
    assert not has_attention(make("vit_tiny_patch16_224", depth=1, attn_layer="diff"))
    assert whole_patches(make("vit_tiny_patch16_224", depth=1), 100) == 96
    assert whole_patches(make("test_resnet"), 100) == 100


def linear(model: nn.Module, labels: int = 3) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(labels, int(model.num_features)), torch.randn(labels)


def test_cam_is_the_classifier_at_each_place() -> None:
    """Its mean over places is the logit, and MONAI's CAM is the same map."""
    from monai.visualize import CAM

    model = make("test_resnet")
    weight, bias = linear(model)
    images = torch.randn(2, 1, 64, 64)
    result = label_maps(model, images, weight, bias)
    assert result is not None
    found, name = result
    assert name == "cam"
    with torch.no_grad():
        features, logits = model.forward_features(images), model(images) @ weight.T + bias
    by_place = torch.stack([features[:, :, y, x] @ weight.T + bias for y in range(2) for x in range(2)], -1)
    assert features.shape[2:] == (2, 2)
    torch.testing.assert_close(found.flatten(2), by_place, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.mean((2, 3)), logits, rtol=1e-4, atol=1e-4)
    whole = nn.Sequential(model, nn.Linear(weight.shape[1], 3))
    whole[1].load_state_dict({"weight": weight, "bias": bias})
    cam = CAM(nn_module=whole, target_layers="0.layer4", fc_layers="1")
    for label in range(3):
        theirs = cam.compute_map(images, class_idx=torch.full((2,), label))
        torch.testing.assert_close(found[:, label : label + 1], theirs, rtol=1e-3, atol=1e-3)


def test_gradcam_where_more_than_a_mean_lies_between() -> None:
    """ConvNeXt norms its pooled features: the weights are gradients, here computed by hand."""
    model = make("test_convnext")
    weight, bias = linear(model)
    images = torch.randn(2, 1, 64, 64)
    result = label_maps(model, images, weight, bias)
    assert result is not None
    found, name = result
    assert name == "gradcam"
    features = last_map(model, images)
    assert features is not None
    features.requires_grad_()
    logits = model.forward_head(features, pre_logits=True) @ weight.T + bias
    for label in range(3):
        (gradient,) = torch.autograd.grad(logits[:, label].sum(), features, retain_graph=True)
        wanted = (gradient.mean((2, 3), keepdim=True) * features).sum(1).relu().detach()
        torch.testing.assert_close(found[:, label], wanted, rtol=1e-3, atol=1e-5)


def test_projection_of_an_averaging_vit_sums_to_its_logits() -> None:
    model = make("test_vit", img_size=64, dynamic_img_size=True, global_pool="avg", fc_norm=False)
    weight, bias = linear(model)
    images = torch.randn(2, 1, 64, 64)
    result = label_maps(model, images, weight, bias)
    assert result is not None
    found, name = result
    assert (name, found.shape) == ("projection", (2, 3, 4, 4))
    with torch.no_grad():
        torch.testing.assert_close(found.mean((2, 3)), model(images) @ weight.T + bias, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("name", "size"), [("resnet10t", 96), ("vit_tiny_patch16_224", 64)])
def test_the_map_of_several_layers_is_finer_and_its_mean_is_the_logit(name: str, size: int) -> None:
    args = (
        {} if name == "resnet10t" else {"img_size": size, "global_pool": "avg", "fc_norm": False, "class_token": False}
    )
    model = make(name, **args)
    images = torch.randn(2, 1, size, size)
    features = extract_features(model, [images], "layers")
    weight, bias = torch.randn(3, features.shape[1]), torch.randn(3)
    result = label_maps(model, images, weight, bias, "layers")
    assert result is not None
    found, kind = result
    assert (kind, found.shape) == (("cam", (2, 3, 12, 12)) if name == "resnet10t" else ("projection", (2, 3, 4, 4)))
    torch.testing.assert_close(found.mean((2, 3)), features @ weight.T + bias, rtol=1e-3, atol=1e-3)


def test_a_network_with_another_form_of_features_has_no_map() -> None:
    model = make("swin_tiny_patch4_window7_224", img_size=64, depths=(1, 1), embed_dim=24, num_heads=(2, 2))
    assert label_maps(model, torch.randn(1, 1, 64, 64), *linear(model)) is None
