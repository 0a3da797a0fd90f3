"""MoCo: momentum contrast, v2 with a queue and v3 without.

v2: He et al. 2020, https://arxiv.org/abs/1911.05722; Chen et al. 2020, https://arxiv.org/abs/2003.04297. v3: Chen et
al. 2021, https://arxiv.org/abs/2104.02057.
"""

from collections.abc import Callable

import pandas as pd
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from octdino.config.methods import MocoSettings
from octdino.models.heads import projection_head
from octdino.pretrain.methods.contrastive import without
from octdino.pretrain.methods.method import Batch, Features, encode_views, scan_groups
from octdino.pretrain.methods.teacher import Distillation
from octdino.training.schedules import cosine

EMPTY = -1  # the group of an unused place in the queue
OUT_DIM = {"v2": 128, "v3": 256}


class Queue(nn.Module):
    """Ring buffer of the latest keys with their scans' groups; `next` is the place of the oldest, replaced first.

    Buffers are written in place: `StepRollback` holds references to them.
    """

    keys: Tensor
    groups: Tensor
    next: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("keys", torch.zeros(size, dim))
        self.register_buffer("groups", torch.full((size,), EMPTY))
        self.register_buffer("next", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def put(self, keys: Tensor, groups: Tensor) -> None:
        """Replace the oldest entries by keys float32 [N, D] and groups int64 [N]; the last stay of more than fit."""
        size = len(self.keys)
        begin = max(len(keys) - size, 0)  # with two keys for one place, a GPU may keep either
        places = (self.next + torch.arange(begin, len(keys), device=keys.device)) % size
        self.keys[places] = keys[begin:]
        self.groups[places] = groups[begin:]
        self.next.add_(len(keys)).remainder_(size)

    def filled(self) -> Tensor:
        """Return the share of places that contain a key."""
        return (self.groups != EMPTY).float().mean()


def queue_loss(
    query: Tensor, key: Tensor, groups: Tensor, queue: Tensor, queue_groups: Tensor, temperature: float
) -> Tensor:
    """InfoNCE against a queue (He 2020, eq. 1), averaged over queries; 0 where a query has no negative.

    Args:
        query: [N, D], any length (normalized here).
        key: [N, D], the queries' positives, any length.
        groups: int64 [N], of the queries.
        queue: float32 [Q, D], unit length.
        queue_groups: int64 [Q]; keys of a query's own group, and `EMPTY` places, are not negatives.
        temperature: > 0.
    """
    with torch.autocast(query.device.type, enabled=False):
        q, k = (F.normalize(x.float(), dim=-1) for x in (query, key))
        excluded = (queue_groups == groups[:, None]) | (queue_groups == EMPTY)
        logits = torch.cat([(q * k).sum(-1, keepdim=True), without(q @ queue.T, excluded)], dim=1)
        return F.cross_entropy(logits / temperature, torch.zeros_like(groups))


def batch_loss(query: Tensor, key: Tensor, groups: Tensor, temperature: float) -> Tensor:
    """InfoNCE against the batch's other keys (Chen 2021, eq. 1 and algorithm 1), times 2 * temperature.

    Args:
        query, key: [B, D], any length (normalized here); rows of one scan are positives.
        groups: int64 [B]; keys of other scans of a query's group are not negatives.
        temperature: > 0.
    """
    with torch.autocast(query.device.type, enabled=False):
        q, k = (F.normalize(x.float(), dim=-1) for x in (query, key))
        excluded = (groups[:, None] == groups).fill_diagonal_(False)
        logits = without(q @ k.T / temperature, excluded)
        return 2 * temperature * F.cross_entropy(logits, torch.arange(len(q), device=q.device))


class Moco(Distillation):
    """The student's queries match the teacher's keys: v2 among a queue of earlier keys, v3 among the batch's.

    Column 0 of the targets is the scans' group, constant over the run. With `negatives: all` each
    scan is a group: a scan's own keys of earlier epochs, in a queue longer than an epoch, are never its negatives.

    In v2 the queue starts empty and the first step's loss is 0; it rises while the queue fills.
    The teacher must change slowly compared with the queue (He sec. 3.2): otherwise a key's age reveals the positive,
    not its content, and the loss rises to the log of the queue's length when the learning rate falls.
    """

    queue: Queue | None

    def __init__(self, settings: MocoSettings, make_backbone: Callable[[], nn.Module], dim: int) -> None:
        super().__init__(settings, make_backbone, dim)
        s, backbone = self.settings, make_backbone()
        is_vit = isinstance(backbone, VisionTransformer)
        self.version = ("v3" if is_vit else "v2") if s.version == "auto" else s.version
        out = s.out_dim or OUT_DIM[self.version]
        if self.version == "v2":
            head = projection_head([dim, s.hidden_dim, out], norm=False)
            self.pair({"backbone": backbone, "head": head}, averaged=("backbone", "head"))
            self.queue = Queue(s.queue, out)
        else:
            head = projection_head([dim, s.hidden_dim, s.hidden_dim, out], norm=True, last_norm=True)
            predictor = projection_head([out, s.hidden_dim, out], norm=True, last_norm=True)
            if is_vit and s.frozen_patch_embed:  # spikes of its gradient make training unstable (sec. 4.2)
                backbone.get_submodule("patch_embed").requires_grad_(False)
            self.pair({"backbone": backbone, "head": head, "predictor": predictor}, averaged=("backbone", "head"))
            self.queue = None

    @property
    def exported(self) -> nn.Module:
        """The query network's backbone, as in the papers."""
        return self.student["backbone"]

    def targets(self, manifest: pd.DataFrame) -> Tensor:
        return scan_groups(manifest, self.settings.negatives)[:, None]

    def sample(self, batch: int, generator: torch.Generator) -> Features:
        if self.queue is None:
            return {}
        return {"order": torch.rand(1, batch, generator=generator)}

    def encode_teacher(self, batch: Batch) -> Features:
        backbone, views = self.teacher["backbone"], batch.views[0]
        if self.queue is None:
            return {"views": encode_views(backbone, views)}
        # Shuffling BN (He sec. 3.3): otherwise only a query and its key, not the queue, share the batch's statistics.
        order = batch.sampled["order"][0].argsort()  # a permutation, also for a chunk of a batch
        order = order.to(views.device, non_blocking=True)
        groups = [encode_views(backbone, views[:, rows]) for rows in order.chunk(self.settings.key_groups)]
        return {"views": torch.cat(groups, dim=1)[:, order.argsort()]}

    def encode(self, batch: Batch) -> Features:
        return {"views": encode_views(self.student["backbone"], batch.views[0])}

    def loss(self, encoded: Features, teacher_features: Features, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        groups, temperature = batch.targets[:, 0], self.settings.temperature
        query = self.student["head"](encoded["views"].flatten(0, 1))  # [2 * B, out_dim]
        with torch.no_grad():
            key = F.normalize(self.teacher["head"](teacher_features["views"].flatten(0, 1)).float(), dim=-1)
        if self.queue is None:
            first, second = self.student["predictor"](query).chunk(2)
            pairs = zip((first, second), key.chunk(2)[::-1], strict=True)
            return torch.stack([batch_loss(q, k, groups, temperature) for q, k in pairs]).sum(), {}
        groups = groups.repeat(2)
        other = key.roll(len(groups) // 2, 0)
        keys = self.queue.keys.clone()  # backward needs them as they are now
        loss = queue_loss(query, other, groups, keys, self.queue.groups, temperature)
        self.queue.put(key, groups)
        return loss, {"queue_filled": self.queue.filled()}

    def momentum(self, progress: float) -> float:
        s = self.settings
        momentum: float = s.momentum if self.version == "v2" else cosine(progress, s.momentum_start, 1.0)
        return momentum
