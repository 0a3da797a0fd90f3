"""DINOv2: DINO's loss on images, iBOT's on masked patches, KoLeo (Oquab et al. 2023, https://arxiv.org/abs/2304.07193).

Vision transformers only: a masked patch needs a token of its own.
"""

import copy
import math
from collections.abc import Callable

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from octdino.augment import View
from octdino.config import AugmentSettings
from octdino.config.methods import Dinov2Settings
from octdino.models.masked_vit import MaskedViT
from octdino.pretrain.methods.dino import GLOBAL_VIEWS, Dino, Targets, prototype_head
from octdino.pretrain.methods.method import Batch, Features, scan_groups

KOLEO_EPS = 1e-4  # far below the distances of scans that differ; bounds a pair's gradient at 1 / (2 * KOLEO_EPS)
MIN_BLOCK = 4  # patches
MIN_ASPECT = 0.3
BLOCKS = 16  # per image, at most: each block halves the remaining patches on average, so few are needed


def ibot_loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """iBOT's loss: cross-entropy on the masked patches (Zhou et al. 2022, https://arxiv.org/abs/2111.07832, eq. 2).

    Mean over the masked patches of an image, then over all images: as in the code of iBOT and DINOv2, images without a
    mask count as 0, so the share of images with a mask scales the loss.

    Args:
        student: log-probabilities float32 [M, K] of the masked patches, in the mask's order.
        teacher: probabilities float32 [M, K] of the same patches.
        mask: bool [N, P] with M patches masked, on the host.
    """
    weight = (1 / mask.sum(1, keepdim=True).clamp(min=1)).expand_as(mask)[mask].to(student.device, non_blocking=True)
    return -((teacher * student).sum(-1) * weight).sum() / len(mask)


def koleo_loss(features: Tensor, groups: Tensor) -> Tensor:
    """KoLeo loss: minus the mean log distance to the nearest neighbor (Sablayrolles et al. 2019, https://arxiv.org/abs/1806.03198).

    It spreads scans over the sphere, and its gradient grows as 1 / distance. Neighboring slices of one volume are
    near-copies that training should not separate, so neighbors are searched among scans of other groups. The
    distance d is taken as sqrt(d^2 + eps^2): the gradient of exact copies is 0, none is infinite.

    Args:
        features: [B, D], any length (normalized here).
        groups: int64 [B]; a scan without a scan of another group contributes nothing.
    """
    with torch.autocast(features.device.type, enabled=False):
        x = F.normalize(features.float(), dim=-1)
        other = groups[:, None] != groups
        with torch.no_grad():
            nearest = (x @ x.T).masked_fill(~other, -torch.inf).argmax(1)
        squared = (x - x[nearest]).square().sum(-1)
        alone = ~other.any(1)
        log_distance = 0.5 * torch.log(squared + KOLEO_EPS**2).masked_fill(alone, 0.0)
        return -log_distance.sum() / (~alone).sum().clamp(min=1)


def sample_masks(
    count: int,
    grid: tuple[int, int],
    probability: float,
    ratio_range: tuple[float, float],
    generator: torch.Generator,
) -> Tensor:
    """Block-wise masks (Bao et al. 2022, BEiT, https://arxiv.org/abs/2106.08254, algorithm 1) for some images.

    Rectangles of random area and of an aspect ratio from .3 to 1 / .3 are added until an image's target share of
    patches is masked; the last ones are cut, or single patches added, to reach it exactly.

    Args:
        count: images N.
        grid: H, W in patches.
        probability: share of images that get a mask, at least one image; the others' masks are empty.
        ratio_range: range of the share of masked patches, stratified: one stratum per image.
        generator: of all randomness, on the device of the masks.

    Returns:
        bool [N, H * W] on generator's device.
    """
    device, (rows, columns) = generator.device, grid
    chosen = min(max(round(count * probability), 1), count)
    low, high = ratio_range
    even = (torch.arange(chosen, device=device) + torch.rand(chosen, generator=generator, device=device)) / chosen
    target = ((low + (high - low) * even) * rows * columns).ceil().clamp(1, rows * columns)
    filled = torch.zeros(chosen, rows * columns, dtype=torch.bool, device=device)
    for uniform in torch.rand(BLOCKS, 4, chosen, generator=generator, device=device):
        filled = _add(filled, target, random_blocks(uniform, grid, target - filled.sum(1)))
    rest = torch.rand(filled.shape, generator=generator, device=device).argsort(1)  # patches in random order
    filled = filled.scatter(1, rest, _add(filled.gather(1, rest), target, torch.ones_like(filled)))
    mask = torch.zeros(count, rows * columns, dtype=torch.bool, device=device)
    mask[torch.randperm(count, generator=generator, device=device)[:chosen]] = filled
    return mask


def random_blocks(uniform: Tensor, grid: tuple[int, int], left: Tensor) -> Tensor:
    """Return a random rectangle of patches per image, bool [N, H * W].

    Args:
        uniform: float32 [4, N] in [0, 1): of area, aspect, row, and column.
        grid: H, W in patches.
        left: [N], patches still to be masked; the area is between MIN_BLOCK and that.
    """
    rows, columns = grid
    area = MIN_BLOCK + uniform[0] * (left - MIN_BLOCK).clamp(min=0)
    aspect = torch.exp((2 * uniform[1] - 1) * math.log(MIN_ASPECT))
    height = (area * aspect).sqrt().round().clamp(1, rows)
    width = (area / aspect).sqrt().round().clamp(1, columns)
    top = (uniform[2] * (rows - height + 1)).floor()
    left_edge = (uniform[3] * (columns - width + 1)).floor()
    row, column = torch.arange(rows, device=uniform.device), torch.arange(columns, device=uniform.device)
    inside_rows = (row >= top[:, None]) & (row < (top + height)[:, None])  # [N, H]
    inside_columns = (column >= left_edge[:, None]) & (column < (left_edge + width)[:, None])  # [N, W]
    return (inside_rows[:, :, None] & inside_columns[:, None, :]).flatten(1)


def _add(filled: Tensor, target: Tensor, block: Tensor) -> Tensor:
    """Return the masks with the blocks added, in patch order, up to the targets."""
    new = block & ~filled
    allowed = new.cumsum(1) <= (target - filled.sum(1))[:, None]
    return filled | (new & allowed)


def encode_patches(backbone: nn.Module, view: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return pooled [V, B, D] and patch features [V, B, P, D] of views [V, B, C, S, S] masked by [V, B, P]."""
    images = view.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    hidden = None if mask is None else mask.flatten(0, 1).to(images.device, non_blocking=True)
    pooled, patches = backbone(images, hidden)
    return pooled.unflatten(0, view.shape[:2]), patches.unflatten(0, view.shape[:2])


class Dinov2(Dino):
    """DINO whose student sees some large views with masked patches, and predicts the teacher's patch targets there.

    Patches have their own head unless `shared_head`, and always their own center. Loss: DINO's, plus
    patch_weight times iBOT's, plus koleo_weight times the sum of KoLeo over the large views.

    Raises:
        UserError: the backbone is not a VisionTransformer.
    """

    grid: tuple[int, int]  # rows and columns of patches of a large view; set by `views`

    def __init__(self, settings: Dinov2Settings, make_backbone: Callable[[], nn.Module], dim: int) -> None:
        super().__init__(settings, lambda: MaskedViT(make_backbone()), dim)
        s = self.settings
        if not s.shared_head:
            head = prototype_head(s, dim)
            self.student["patch_head"] = head
            self.teacher["patch_head"] = copy.deepcopy(head).requires_grad_(False)
        self.patch_head = "head" if s.shared_head else "patch_head"
        self.patch_center = Targets(s.prototypes, s.centering, s.center_momentum)

    @property
    def exported(self) -> nn.Module:
        return self.teacher["backbone"].get_submodule("vit")

    def views(self, augment: AugmentSettings) -> list[View]:
        backbone = self.student["backbone"]
        assert isinstance(backbone, MaskedViT)
        self.grid = backbone.grid(augment.global_size)
        return super().views(augment)

    def targets(self, manifest: pd.DataFrame) -> Tensor:
        return scan_groups(manifest, self.settings.koleo_neighbors)[:, None]

    def sample(self, batch: int, generator: torch.Generator) -> Features:
        s = self.settings
        mask = sample_masks(GLOBAL_VIEWS * batch, self.grid, s.mask_probability, s.mask_ratio, generator)
        return {"mask": mask.view(GLOBAL_VIEWS, batch, -1)}

    def hidden_patches(self, sampled: Features) -> Tensor:
        mask = sampled["mask"]
        return mask.view(*mask.shape[:2], *self.grid)

    def encode_teacher(self, batch: Batch) -> Features:
        pooled, patches = encode_patches(self.teacher["backbone"], batch.views[0], None)
        return {"views": pooled, "patches": patches}

    def encode(self, batch: Batch) -> Features:
        backbone = self.student["backbone"]
        pooled, patches = encode_patches(backbone, batch.views[0], batch.sampled["mask"])
        small = [encode_patches(backbone, view, None)[0] for view in batch.views[1:]]
        return {"views": torch.cat([pooled, *small]), "patches": patches}

    def loss(self, encoded: Features, teacher_features: Features, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        s = self.settings
        dino, scalars = self.view_loss(encoded["views"], teacher_features["views"], batch.progress)
        ibot = self.patch_loss(encoded["patches"], teacher_features["patches"], batch.sampled["mask"], batch.progress)
        # Each view separately: a scan's two views should stay close.
        large = encoded["views"][:GLOBAL_VIEWS]
        koleo = torch.stack([koleo_loss(view, batch.targets[:, 0]) for view in large]).sum()
        loss = dino + s.patch_weight * ibot + s.koleo_weight * koleo
        return loss, scalars | {"dino": dino.detach(), "ibot": ibot.detach(), "koleo": koleo.detach()}

    def patch_loss(self, student: Tensor, teacher: Tensor, mask: Tensor, progress: float) -> Tensor:
        """Return iBOT's loss of patches [V, B, P, D]; only the masked ones pass through the heads."""
        masked = mask.flatten().nonzero()[:, 0].to(student.device, non_blocking=True)  # the mask is on the host
        with torch.no_grad():
            logits = self.teacher[self.patch_head](teacher.flatten(0, 2)[masked])  # [M, K]
            probability = self.patch_center(logits, self.teacher_temp(progress))
        logits = self.student[self.patch_head](student.flatten(0, 2)[masked])
        log_student = torch.log_softmax(logits / self.settings.student_temp, dim=-1)
        return ibot_loss(log_student, probability, mask.flatten(0, 1))

    def end_epoch(self) -> dict[str, float]:
        patches: dict[str, float] = self.patch_center.end_epoch()
        return super().end_epoch() | {f"patch_{name}": value for name, value in patches.items()}
