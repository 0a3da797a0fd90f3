"""Initial weights of a backbone: random, ImageNet's, published ones, or those of an earlier pretraining run."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from octdino.config import AugmentSettings, MethodSettings, ModelSettings
from octdino.config.cohort import UNPUBLISHED
from octdino.config.models import published_input, starts_published
from octdino.config.timm_models import check_patches
from octdino.data.file_hash import sha256_of
from octdino.errors import UserError
from octdino.models.backbones import create_backbone, load_backbone, set_image_size
from octdino.training.random_seeds import seed_of

INHERITED = (
    "name",
    "cohort",
    "kind",
    "source",
    "fold",
    "scope",
    "scans",
    "patients",
    "images_seen",
    "start",
)  # from an earlier run's metadata


class Start:
    """Initial weights of a backbone to be pretrained.

    Args:
        method: its `init` is None, "imagenet", the name of the backbone (published weights), or the folder of an
            earlier run with placeholders.
        model: timm model of the backbone.

    Attributes:
        origin: source of the weights, plain values; None: random.

    Raises:
        UserError: the folder contains no run, or one of another model.
    """

    def __init__(
        self, method: MethodSettings, model: ModelSettings, backbone: str, fold: int | None, seed: int
    ) -> None:
        self.model, self._fold = model, fold
        self.origin: dict[str, Any] | None = None
        folder = method.start_folder(backbone, "all" if fold is None else fold, seed)
        self._outside, self._folder = method.starts_from_file(backbone), Path(folder) if folder else None
        if self._outside:
            file = model.weights_file
            if file and not file.is_file():
                raise UserError(f"{file}: no such weights file for {model.timm}")
            if method.init != "imagenet" and not model.published:
                raise UserError(
                    f"init: {method.init}: the backbone has no published weights; name them in --model.weights"
                )
            self.origin = {
                "from": str(method.init),
                "sha256": sha256_of(file) if file else None,
                **layout_and_license(model),
            }
        if self._folder is None:
            return
        _, metadata = load_backbone(self._folder)
        spec = metadata.spec
        if (spec.timm, spec.args) != (model.timm, model.args):
            raise UserError(
                f"{self._folder}/backbone.json: is a {spec.timm} {spec.args or ''}; "
                f"{backbone} is a {model.timm} {model.args or ''}"
            )
        values = metadata.plain()
        self.origin = {
            "from": str(self._folder),
            "sha256": metadata.weights_sha256,
            **{key: values.get(key) for key in INHERITED},
        }

    def check_cohort(self, cohort: str, kind: str, source: str) -> None:
        """Check that the weights were not trained on this fold's test patients: not on every scan, nor on another fold.

        Args:
            cohort: its title. Runs are on the same cohort if title, published cohort or scans are equal.
            kind: cohort.name of the configuration.
            source: hash of the store's content.

        Raises:
            UserError: a run on this cohort, or one that it started from, saw more than this fold's training patients.
        """
        origin = self.origin
        while origin and self._fold is not None:
            same = origin.get("cohort") == cohort or origin.get("source") == source
            same = same or (kind not in UNPUBLISHED and origin.get("kind") == kind)
            scope, fold = origin.get("scope"), origin.get("fold")
            if same and (scope != "train_patients" or fold != self._fold):
                raise UserError(
                    f"{origin['from']}: was trained on {scope or 'unknown scans'} of {origin.get('cohort')}, "
                    f"fold {fold}, which includes test scans of fold {self._fold}. Start from a run of this fold, or "
                    "set scope all"
                )
            origin = origin.get("start")

    def check_views(self, augment: AugmentSettings) -> None:
        """Check that the sizes of views are multiples of a transformer's patch size.

        Raises:
            UserError: a size is not.
        """
        sizes = {"global_size": augment.global_size}
        if augment.local_views:
            sizes["local_size"] = augment.local_size
        for name, size in sizes.items():
            try:
                check_patches(self.model, f"augment.{name}", size, self.model.timm, padded=False)
            except ValueError as error:
                raise UserError(str(error)) from None

    def backbone(self, in_chans: int, size: int) -> nn.Module:
        """Return a new backbone with the initial weights; random ones from torch's global generator."""
        if self._folder is None:
            return create_backbone(self.model, in_chans, size, imagenet=self._outside)
        network, metadata = load_backbone(self._folder)
        spec = metadata.spec
        if spec.in_chans != in_chans:
            raise UserError(f"{self._folder}: takes {spec.in_chans} channel(s), the store has {in_chans}")
        return set_image_size(network, size)


def layout_and_license(model: ModelSettings) -> dict[str, str]:
    """Return layout and license of published weights, for metadata; without what is not known."""
    known = {"layout": None if model.layout == "auto" else model.layout, "license": model.weights_license}
    return {key: each for key, each in known.items() if each is not None}


class StartInput(NamedTuple):
    """The input of a network that starts from some weights.

    Attributes:
        size: px, its side.
        mean, std: per channel, of pixels in [0, 1].
    """

    size: int
    mean: list[float]
    std: list[float]


def start_input(
    init: str, model: ModelSettings, pretrained: Path | None, size: int, mean: list[float], std: list[float]
) -> StartInput:
    """Return the input of an arm: that of the published network where it starts from one, else that of all arms.

    Args:
        pretrained: folder of the pretraining run that it starts from; None: it starts from none.
        size, mean, std: of all other arms.
    """
    if not starts_published(init, model, pretrained=pretrained is not None):
        return StartInput(size, mean, std)
    used = published_input(model)
    return StartInput(used.size or size, *(used.for_channels(len(mean)) or (mean, std)))


def start_backbone(
    init: str, model: ModelSettings, channels: int, size: int, *, pretrained: Path | None, seed: int
) -> tuple[nn.Module, str | None]:
    """Return the backbone of an arm, and the hash of its weights if they are from a file (part of a run's fingerprint).

    Args:
        init: scratch, imagenet, the name of a pretraining method or that of an entry of `models` with weights.
        channels: of the scans.
        size: px, side of its input.
        pretrained: folder of the pretraining run; None for all other weights.
        seed: of random weights.

    Raises:
        UserError: no folder given, no weights found, or weights for another number of channels.
    """
    published = starts_published(init, model, pretrained=pretrained is not None)
    if init in ("scratch", "imagenet") or published:
        torch.manual_seed(seed_of(seed, "weights"))
        used = published_input(model) if published else None
        network = create_backbone(model, channels, size, imagenet=init != "scratch", published=used)
        return network, sha256_of(model.weights_file) if init != "scratch" and model.weights_file else None
    if pretrained is None:
        raise UserError(
            f"the arm or the maps start from {init}: name its pretraining run's folder with --pretrained, or published "
            "weights with --model.weights"
        )
    network, metadata = load_backbone(pretrained)
    if metadata.spec.in_chans != channels:
        raise UserError(f"{pretrained}: takes {metadata.spec.in_chans} channel(s), the store has {channels}")
    return network, metadata.weights_sha256
