"""Checks and memory of arms that start from published weights: entries of `models` whose name is an init."""

import math
import re
from typing import TYPE_CHECKING, NamedTuple

from octdino.config.models import ModelSettings, published_input
from octdino.config.names import Arm
from octdino.config.timm_models import check_patches, find_timm_model, patch_sides

if TYPE_CHECKING:
    from octdino.config import Config

LARGE = 150e6  # parameters from which on a note gives the memory
WIDTHS = {  # of timm's names: width and number of blocks
    "tiny": (192, 12), "small": (384, 12), "base": (768, 12), "large": (1024, 24), "huge": (1280, 32),
    "giant": (1408, 40), "7b": (4096, 40),
}  # fmt: skip
ACTIVATIONS = 34  # bytes per token, block and unit of width in 16 bits, attention fused: Korthikanti et al. 2022
TRAINED = 12  # bytes per trained parameter in float32: gradient, two moments of AdamW
KEPT = 8  # bytes per parameter: the weights and the best ones so far


def check_published(settings: "Config") -> None:
    """Check the entries of `models` with weights: the network is of the layout, and patches divide the size.

    Raises:
        ValueError: one line that begins with the key.
    """
    for name, model in settings.models.items():
        info = model.layout_info
        found = find_timm_model(model.timm)
        if found and info.networks and found.cls not in info.networks:
            such = f", such as {info.example}" if info.example else ""
            raise ValueError(
                f"models.{name}.timm: {model.timm} is no network of the layout {model.layout}{such}; its weights are "
                f"of timm's {' or '.join(info.networks)}"
            )
        if info.needs_file and not model.weights:
            raise ValueError(f"models.{name}.weights: missing; the layout {model.layout} needs a local file")
    for init in dict.fromkeys(Arm.parse(arm).init for arm in settings.classify.arms):
        if settings.published(init):
            model = settings.models[init]
            size = published_input(model).size or settings.classify.augment.global_size
            check_patches(model, f"models.{init}.input_size", size, model.timm)
        elif init in set(settings.models) - set(settings.pretrain.backbones) and settings.models[init].published:
            raise ValueError(
                f"models.{init}: an arm {init}-… would start from the pretraining method {init}, not from these "
                f"weights; give the entry another name, such as {init}_published"
            )


class TransformerSize(NamedTuple):
    """Width, number of blocks and number of parameters of a vision transformer, as in its timm name."""

    width: int
    depth: int

    @property
    def parameters(self) -> int:
        """Return the parameters of the blocks: four matrices of attention, and an MLP of four times the width."""
        return 12 * self.width**2 * self.depth


def transformer_size(model: ModelSettings) -> TransformerSize | None:
    """Return the size of a vision transformer; None for another network, or where the name does not contain it."""
    named = re.search(rf"vit_({'|'.join(WIDTHS)})", model.timm)
    width, depth = WIDTHS[named[1]] if named else (None, None)
    width, depth = model.args.get("embed_dim", width), model.args.get("depth", depth)
    return TransformerSize(width, depth) if isinstance(width, int) and isinstance(depth, int) else None


def finetune_bytes(settings: "Config", init: str) -> int | None:
    """Estimate the device memory of fine-tuning: weights, optimizer, activations; None: not known."""
    model = settings.models[init]
    found, sides = transformer_size(model), patch_sides(model)
    if found is None or not sides:
        return None
    chosen = settings.classify
    size = published_input(model).size or chosen.augment.global_size
    tokens = math.ceil(size / sides[0]) * math.ceil(size / sides[-1]) + 1
    per_unit = ACTIVATIONS * (2 if chosen.precision == "float32" else 1)
    trained = 0 if f"{init}-finetune" in chosen.lora else TRAINED
    return found.parameters * (KEPT + trained) + chosen.batch_size * tokens * found.width * found.depth * per_unit


def published_notes(settings: "Config") -> list[str]:
    """Return one line for each arm that fine-tunes a large published network: the memory that it takes."""
    notes = []
    for arm in settings.classify.arms:
        init, mode = Arm.parse(arm)
        if mode != "finetune" or not settings.published(init):
            continue
        need, found = finetune_bytes(settings, init), transformer_size(settings.models[init])
        if need is None or found is None or found.parameters < LARGE:
            continue
        less = "classify.batch_size" if arm in settings.classify.lora else "classify.lora or classify.batch_size"
        notes.append(
            f"classify.arms: {arm}: about {need / 1e9:.0f} GB of GPU memory for {found.parameters / 1e6:.0f} million "
            f"parameters in batches of {settings.classify.batch_size}; {less} makes it less"
        )
    return notes
