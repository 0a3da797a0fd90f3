"""Vision transformers that do not see masked patches: a learned token in place of each, or no token at all."""

import torch
from timm.layers import PatchEmbed
from timm.models import VisionTransformer
from torch import Tensor, nn

from octdino.errors import UserError
from octdino.models.patches import sin_cos_positions


def check_maskable(vit: nn.Module) -> VisionTransformer:
    """Return `vit`, checked: a vision transformer whose patches can be masked.

    Raises:
        UserError: not a VisionTransformer, or one that drops patches at random.
    """
    if not isinstance(vit, VisionTransformer):
        raise UserError(
            f"the method masks patches: it needs a vision transformer (vit_*), not a {type(vit).__name__}; "
            "name the backbones it may train in pretrain.variants.<name>.backbones"
        )
    if not isinstance(vit.patch_drop, nn.Identity):
        raise UserError("the method compares patches one by one: the model's patch_drop_rate must be 0")
    return vit


class MaskedViT(nn.Module):
    """Wraps timm's `vit`, which stays as it is: `vit.state_dict()` has timm's own names.

    Raises:
        UserError: not a VisionTransformer, or one that drops patches at random.
    """

    def __init__(self, vit: nn.Module) -> None:
        super().__init__()
        self.vit = check_maskable(vit)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, self.vit.embed_dim))
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    def forward(self, images: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Pooled features [N, D], those that `vit(images)` gives, and patches [N, P, D] after the last norm.

        Args:
            images: [N, C, S, S].
            mask: bool [N, P], row by row over the image: the patches that are hidden. They keep their positions: the
                token takes the patch's place before the position embeddings are added. None: nothing is hidden.
        """
        if mask is None:
            tokens: Tensor = self.vit.forward_features(images)
        else:
            hidden = mask

            def replace(_: nn.Module, __: tuple[Tensor], patches: Tensor) -> Tensor:
                # [N, P, D], or [N, H, W, D] of a ViT that takes any size
                return torch.where(hidden.view(*patches.shape[:-1], 1), self.mask_token.to(patches.dtype), patches)

            with self.vit.patch_embed.register_forward_hook(replace):
                tokens = self.vit.forward_features(images)
        return self.vit.forward_head(tokens, pre_logits=True), tokens[:, self.vit.num_prefix_tokens :]

    def grid(self, size: int) -> tuple[int, int]:
        """Rows and columns of patches of a view of `size` px."""
        rows, columns = self.vit.patch_embed.dynamic_feat_size((size, size))
        return int(rows), int(columns)


class VisibleViT(nn.Module):
    """Wraps timm's `vit` and runs it on the visible patches only (He et al. 2022, https://arxiv.org/abs/2111.06377).

    Masked patches have no token, so blocks cost the less, the more is masked. `vit.state_dict()` has timm's own names,
    and position embeddings are not trained.

    Args:
        vit: timm's model; its prefix tokens (class token, registers) are always visible.
        sin_cos: replace its position embeddings by fixed sine-cosine ones. False: they are trained already.

    Raises:
        UserError: not a VisionTransformer, one that drops patches at random, one with another network before its
            patches, or one without position embeddings of a multiple of 4 dimensions.
    """

    def __init__(self, vit: nn.Module, *, sin_cos: bool) -> None:
        super().__init__()
        self.vit = check_maskable(vit)
        if not isinstance(self.vit.patch_embed, PatchEmbed):  # another network before it sees across patches
            raise UserError("the method predicts the pixels of patches: expected a model whose input are patches")
        self.patch: tuple[int, int] = self.vit.patch_embed.patch_size
        if self.vit.pos_embed is None or self.vit.embed_dim % 4:
            raise UserError(
                "the method needs to know where a patch is: expected a model with position embeddings (pos_embed) and "
                f"an embed_dim that is a multiple of 4, not {self.vit.embed_dim}"
            )
        self.vit.pos_embed.requires_grad_(False)
        if sin_cos:
            with torch.no_grad():
                positions = sin_cos_positions(self.vit.patch_embed.grid_size, self.vit.embed_dim)
                self.vit.pos_embed.zero_()[:, -len(positions) :] = positions  # 0 for prefix tokens

    def forward(self, images: Tensor, visible: Tensor) -> Tensor:
        """Return tokens [N, prefix + K, D] after the last norm, prefix tokens first.

        Args:
            images: [N, C, S, S].
            visible: int64 [N, K], indices of the visible patches, row by row over the image.
        """
        prefix = self.vit.num_prefix_tokens

        def select(_: nn.Module, __: tuple[Tensor], tokens: Tensor) -> Tensor:
            kept = tokens[:, prefix:].gather(1, visible[:, :, None].expand(-1, -1, tokens.shape[2]))
            return torch.cat([tokens[:, :prefix], kept], dim=1)

        # After the position embeddings, and before anything that depends on other tokens.
        with self.vit.patch_drop.register_forward_hook(select):
            tokens: Tensor = self.vit.forward_features(images)
        return tokens

    def grid(self, size: int) -> tuple[int, int]:
        """Return rows and columns of patches of a view of `size` px.

        Raises:
            UserError: the patches do not divide the view, or the view is a single patch.
        """
        height, width = self.patch
        if size % height or size % width:
            raise UserError(f"augment.global_size: {size} px; expected a multiple of the patch size, {max(self.patch)}")
        if size == height == width:
            raise UserError(f"augment.global_size: {size} px is one patch, of which none can be masked")
        return size // height, size // width
