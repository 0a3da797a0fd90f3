"""Python code in the README of an export: it loads the files beside it and predicts one scan without octdino.

A test runs the code of every format. It is made of numbers and of names that the schema of model.json has checked.
"""

import math
from typing import Any

from timm.models.vision_transformer import VisionTransformer
from torch import nn

from octdino.config.names import Readout
from octdino.inference.export_graph import VOTE_TEMPERATURE
from octdino.inference.export_network import architecture
from octdino.inference.scan_model import ScanModel
from octdino.models.backbones import num_features
from octdino.models.readouts import BLOCKS, STAGES
from octdino.stats.calibration import CLIP

LIMIT = f"{math.log(1 / CLIP - 1):.6f}"  # of logits
LOG_LIMIT = f"{math.log(CLIP):.6f}"


def image_code(model: ScanModel) -> list[str]:
    """Return the lines from scan.png to `image`, a PIL image of the store's size."""
    image = model.metadata.input.image
    opened = f'Image.open("scan.png").convert("{"L" if image.channels == 1 else "RGB"}")'
    lines = []
    if image.crop == "retina":
        lines.append("# first crop the file to the retina, as octdino.scans.retina.retina_box does")
    if image.percentiles:
        lines += [
            f"pixels = np.asarray({opened})",
            f"low, high = np.percentile(pixels, {list(image.percentiles)})",
            "pixels = np.rint((pixels.clip(low, high) - low) * (255 / (high - low))).astype(np.uint8)",
        ]
        opened = "Image.fromarray(pixels)"
    height, width = image.size
    return [*lines, f"image = {opened}.resize(({width}, {height}), Image.Resampling.BILINEAR)"]


def input_code(model: ScanModel) -> list[str]:
    """Return the lines from scan.png to `x`, the network's input [1, C, S, S]; they read `config`."""
    image, size = model.metadata.input.image, model.metadata.input.size
    shape = f"(1, {image.size[0]}, {image.size[1]}, {image.channels})"
    lines = [
        *image_code(model),
        'mean, std = (torch.tensor(config["pretrained_cfg"][key])[:, None, None] for key in ("mean", "std"))',
        f"x = (torch.tensor(np.asarray(image)).reshape{shape}.movedim(3, 1) / 255 - mean) / std",
    ]
    if image.size != (size, size):
        lines.append(f'x = F.interpolate(x, ({size}, {size}), mode="bilinear", antialias=True)')
    return lines


def features_code(backbone: nn.Module, readout: Readout) -> list[str]:
    """Return the lines from `x` to `features` [1, D] of `backbone`."""
    if readout == "pooled":
        return ["features = backbone(x).detach()"]
    if isinstance(backbone, VisionTransformer):
        count, tokens = min(BLOCKS, len(backbone.blocks)), backbone.cls_token is not None
        prefix = ", return_prefix_tokens=True" if tokens else ""
        call, each = f"{count}{prefix}, norm=True", "prefix[:, 0] for _, prefix" if tokens else "m.mean((2, 3)) for m"
    else:
        info: Any = backbone.feature_info  # of timm, which nn.Module does not declare
        call = f"indices={min(STAGES, len(info))}"
        each = "m.mean((2, 3)) for m"
    return [
        f"last, found = backbone.forward_intermediates(x, {call})",
        f"parts = [*({each} in found[:-1]), backbone.forward_head(last, pre_logits=True)]",
        "features = torch.cat(parts, 1).detach()",
    ]


def head_code(model: ScanModel) -> list[str]:
    """Return the lines from `features` and the tensors `head` to `probabilities` [1, L], calibrated."""
    metadata = model.metadata
    if metadata.head.kind == "linear":
        return [
            'logits = features @ head["weight"].float().T + head["bias"].float()',
            probability_code(model, "logits"),
        ]
    if metadata.head.kind == "mlp":
        return [
            'hidden = ((features - head["mean"]) / head["std"]) @ head["layers.0.weight"].T + head["layers.0.bias"]',
            'logits = hidden.relu() @ head["layers.3.weight"].T + head["layers.3.bias"]',
            probability_code(model, "logits"),
        ]
    count = min(metadata.head.neighbors or 1, len(model.tensors["bank"]))
    return [
        f'top, near = (F.normalize(features) @ F.normalize(head["bank"]).T).topk({count})',
        'labels = head["labels"][near]  # 1, 0, or NaN: does not vote',
        f"weight = (top / {VOTE_TEMPERATURE}).exp()[:, :, None] * ~labels.isnan()",
        "votes = ((weight * labels.nan_to_num()).sum(1) / weight.sum(1)).nan_to_num(0.5).double()",
        _vote_code(model),
    ]


def _vote_code(model: ScanModel) -> str:
    temperature = model.metadata.temperature
    if temperature is None:
        return "probabilities = votes"
    if model.metadata.exclusive:
        return f"probabilities = (votes.clamp({CLIP}, 1).log() / {temperature:.8g}).softmax(1)"
    return f"probabilities = (votes.logit({CLIP}) / {temperature:.8g}).sigmoid()"


def probability_code(model: ScanModel, logits: str) -> str:
    """Return the line from logits, an expression, to `probabilities`."""
    temperature = model.metadata.temperature
    if model.metadata.exclusive:
        if temperature is None:
            return f"probabilities = {logits}.softmax(1)"
        return f"probabilities = ({logits}.log_softmax(1).clamp(min={LOG_LIMIT}) / {temperature:.8g}).softmax(1)"
    if temperature is None:
        return f"probabilities = {logits}.sigmoid()"
    return f"probabilities = ({logits}.clamp(-{LIMIT}, {LIMIT}) / {temperature:.8g}).sigmoid()"


def distance_code(model: ScanModel, backbone: nn.Module) -> list[str]:
    """Return the lines that follow those to `features`, to `out_of_distribution` [1]."""
    ood = model.metadata.out_of_distribution
    return [
        *([] if ood.readout == model.metadata.readout else features_code(backbone, ood.readout)),
        'density = load_file("density.safetensors")',
        'z = (features - density["mean"]) / density["scale"]',
        'along = z @ density["components"].T',
        'rest = ((z - along @ density["components"]) ** 2).sum(1) / density["noise"]',
        f'out_of_distribution = ((along**2 / density["variances"]).sum(1) + rest).sqrt() / {ood.threshold!r}',
    ]


def imports_code(model: ScanModel) -> list[str]:
    """Return the imports of an example in timm and torch."""
    given = model.metadata.input
    functional = given.image.size != (given.size, given.size) or model.metadata.head.kind == "knn"
    return [
        "import json",
        "import numpy as np",
        "import timm",
        "import torch",
        *(["import torch.nn.functional as F"] if functional else []),
        "from PIL import Image",
        "from safetensors.torch import load_file",
        "",
        'config = json.load(open("config.json"))',
    ]


def create_code(model: ScanModel, name: str, weights: str) -> list[str]:
    """Return the lines that make a network of timm, called `name`, from config.json and a file of weights."""
    return [
        f'{name} = timm.create_model("{architecture(model.metadata.spec)}", num_classes=config["num_classes"], '
        '**config["model_args"])',
        f'{name}.eval().load_state_dict(load_file("{weights}"))',
    ]


def output_width(model: ScanModel) -> int:
    """Return D, the number of pooled features."""
    return num_features(model.network.backbone)
