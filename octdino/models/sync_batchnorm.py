"""Batch norms that see the whole batch where several processes share it."""

import torch
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn

from octdino.errors import UserError
from octdino.training.distributed import all_reduce_sum, world_size


def synchronised(module: nn.Module) -> nn.Module:
    """`module` with batch norms that see the whole batch, of all processes, as one process would."""
    if world_size() == 1:
        return module
    if torch.cuda.is_available():
        synced: nn.Module = convert_sync_batchnorm(module)
        return synced
    return _with_joined_norms(module)


def has_batch_norm(module: nn.Module) -> bool:
    """Whether a network normalises over the batch anywhere."""
    return any(isinstance(child, nn.modules.batchnorm._BatchNorm) for child in module.modules())


def _with_joined_norms(module: nn.Module) -> nn.Module:
    """torch's SyncBatchNorm is for GPUs only."""
    for name, child in module.named_children():
        setattr(module, name, _with_joined_norms(child))
    if not isinstance(module, nn.modules.batchnorm._BatchNorm):
        return module
    if type(module) not in (nn.BatchNorm1d, nn.BatchNorm2d):
        raise UserError(f"--processes: {type(module).__name__} of this backbone cannot be shared on CPUs; use 1")
    norm = JoinedBatchNorm(module.num_features, module.eps, module.momentum, module.affine, module.track_running_stats)
    norm.load_state_dict(module.state_dict())
    return norm.train(module.training)


class JoinedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm of [B, C, ...] whose statistics are those of all processes' images; each has as many."""

    def _check_input_dim(self, _: Tensor) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or world_size() == 1:
            return super().forward(x)
        x32, dims = x.float(), [0, *range(2, x.ndim)]
        shape = [1, -1] + [1] * (x.ndim - 2)
        count = x.numel() // x.shape[1] * world_size()
        mean = all_reduce_sum(x32.sum(dims)) / count
        centred = x32 - mean.view(shape)
        variance = all_reduce_sum(centred.square().sum(dims)) / count
        self._follow(mean.detach(), variance.detach() * count / max(count - 1, 1))
        scale = torch.rsqrt(variance + self.eps)
        if not self.affine:
            return (centred * scale.view(shape)).to(x.dtype)
        return (centred * (scale * self.weight).view(shape) + self.bias.view(shape)).to(x.dtype)

    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / self.num_batches_tracked if self.momentum is None else torch.tensor(self.momentum)
        self.running_mean.lerp_(mean, share.to(mean))
        self.running_var.lerp_(variance, share.to(mean))
