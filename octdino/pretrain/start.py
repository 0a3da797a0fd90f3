"""Where a run's backbone starts: random weights, ImageNet's, or those of an earlier run."""

import hashlib
import json
from pathlib import Path
from typing import Any

from timm.models import VisionTransformer
from torch import nn

from octdino.config import ModelSettings
from octdino.errors import UserError
from octdino.models import create_backbone, load_backbone


class Start:
    """The first weights of a backbone.

    Args:
        init: None, "imagenet", or the folder of an earlier run with {backbone}, {fold} and {seed} to be filled in.
        model: what timm makes of the backbone.

    Attributes:
        origin: where the weights are from, plain values; None: they are random.

    Raises:
        UserError: the folder holds no run, or one of another model.
    """

    def __init__(self, init: str | None, model: ModelSettings, backbone: str, fold: int | None, seed: int) -> None:
        self.model = model
        self.origin: dict[str, Any] | None = None
        self._imagenet, self._folder = init == "imagenet", None
        if init is None:
            return
        if self._imagenet:
            self.origin = {"from": "imagenet", "sha256": _digest(model.weights) if model.weights else None}
            return
        self._folder = run_folder(init, backbone, fold, seed)
        _, spec = load_backbone(self._folder)
        if (spec.timm, spec.args) != (model.timm, model.args):
            raise UserError(
                f"{self._folder}/backbone.json: is a {spec.timm} {spec.args or ''}; "
                f"{backbone} is a {model.timm} {model.args or ''}"
            )
        card = json.loads((self._folder / "backbone.json").read_text())
        self.origin = {
            "from": str(self._folder),
            "sha256": _digest(self._folder / "backbone.safetensors"),
            **{key: card.get(key) for key in ("name", "fold", "scope", "images_seen", "start")},
        }

    def backbone(self, in_chans: int, size: int) -> nn.Module:
        """A new backbone; random weights come from torch's global state."""
        if self._folder is None:
            return create_backbone(self.model, in_chans, size, imagenet=self._imagenet)
        network, spec = load_backbone(self._folder)
        if spec.in_chans != in_chans:
            raise UserError(f"{self._folder}: takes {spec.in_chans} channel(s), the store has {in_chans}")
        if spec.size != size and isinstance(network, VisionTransformer):  # its position embeddings
            network.set_input_size(img_size=size)
        return network


def run_folder(init: str, backbone: str, fold: int | None, seed: int) -> Path:
    """The folder of an earlier run, its placeholders filled in."""
    try:
        return Path(init.format(backbone=backbone, fold="all" if fold is None else fold, seed=seed))
    except (KeyError, IndexError, ValueError):
        raise UserError(f"init: {init!r}: the places to be filled in are {{backbone}}, {{fold}} and {{seed}}") from None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
