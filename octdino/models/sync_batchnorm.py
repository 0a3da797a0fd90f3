"""Synchronized batch norm: statistics of the whole batch in distributed training, on GPUs and CPUs."""

import torch
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn

from octdino.errors import UserError
from octdino.training.distributed import all_reduce_sum, world_size


def sync_batch_norm(module: nn.Module) -> nn.Module:
    """Return `module` with batch norms over the batches of all processes; unchanged with one process."""
    if world_size() == 1:
        return module
    if torch.cuda.is_available():
        synced: nn.Module = convert_sync_batchnorm(module)
        return synced
    return _sync_on_cpu(module)


def has_batch_norm(module: nn.Module) -> bool:
    """Return whether a network contains a batch norm."""
    return any(isinstance(child, nn.modules.batchnorm._BatchNorm) for child in module.modules())


def _sync_on_cpu(module: nn.Module) -> nn.Module:
    """Replace all batch norms, because torch's SyncBatchNorm is for GPUs only."""
    for name, child in module.named_children():
        setattr(module, name, _sync_on_cpu(child))
    if not isinstance(module, nn.modules.batchnorm._BatchNorm):
        return module
    if type(module) not in (nn.BatchNorm1d, nn.BatchNorm2d):
        raise UserError(f"--processes: {type(module).__name__} of this backbone cannot be synchronized on CPUs; use 1")
    norm = SyncBatchNormCpu(module.num_features, module.eps, module.momentum, module.affine, module.track_running_stats)
    norm.load_state_dict(module.state_dict())
    return norm.train(module.training)


class SyncBatchNormCpu(nn.modules.batchnorm._BatchNorm):
    """Batch norm of [B, C, ...] over the images of all processes, equally many in each."""

    def _check_input_dim(self, _: Tensor) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or world_size() == 1:
            return super().forward(x)
        x32, dims = x.float(), [0, *range(2, x.ndim)]
        shape = [1, -1] + [1] * (x.ndim - 2)
        count = x.numel() // x.shape[1] * world_size()
        mean = all_reduce_sum(x32.sum(dims)) / count
        centered = x32 - mean.view(shape)
        variance = all_reduce_sum(centered.square().sum(dims)) / count
        self._update_running_statistics(mean.detach(), variance.detach() * count / max(count - 1, 1))
        scale = torch.rsqrt(variance + self.eps)
        if not self.affine:
            return (centered * scale.view(shape)).to(x.dtype)
        return (centered * (scale * self.weight).view(shape) + self.bias.view(shape)).to(x.dtype)

    def _update_running_statistics(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / self.num_batches_tracked if self.momentum is None else torch.tensor(self.momentum)
        self.running_mean.lerp_(mean, share.to(mean))
        self.running_var.lerp_(variance, share.to(mean))
