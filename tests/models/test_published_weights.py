"""Published weights: the backbone computes what the published network computes, or the file is refused in one line."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from octdino.config import ModelSettings
from octdino.config.models import published_input
from octdino.errors import UserError
from octdino.models.initial_weights import start_backbone, start_input
from tests.models.published import (
    DEPTH,
    DIM,
    HEADS,
    PATCH,
    SIDE,
    TIMM,
    checkpoint,
    forward,
    model_of,
    random_vit,
    write_huggingface,
)

IMAGENET = (torch.tensor([0.485, 0.456, 0.406])[:, None, None], torch.tensor([0.229, 0.224, 0.225])[:, None, None])


def written(folder: Path, saved: Any, name: str = "weights.pth") -> Path:
    torch.save(saved, folder / name)
    return folder / name


def features(model: ModelSettings, pixels: Tensor) -> Tensor:
    """Features of gray pixels in [0, 1] by the backbone of an arm that starts from the entry by its name."""
    channels = pixels.shape[1]
    used = start_input("own", model, None, 99, [0.3] * channels, [0.2] * channels)
    network, sha256 = start_backbone("own", model, channels, used.size, pretrained=None, seed=0)
    assert sha256 is not None
    assert used.size == SIDE
    mean, std = (torch.tensor(each)[:, None, None] for each in (used.mean, used.std))
    with torch.no_grad():
        return network.eval()((pixels - mean) / std)


def gray(count: int = 3) -> Tensor:
    return torch.rand(count, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("layout", TIMM)
def test_features_are_those_of_the_published_network_on_the_gray_image(layout: str, channels: int, tmp_path: Path):
    saved = checkpoint(layout)
    path = written(tmp_path, saved)
    pixels = gray()
    published = pixels if layout == "mirage" else (pixels.expand(-1, 3, -1, -1) - IMAGENET[0]) / IMAGENET[1]
    expected = forward(layout, saved, published, pool="avg" if layout == "retfound_mae" else "token")
    found = features(ModelSettings(**model_of(layout, path)), pixels.expand(-1, channels, -1, -1))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-4)
    assert expected.std() > 0.1


def test_retfound_reads_its_class_token_and_the_norm_of_a_fine_tuned_file(tmp_path: Path):
    saved = checkpoint("retfound_mae")
    images = (gray().expand(-1, 3, -1, -1) - IMAGENET[0]) / IMAGENET[1]
    token = ModelSettings(**model_of("retfound_mae", written(tmp_path, saved), args={"global_pool": "token"}))
    expected = forward("retfound_mae", saved, images)
    torch.testing.assert_close(features(token, gray()), expected, rtol=1e-4, atol=2e-4)
    tuned = {name: each for name, each in saved["model"].items() if not name.startswith(("norm.", "decoder", "mask"))}
    tuned |= {"fc_norm.weight": torch.full((DIM,), 2.0), "fc_norm.bias": torch.full((DIM,), 0.5)}
    tuned |= {"head.weight": torch.ones(5, DIM), "head.bias": torch.ones(5)}
    pooled = ModelSettings(**model_of("retfound_mae", written(tmp_path, {"model": tuned}, "tuned.pth")))
    expected = forward("retfound_mae", saved, images, pool="avg") * 2 + 0.5
    torch.testing.assert_close(features(pooled, gray()), expected, rtol=1e-4, atol=4e-4)


def test_biases_of_dinov3_are_dropped_only_where_they_are_zero(tmp_path: Path):
    saved = checkpoint("dinov3")
    plain = {"timm": "vit_small_patch16_dinov3"}
    with pytest.raises(UserError, match=r"blocks.0.attn.qkv.bias: biases that are not zero.*_qkvb at the end"):
        features(ModelSettings(**model_of("dinov3", written(tmp_path, saved), **plain)), gray())
    for index in range(DEPTH):
        bias = saved[f"blocks.{index}.attn.qkv.bias"]
        bias[:DIM] = bias[2 * DIM :] = 0  # those of keys are masked
    found = features(ModelSettings(**model_of("dinov3", written(tmp_path, saved), **plain)), gray())
    images = (gray().expand(-1, 3, -1, -1) - IMAGENET[0]) / IMAGENET[1]
    torch.testing.assert_close(found, forward("dinov3", saved, images), rtol=1e-4, atol=2e-4)


def test_periods_of_dinov3_may_be_rounded(tmp_path: Path):
    saved = checkpoint("dinov3")
    saved["rope_embed.periods"] = saved["rope_embed.periods"].bfloat16()
    assert features(ModelSettings(**model_of("dinov3", written(tmp_path, saved))), gray()).isfinite().all()


def without(saved: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: each for name, each in saved.items() if name not in names}


def slo_only(saved: dict[str, Any]) -> dict[str, Any]:
    return {"model": {name: each for name, each in saved["model"].items() if ".bscan." not in name}}


@pytest.mark.parametrize(
    ("layout", "change", "message"),
    [
        ("mirage", slo_only, r"no input adapter bscan \(OCT B-scans\); it has slo"),
        ("mirage", lambda s: {"model": without(s["model"], "encoder.1.norm1.bias")}, r"1 missing: blocks.1.norm1"),
        ("mirage", lambda s: {"model": s["model"] | {"extra.weight": torch.ones(2)}}, r"1 left over: extra.weight"),
        ("mirage", lambda s: {"model": s["model"] | {"global_tokens": torch.ones(1, 2, DIM)}}, r"cls_token \[1, 2"),
        ("mirage", lambda _: checkpoint("retfound_mae"), r"no tensor global_tokens, .* layout MIRAGE"),
        ("retfound_mae", lambda _: checkpoint("mirage"), r"no tensor patch_embed.proj.weight, .* layout RETFound"),
        ("retfound_mae", lambda s: {"model": without(s["model"], "blocks.1.attn.proj.bias")}, r"1 missing: blocks.1"),
        ("retfound_mae", lambda s: {"model": s["model"] | {"blocks.2.norm1.bias": torch.ones(DIM)}}, r"1 left over"),
        ("dinov2", lambda s: without(s, "blocks.0.ls1.gamma"), r"1 missing: blocks.0.ls1.gamma"),
        ("dinov2", lambda _: checkpoint("dinov2 registers"), r"has register tokens, vit_small_patch14_dinov2 has none"),
        ("dinov3", lambda s: s | {"rope_embed.periods": torch.ones(4)}, r"rope_embed.periods \[4\]: another rotary"),
        ("dinov3", lambda s: without(s, "norm.bias"), r"1 missing: norm.bias"),
        ("dinov3", lambda s: s | {"cls_norm.bias": torch.ones(DIM)}, r"1 left over: cls_norm.bias"),
        ("retfound_dinov2", lambda s: {"teacher": without(s["teacher"], "backbone.norm.bias")}, r"1 missing: norm"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_layout_is_refused_in_one_line(layout: str, change: Any, message: str, tmp_path: Path):
    path = written(tmp_path, change(checkpoint(layout)))
    with pytest.raises(UserError, match=message) as caught:
        features(ModelSettings(**model_of(layout, path)), gray())
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_position_embeddings_follow_another_input_size(tmp_path: Path):
    path = written(tmp_path, checkpoint("mirage"))
    model = ModelSettings(**model_of("mirage", path, input_size=SIDE * 2))
    network, _ = start_backbone("own", model, 1, SIDE * 2, pretrained=None, seed=0)
    assert network.pos_embed.shape == (1, (SIDE * 2 // PATCH) ** 2, DIM)
    assert network(torch.rand(1, 1, SIDE * 2, SIDE * 2)).shape == (1, DIM)


def huggingface_vit(own: dict[str, Tensor], prefix: str, kind: str) -> dict[str, Tensor]:
    """The names of transformers' ViT or Dinov2 for an encoder under DINO's names."""
    names = {"cls_token": "embeddings.cls_token", "pos_embed": "embeddings.position_embeddings",
             "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
             "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias", "norm.weight": "layernorm.weight",
             "norm.bias": "layernorm.bias", "mask_token": "embeddings.mask_token"}  # fmt: skip
    inner = {"attn.proj": "attention.output.dense"}
    inner |= {"ls1.gamma": "layer_scale1.lambda1", "ls2.gamma": "layer_scale2.lambda1"} if kind == "dinov2" else {
        "norm1": "layernorm_before", "norm2": "layernorm_after", "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense"}  # fmt: skip
    found = {}
    for name, each in own.items():
        if not name.startswith("blocks."):
            found[prefix + names[name]] = each
            continue
        _, index, rest = name.split(".", 2)
        layer = f"{prefix}encoder.layer.{index}."
        if rest.startswith("attn.qkv"):
            for part, value in zip(("query", "key", "value"), each.chunk(3), strict=True):
                found[f"{layer}attention.attention.{part}.{rest.rpartition('.')[2]}"] = value
            continue
        for old, new in inner.items():
            rest = rest.replace(old, new)
        found[layer + rest] = each
    return found


CONFIG = {"hidden_size": DIM, "num_hidden_layers": DEPTH, "num_attention_heads": HEADS, "patch_size": PATCH}


@pytest.mark.parametrize("kind", ["vit", "dinov2"])
def test_a_hugging_face_folder_gives_network_and_input(kind: str, tmp_path: Path):
    layout = "dinov2" if kind == "dinov2" else "retfound_mae"
    saved = checkpoint(layout)
    own = (
        saved if kind == "dinov2" else {k: v for k, v in saved["model"].items() if "deco" not in k and "mask" not in k}
    )
    tensors = huggingface_vit(own, "vit." if kind == "vit" else "", kind) | {"classifier.weight": torch.ones(3, DIM)}
    folder = write_huggingface(tmp_path / kind, tensors, CONFIG)
    sizes = '"do_normalize": true, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]'
    (folder / "preprocessor_config.json").write_text(f'{{{sizes}, "size": {{"height": {SIDE}, "width": {SIDE}}}}}')
    name = TIMM["dinov2"] if kind == "dinov2" else {"timm": "vit_tiny_patch16_224"}
    model = ModelSettings(**(model_of("dinov2", folder) | name | {"layout": "huggingface", "input_size": None}))
    assert published_input(model) == (SIDE, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    expected = forward(layout, saved, (gray().expand(-1, 3, -1, -1) - 0.5) / 0.5)
    torch.testing.assert_close(features(model, gray()), expected, rtol=1e-4, atol=2e-4)
    write_huggingface(folder, tensors, CONFIG | {"num_attention_heads": 4})
    with pytest.raises(UserError, match=r"config.json: num_attention_heads is 4, 2 in the backbone"):
        features(model, gray())


@pytest.mark.parametrize(
    ("config", "args", "message"),
    [
        ({"hidden_act": "gelu", "layer_norm_eps": 1e-6}, {}, ""),
        ({"layer_norm_eps": 1e-12}, {}, ""),  # of transformers' ViT
        ({"hidden_act": "quick_gelu"}, {"act_layer": "quick_gelu"}, ""),
        ({"hidden_act": "gelu_pytorch_tanh"}, {"act_layer": "gelu_tanh"}, ""),
        ({"hidden_act": "relu", "use_swiglu_ffn": True}, {}, ""),  # which has no use for it
        ({"hidden_act": "quick_gelu"}, {}, r"hidden_act is 'quick_gelu', gelu in the backbone; expected args with"),
        ({"hidden_act": "gelu_new"}, {}, r"hidden_act is 'gelu_new', gelu in"),
        ({"hidden_act": "gelu"}, {"act_layer": "silu"}, r"hidden_act is 'gelu', silu or swish in"),
        ({"hidden_act": ["gelu"]}, {}, r"hidden_act is \['gelu'\], gelu in"),
        ({"layer_norm_eps": 1e-5}, {}, r"layer_norm_eps is 1e-05, 1e-06 in the backbone"),
        ({"layer_norm_eps": "small"}, {}, r"layer_norm_eps is 'small', 1e-06 in"),
    ],
)  # fmt: skip
def test_config_of_a_hugging_face_folder_agrees_with_the_backbone(
    config: dict[str, Any], args: dict[str, Any], message: str, tmp_path: Path
):
    tensors = huggingface_vit(random_vit(0), "", "vit")
    folder = write_huggingface(tmp_path, tensors, CONFIG | config)
    entry = model_of("dinov2", folder, args=args) | {"timm": "vit_tiny_patch16_224", "layout": "huggingface"}
    with pytest.raises(UserError, match=message) if message else nullcontext():
        assert features(ModelSettings(**entry), gray()).isfinite().all()


def test_dinov3_as_transformers_names_it(tmp_path: Path):
    saved = checkpoint("dinov3")
    found = {"embeddings.cls_token": saved["cls_token"], "embeddings.register_tokens": saved["storage_tokens"],
             "embeddings.mask_token": torch.zeros(1, 1, DIM), "norm.weight": saved["norm.weight"],
             "norm.bias": saved["norm.bias"], "embeddings.patch_embeddings.weight": saved["patch_embed.proj.weight"],
             "embeddings.patch_embeddings.bias": saved["patch_embed.proj.bias"]}  # fmt: skip
    names = {"attn.proj": "attention.o_proj", "mlp.fc1": "mlp.up_proj", "mlp.fc2": "mlp.down_proj",
             "ls1.gamma": "layer_scale1.lambda1", "ls2.gamma": "layer_scale2.lambda1"}  # fmt: skip
    for name, each in saved.items():
        if not name.startswith("blocks.") or "bias_mask" in name:
            continue
        _, index, rest = name.split(".", 2)
        if rest.startswith("attn.qkv"):
            for part, value in zip("qkv", each.chunk(3), strict=True):
                if (part, rest) != ("k", "attn.qkv.bias"):
                    found[f"layer.{index}.attention.{part}_proj.{rest.rpartition('.')[2]}"] = value
            continue
        for old, new in names.items():
            rest = rest.replace(old, new)
        found[f"layer.{index}.{rest}"] = each
    folder = write_huggingface(
        tmp_path / "v3", found, CONFIG | {"rope_theta": 100.0, "hidden_act": "gelu", "layer_norm_eps": 1e-5}
    )
    entry = model_of("dinov3", folder, args={"global_pool": "token"}, mean=[0.5], std=[0.25])
    expected = forward("dinov3", saved, ((gray() - 0.5) / 0.25).expand(-1, 3, -1, -1))
    found_features = features(ModelSettings(**(entry | {"layout": "huggingface"})), gray())
    torch.testing.assert_close(found_features, expected, rtol=1e-4, atol=2e-4)


def test_a_safetensors_file_below_a_prefix_is_read(tmp_path: Path):
    saved = {f"model.{name}": each.contiguous() for name, each in checkpoint("mirage")["model"].items()}
    shared = {name: each.clone() for name, each in saved.items()}
    save_file(shared, tmp_path / "model.safetensors")  # as MIRAGE's files on Hugging Face
    model = ModelSettings(**model_of("mirage", tmp_path / "model.safetensors"))
    expected = forward("mirage", checkpoint("mirage"), gray())
    torch.testing.assert_close(features(model, gray()), expected, rtol=1e-4, atol=2e-4)
