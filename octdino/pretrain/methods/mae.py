"""MAE: masked autoencoders (He et al. 2022, https://arxiv.org/abs/2111.06377).

Vision transformers only: masked patches are left out of the encoder's tokens.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from octdino.augment import View
from octdino.config import AugmentSettings
from octdino.config.methods import MaeSettings
from octdino.models.masked_vit import VisibleViT
from octdino.models.patch_decoder import PatchDecoder
from octdino.models.patches import patchify, unpatchify
from octdino.pretrain.methods.method import Batch, Features, Method

EPS = 1e-6  # added to the variance of a patch's pixels, which is 0 in the black margin of a scan


def visible_patches(patches: int, mask_ratio: float) -> int:
    """Return how many of `patches` are visible: the share that is not masked, rounded; at least one of each kind."""
    return min(max(round(patches * (1 - mask_ratio)), 1), patches - 1)


def normalize_patches(pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the targets of patches' pixels [..., V], normalized per patch, and mean and deviation [..., 1].

    The deviation is the unbiased one, as in the paper's code.
    """
    variance, mean = torch.var_mean(pixels, dim=-1, keepdim=True)
    deviation = (variance + EPS).sqrt()
    return (pixels - mean) / deviation, mean, deviation


def reconstruction_errors(predicted: Tensor, pixels: Tensor) -> Tensor:
    """Return the mean squared error per image, float32 [N]: 1 where the prediction is each patch's mean.

    Args:
        predicted: [N, M, V] of the masked patches, normalized pixels.
        pixels: [N, M, V] of the same patches, not normalized.
    """
    with torch.autocast(pixels.device.type, enabled=False):
        target, _, _ = normalize_patches(pixels.float())
        return (predicted.float() - target).square().mean((1, 2))


class Mae(Method):
    """The encoder sees a quarter of a scan's patches; the decoder predicts the pixels of the others.

    No loss is of several scans, so the decoder belongs to `encode`: each process decodes its own scans only, one chunk
    of the batch at a time.

    Raises:
        UserError: the backbone is not a VisionTransformer.
    """

    grid: tuple[int, int]  # rows and columns of patches of a view; set by `views`

    def __init__(self, settings: MaeSettings, make_backbone: Callable[[], nn.Module], dim: int) -> None:
        super().__init__(settings, make_backbone, dim)
        # Initial weights from a file have learned with their own position embeddings, which they keep.
        encoder = VisibleViT(make_backbone(), sin_cos=settings.init is None)
        vit, (height, width) = encoder.vit, encoder.patch
        assert settings.decoder_dim is not None, "resolved"
        assert settings.decoder_depth is not None, "resolved"
        pixels = height * width * vit.patch_embed.proj.in_channels
        decoder = PatchDecoder(
            vit.embed_dim, settings.decoder_dim, settings.decoder_depth, vit.num_prefix_tokens, pixels
        )
        self.network = nn.ModuleDict({"backbone": encoder, "decoder": decoder})

    @property
    def exported(self) -> nn.Module:
        return self.network["backbone"].get_submodule("vit")

    @property
    def trained(self) -> nn.Module:
        return self.network

    def views(self, augment: AugmentSettings) -> list[View]:
        s = self.settings
        encoder = self.network["backbone"]
        assert isinstance(encoder, VisibleViT)
        self.grid = encoder.grid(augment.global_size)
        return [View(1, augment.global_size, s.crop_scale, s.crop_only)]

    def sample(self, batch: int, generator: torch.Generator) -> Features:
        """Return the patches of each scan in random order, int64 [1, batch, P], on the network's device.

        The visible ones come first. The noise is that of the host's generator and the sort is stable, so that masks are
        the same on all devices. On the host, sorting the noise takes a hundred times as long as drawing it.
        """
        noise = torch.rand(1, batch, self.grid[0] * self.grid[1], generator=generator)
        return {"order": noise.to(self._device, non_blocking=True).argsort(dim=-1, stable=True)}

    @property
    def _device(self) -> torch.device:
        return next(self.network["decoder"].parameters()).device

    def hidden_patches(self, sampled: Features) -> Tensor:
        order = sampled["order"]
        visible = visible_patches(order.shape[-1], self.settings.mask_ratio)
        hidden = torch.ones_like(order, dtype=torch.bool).scatter_(-1, order[..., :visible], value=False)
        return hidden.view(*order.shape[:2], *self.grid)

    def encode(self, batch: Batch) -> Features:
        """Return the error of each scan, [1, B]."""
        images = batch.views[0][0].contiguous(memory_format=torch.channels_last)
        predicted, pixels = self.predict(images, batch.sampled["order"][0])
        return {"errors": reconstruction_errors(predicted, pixels)[None]}

    def loss(self, encoded: Features, teacher_features: Features, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        return encoded["errors"].mean(), {}

    def predict(self, images: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
        """Return predicted normalized pixels and the image's pixels of the masked patches, each [N, M, V].

        Args:
            images: [N, C, S, S], standardized.
            order: int64 [N, P] of `sample`.
        """
        visible = visible_patches(order.shape[1], self.settings.mask_ratio)
        tokens = self.network["backbone"](images, order[:, :visible])
        predicted: Tensor = self.network["decoder"](tokens, order, self.grid)
        pixels = patchify(images, self.patch)
        return predicted, pixels.gather(1, order[:, visible:, None].expand(-1, -1, pixels.shape[2]))

    @property
    def patch(self) -> tuple[int, int]:
        """Return height and width of a patch, px."""
        encoder = self.network["backbone"]
        assert isinstance(encoder, VisibleViT)
        return encoder.patch

    def reconstruct(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return scans, their visible patches, and these with the predicted ones.

        The network predicts normalized pixels. For the picture, each predicted patch gets mean and deviation of the
        scan's own patch.
        """
        order = self.sample(len(images), generator)["order"][0]
        predicted, pixels = self.predict(images, order)
        _, mean, deviation = normalize_patches(pixels)
        masked = order[:, -predicted.shape[1] :, None].expand_as(pixels)
        patches = patchify(images, self.patch)
        pictures = {
            "visible": patches.scatter(1, masked, torch.nan),
            "reconstruction": patches.scatter(1, masked, predicted.float() * deviation + mean),
        }
        return {"scan": images} | {name: unpatchify(x, self.patch, self.grid) for name, x in pictures.items()}
