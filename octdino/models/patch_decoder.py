"""The decoder of a masked autoencoder: a small transformer from the visible patches' tokens to the masked pixels."""

import functools

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from octdino.models.attention import choose_attention
from octdino.models.patches import sin_cos_positions

HEAD_DIM = 32  # dimensions per attention head, as in He et al. 2022 (512 in 16 heads)


@functools.lru_cache(8)
def _positions(grid: tuple[int, int], dim: int, device: torch.device) -> Tensor:
    return sin_cos_positions(grid, dim, device)


class PatchDecoder(nn.Module):
    """Predicts the pixels of masked patches (He et al. 2022, https://arxiv.org/abs/2111.06377, sec. 3).

    Each masked patch is one learned token at its position; visible patches and prefix tokens (class token, registers)
    are projected from the encoder. All attend to all.

    Args:
        in_dim: of the encoder's tokens.
        dim: width, a multiple of 32.
        depth: number of blocks.
        prefix: number of the encoder's prefix tokens.
        pixels: values per patch.
    """

    def __init__(self, in_dim: int, dim: int, depth: int, prefix: int, pixels: int) -> None:
        super().__init__()
        self.prefix = prefix
        self.embed = nn.Linear(in_dim, dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.blocks = nn.Sequential(*[Block(dim, dim // HEAD_DIM, qkv_bias=True) for _ in range(depth)])
        choose_attention(self.blocks)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.predict = nn.Linear(dim, pixels)
        nn.init.normal_(self.mask_token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, tokens: Tensor, order: Tensor, grid: tuple[int, int]) -> Tensor:
        """Return predicted pixels of the masked patches, [N, M, pixels], in the order's order.

        Patches stay in this order, which attention does not see: each has the embedding of its position.

        Args:
            tokens: [N, prefix + K, in_dim] of the encoder.
            order: int64 [N, K + M], indices of all patches of an image: the K visible ones, then the M masked ones.
            grid: rows and columns of patches.
        """
        given = self.embed(tokens)
        visible = given[:, self.prefix :]
        masked = self.mask_token.expand(len(tokens), order.shape[1] - visible.shape[1], -1)
        positions = _positions(grid, visible.shape[2], tokens.device)[order]  # [N, K + M, dim]
        patches = torch.cat([visible, masked], dim=1) + positions
        decoded = self.blocks(torch.cat([given[:, : self.prefix], patches], dim=1))
        pixels: Tensor = self.predict(self.norm(decoded[:, -masked.shape[1] :]))
        return pixels
