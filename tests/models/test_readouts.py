"""Read-outs equal what hooks on the network's own layers give."""

import pytest
import torch
from torch import Tensor, nn

from octdino.config import ModelSettings
from octdino.errors import UserError
from octdino.models.backbones import create_backbone, num_features
from octdino.models.readouts import extract_features


def outputs(layers: list[nn.Module], network: nn.Module, images: Tensor) -> list[Tensor]:
    found: list[Tensor] = []
    hooks = [layer.register_forward_hook(lambda _m, _i, output: found.append(output)) for layer in layers]
    with torch.no_grad():
        network.eval()(images)
    for hook in hooks:
        hook.remove()
    return found


def test_layers_of_a_resnet_are_the_means_of_its_last_three_stages() -> None:
    torch.manual_seed(0)
    network = create_backbone(ModelSettings(timm="resnet18", args={"channels": [8, 8, 16, 32]}), 1, 64)
    images = torch.randn(5, 1, 64, 64)
    stages: list[nn.Module] = [network.layer2, network.layer3, network.layer4]
    expected = torch.cat([each.mean((2, 3)) for each in outputs(stages, network, images)], 1)
    features = extract_features(network, [images[:2], images[2:]], "layers")
    torch.testing.assert_close(features, expected)
    torch.testing.assert_close(extract_features(network, [images]), features[:, -32:])


@pytest.mark.parametrize("pool", ["token", "avg"])
def test_layers_of_a_vision_transformer_are_those_of_its_last_four_blocks(pool: str) -> None:
    torch.manual_seed(0)
    args = {"patch_size": 8, "depth": 6, "class_token": pool == "token", "global_pool": pool, "fc_norm": False}
    network = create_backbone(ModelSettings(timm="vit_tiny_patch16_224", args=args), 1, 32)
    images = torch.randn(3, 1, 32, 32)
    blocks = outputs(list(network.blocks)[-4:], network, images)
    with torch.no_grad():
        tokens = [network.norm(each) for each in blocks]
    expected = [each[:, 0] if pool == "token" else each.mean(1) for each in tokens]
    torch.testing.assert_close(extract_features(network, [images], "layers"), torch.cat(expected, 1))


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050", "vgg11", "convnext_atto", "test_vit"])
def test_the_last_columns_are_the_pooled_features(name: str) -> None:
    """MobileNetV3 and VGG have layers between the last stage and the classifier."""
    torch.manual_seed(0)
    network = create_backbone(ModelSettings(timm=name), 1, 64)
    images = torch.randn(2, 1, 64, 64)
    pooled = extract_features(network, [images])
    assert pooled.shape[1] == num_features(network)
    layers = extract_features(network, [images], "layers")
    assert layers.shape[1] > pooled.shape[1]
    torch.testing.assert_close(layers[:, -pooled.shape[1] :], pooled)


def test_a_network_without_intermediate_layers_is_one_line() -> None:
    with pytest.raises(UserError, match="timm gives no earlier layers of a Flatten; expected pooled"):
        extract_features(nn.Flatten(), [torch.zeros(1, 1, 64, 64)], "layers")
