"""Distributed training: two processes compute what one process computes on the whole batch."""

import socket
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from octdino.errors import UserError
from octdino.models.sync_batchnorm import SyncBatchNormCpu, sync_batch_norm
from octdino.training import distributed as ranks
from octdino.training.distributed import (
    all_gather,
    all_true,
    any_rank,
    average_gradients,
    broadcast_from_rank0,
    local_slice,
    shared_batch,
    world_size,
)

ROWS = 6


def images() -> torch.Tensor:
    return torch.randn(ROWS, 3, 4, 5, generator=torch.Generator().manual_seed(0)) * 3 + 2


def network() -> nn.Sequential:
    """Return a backbone with a batch norm, with the same weights in every process."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4))


def loss_of(features: torch.Tensor) -> torch.Tensor:
    """Return a loss of all pairs of rows, not a mean over rows."""
    return torch.logsumexp(features @ features.T, dim=1).square().mean()


def gradients(backbone: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return gradients of parameters and of this process's rows, running statistics, and the loss."""
    x = x.clone().requires_grad_()
    loss = loss_of(all_gather(backbone(x)))
    loss.backward()
    average_gradients(backbone)
    assert x.grad is not None
    found = {name: p.grad for name, p in backbone.named_parameters() if p.grad is not None}
    statistics = {name: value.float() for name, value in backbone.named_buffers()}
    return {**found, **statistics, "loss": loss.detach(), "rows": x.grad / world_size()}


def process(rank: int, port: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    shared = sync_batch_norm(network())
    found = gradients(shared, images()[local_slice(ROWS)])
    found["plain"] = shared.eval()(images())
    found["wide"] = all_gather(torch.full((2, 1), float(rank)), dim=1)
    found["collectives"] = torch.tensor(
        [
            world_size(),
            any_rank(False),
            any_rank(rank == 1),
            all_true(torch.tensor(True)),
            all_true(torch.tensor(rank == 1)),
            broadcast_from_rank0(lambda: {"a": torch.tensor(7), "rank": rank})["a"],
            broadcast_from_rank0(lambda: {"a": torch.tensor(7), "rank": rank})["rank"],
            broadcast_from_rank0(lambda: None) is None,
        ]
    )
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_equal_one_on_the_whole_batch(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    get_context("forkserver").set_forkserver_preload([__name__])  # so torch is imported once
    mp.start_processes(process, args=(port, str(tmp_path)), nprocs=2, start_method="forkserver")
    alone = network()
    expected = gradients(alone, images())
    expected["plain"] = alone.eval()(images())
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    for rank, found in enumerate((first, second)):
        assert found.pop("collectives").tolist() == [2, 0, 1, 1, 0, 7, 0, 1]
        assert found.pop("wide").tolist() == [[0, 1], [0, 1]]
        torch.testing.assert_close(found.pop("rows"), expected["rows"][3 * rank : 3 * rank + 3], rtol=1e-4, atol=1e-6)
        for name, value in found.items():
            torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5, msg=lambda text, n=name: n + text)
        assert {name: value.shape for name, value in found.items()} == {
            name: value.shape for name, value in expected.items() if name != "rows"
        }
    assert all(torch.equal(first[name], second[name]) for name in first), "otherwise processes diverge"


def test_one_process_communicates_nothing() -> None:
    x, backbone = torch.ones(2, 3), network()
    assert world_size() == 1
    assert all_gather(x) is x
    assert sync_batch_norm(backbone) is backbone
    assert broadcast_from_rank0(lambda: x) is x
    assert local_slice(5) == slice(0, 5)
    assert any_rank(True)
    assert not any_rank(False)


def test_local_slices_are_equal_or_raise_user_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "world_size", lambda: 4)
    monkeypatch.setattr(ranks, "rank", lambda: 2)
    assert local_slice(12) == slice(6, 9)
    assert (shared_batch(16, 100), shared_batch(16, 15), shared_batch(16, 16)) == (16, 12, 16)
    with pytest.raises(UserError, match="batch_size: 30 scans per step; expected a multiple of the 4 processes"):
        local_slice(30)
    with pytest.raises(UserError, match="batch_size: 0 scans"):
        local_slice(shared_batch(16, 3))


def test_unsupported_batch_norm_on_cpus_raises_user_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("octdino.models.sync_batchnorm.world_size", lambda: 2)

    class Other(nn.BatchNorm2d):
        pass

    with pytest.raises(UserError, match="Other of this backbone cannot be synchronized on CPUs"):
        sync_batch_norm(nn.Sequential(Other(3)))
    shared = sync_batch_norm(nn.Sequential(nn.BatchNorm2d(3, affine=False, momentum=None), nn.LayerNorm(3)))
    assert [type(module) for module in shared.children()] == [SyncBatchNormCpu, nn.LayerNorm]
