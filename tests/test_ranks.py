"""Two processes agree on what one process finds on the joined batch."""

import socket
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from octdino.pretrain.methods.dino import Targets, sinkhorn
from octdino.ranks import all_logsumexp, all_sum, world_size


def logits(rank: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rank)
    return torch.randn(6, 5, generator=generator) * (1 + 20 * rank)


def uneven(rows: torch.Tensor) -> torch.Tensor:
    """The centre after rows of which each process has another number, as of masked patches."""
    targets = Targets(5, "mean", 0.9)
    targets(rows, 0.1)
    return targets.center


def process(rank: int, port: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    own = logits(rank)
    targets = Targets(5, "mean", 0.9)
    targets(own, 0.1)
    found = {
        "world": torch.tensor(world_size()),
        "sum": all_sum(own),
        "logsumexp": all_logsumexp(own, 0),
        "sinkhorn": sinkhorn(own, 0.1),
        "center": targets.center.clone(),
        "second": targets(own, 0.1),  # with the common centre
        "uneven": uneven(own[: 1 + 4 * rank]),
    }
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_equal_one_on_the_joined_batch(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.start_processes(process, args=(port, str(tmp_path)), nprocs=2, start_method="spawn")
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    joined = torch.cat([logits(0), logits(1)])
    alone = Targets(5, "mean", 0.9)
    alone(joined, 0.1)
    second = alone(joined, 0.1)
    balanced = sinkhorn(joined, 0.1)
    joined_uneven = uneven(torch.cat([logits(0)[:1], logits(1)[:5]]))
    for rank, found in enumerate(ranks):
        torch.testing.assert_close(found["uneven"], joined_uneven, rtol=1e-5, atol=1e-7)
        mine = slice(6 * rank, 6 * rank + 6)
        assert found["world"] == 2
        torch.testing.assert_close(found["sum"], logits(0) + logits(1))
        torch.testing.assert_close(found["logsumexp"], joined.logsumexp(0, keepdim=True))
        torch.testing.assert_close(found["sinkhorn"], balanced[mine], rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(found["center"], 0.1 * joined.mean(0), rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(found["second"], second[mine], rtol=1e-5, atol=1e-7)


def test_one_process_communicates_nothing() -> None:
    assert world_size() == 1
    x = torch.tensor([[1.0, 2.0], [3.0, 5.0]])
    assert torch.equal(all_sum(x), x)
    torch.testing.assert_close(all_logsumexp(x, 0), x.exp().sum(0, keepdim=True).log())
