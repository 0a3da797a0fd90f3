"""A vision transformer that sees a learned token in place of masked patches."""

import torch
from timm.models import VisionTransformer
from torch import Tensor, nn

from octdino.errors import UserError


class MaskedViT(nn.Module):
    """Wraps timm's `vit`, which stays as it is: `vit.state_dict()` has timm's own names.

    Raises:
        UserError: not a VisionTransformer, or one that drops patches at random.
    """

    def __init__(self, vit: nn.Module) -> None:
        super().__init__()
        if not isinstance(vit, VisionTransformer):
            raise UserError(
                f"the method masks patches: it needs a vision transformer (vit_*), not a {type(vit).__name__}; "
                "name the backbones it may train in pretrain.variants.<name>.backbones"
            )
        if not isinstance(vit.patch_drop, nn.Identity):
            raise UserError("the method compares patches one by one: the model's patch_drop_rate must be 0")
        self.vit = vit
        self.mask_token = nn.Parameter(torch.zeros(1, 1, vit.embed_dim))
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
