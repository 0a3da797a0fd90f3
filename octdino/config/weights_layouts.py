"""Layouts of published weights: how their projects name the tensors, and the input that the networks were trained with.

What each layout says about its network is as its project publishes it; docs/foundation_models.md has the sources.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

LayoutName = Literal[
    "auto",
    "timm",
    "torchvision",
    "dino",
    "dinov2",
    "dinov3",
    "retfound_mae",
    "retfound_dinov2",
    "mirage",
    "huggingface",
]
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NATURAL = "natural images"
RETINA = "retinal images"


class Layout(NamedTuple):
    """One layout.

    Attributes:
        title: the project, in a sentence.
        size: px, side of the input; None: not a property of the layout.
        mean, std: per channel of the published network, of pixels in [0, 1]; None: not a property of the layout.
        license: of the published weights; None: each file has its own.
        networks: classes of timm's networks that it can be of; (): any.
        args: of timm.create_model, where the published network differs from timm's.
        example: a timm name, for messages.
        data: what the published weights were trained on.
        reader: of `octdino.models.published_layouts`; "": the names are recognized.
        needs_file: whether `weights` has to name a local file.
    """

    title: str
    size: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    license: str | None = None
    networks: tuple[str, ...] = ()
    args: Mapping[str, Any] = MappingProxyType({})
    example: str = ""
    data: str = ""
    reader: str = ""
    needs_file: bool = True


VIT = ("VisionTransformer",)
LAYOUTS: dict[str, Layout] = {
    "auto": Layout("a layout that is recognized", needs_file=False),
    "timm": Layout("timm", needs_file=False),
    "torchvision": Layout("torchvision", 224, IMAGENET_MEAN, IMAGENET_STD, "BSD 3-Clause", data=NATURAL),
    "dino": Layout("DINO", 224, IMAGENET_MEAN, IMAGENET_STD, "Apache 2.0", data=NATURAL),
    "dinov2": Layout(
        "DINOv2", 224, IMAGENET_MEAN, IMAGENET_STD, "Apache 2.0", VIT, example="vit_base_patch14_dinov2", data=NATURAL
    ),
    "dinov3": Layout(
        "DINOv3", 256, IMAGENET_MEAN, IMAGENET_STD, "DINOv3 License", ("Eva", "ConvNeXt"), {"global_pool": "token"},
        "vit_base_patch16_dinov3", NATURAL, "storage tokens",
    ),
    "retfound_mae": Layout(
        "RETFound (MAE)", 224, IMAGENET_MEAN, IMAGENET_STD, "CC BY-NC 4.0", VIT, {"global_pool": "avg"},
        "vit_large_patch16_224", RETINA, "masked autoencoder",
    ),
    "retfound_dinov2": Layout(
        "RETFound (DINOv2)", 224, IMAGENET_MEAN, IMAGENET_STD, "CC BY-NC 4.0", VIT, example="vit_large_patch14_dinov2",
        data=RETINA,
    ),
    "mirage": Layout(
        "MIRAGE", 512, (0.0,), (1.0,), "CC BY-NC-ND 4.0", VIT,
        {"global_pool": "avg", "fc_norm": False, "no_embed_class": True}, "vit_base_patch32_224",
        "retinal OCT and SLO", "modalities",
    ),
    "huggingface": Layout("Hugging Face transformers", networks=("VisionTransformer", "Eva"), reader="transformers"),
}  # fmt: skip
