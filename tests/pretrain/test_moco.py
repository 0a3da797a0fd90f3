"""MoCo: the queue, shuffled keys, and which networks are trained and averaged."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from octdino.config import ModelSettings
from octdino.config.methods import MocoSettings
from octdino.errors import StoppedEarly
from octdino.models.backbones import create_backbone
from octdino.pretrain.gradient_step import StepRollback, backward
from octdino.pretrain.methods.method import encode_views
from octdino.pretrain.methods.moco import EMPTY, Moco, Queue, queue_loss
from octdino.training.loss_scale import LossScale
from octdino.training.optimizers import parameter_groups
from octdino.training.precision import autocast
from octdino.training.throughput import StepTimer
from tests.pretrain.small_runs import SETTINGS, run, stop_at
from tests.pretrain.test_methods import loss_of, make_batch, storages, tiny
from tests.pretrain.test_moco_losses import naive_batch_loss
from tests.small import write_small_cohort

SMALL = {"hidden_dim": 16, "out_dim": 8, "queue": 20, "key_groups": 2}

CPU = torch.device("cpu")


def plain() -> nn.Module:
    """Return a backbone whose features of an image do not depend on the others in the batch."""
    return nn.Sequential(nn.Conv2d(1, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def vit() -> nn.Module:
    return create_backbone(ModelSettings(timm="test_vit", args={"patch_size": 8}), 1, 32)


def moco(backbone=tiny, dim=4, **changes) -> Moco:
    torch.manual_seed(0)
    return Moco(MocoSettings(**{**SMALL, **changes}).resolved(100), backbone, dim)


def batch_of(method, size=4, first=0):
    return make_batch(method, size=size, targets=torch.arange(first, first + size)[:, None])


def unit(*shape):
    return F.normalize(torch.randn(*shape), dim=-1)


def test_queue_is_a_ring_of_any_length():
    queue, everything = Queue(7, 3), torch.randn(50, 3)
    begin = 0
    for count in (3, 3, 3, 5, 1, 7, 2):
        rows = torch.arange(begin, begin + count)
        queue.put(everything[rows], rows)
        begin += count
        held = queue.groups[queue.groups != EMPTY]
        assert sorted(held.tolist()) == list(range(max(begin - 7, 0), begin)), "the latest keys"
        for place, group in enumerate(queue.groups.tolist()):
            if group != EMPTY:
                assert torch.equal(queue.keys[place], everything[group])
        assert queue.next == begin % 7
        assert queue.filled().item() == pytest.approx(min(begin, 7) / 7)


def test_queue_keeps_last_keys_of_a_batch_larger_than_itself():
    queue, keys = Queue(4, 3), torch.randn(11, 3)
    queue.put(keys[:1], torch.tensor([100]))
    queue.put(keys, torch.arange(11))
    assert sorted(queue.groups.tolist()) == [7, 8, 9, 10]
    for place, group in enumerate(queue.groups.tolist()):
        assert torch.equal(queue.keys[place], keys[group])
    queue.put(keys[:1], torch.tensor([50]))
    assert 7 not in queue.groups, "the oldest is replaced first"


def test_step_uses_earlier_queue_and_then_adds_keys_of_both_views():
    method = moco(plain)
    twin = copy.deepcopy(method)
    first, second = batch_of(method), batch_of(method, first=10)
    loss, scalars = loss_of(method, first)
    loss.backward()
    assert loss == 0, "no negatives yet"
    assert scalars["queue_filled"].item() == pytest.approx(8 / 20)
    assert method.queue.groups.tolist() == [0, 1, 2, 3, 0, 1, 2, 3] + [EMPTY] * 12

    def embed(network, batch):
        return F.normalize(network["head"](network["backbone"](batch.views[0].flatten(0, 1))), dim=-1)

    keys = embed(twin.teacher, first)
    torch.testing.assert_close(method.queue.keys[:8], keys)
    assert not method.queue.keys.requires_grad
    loss, _ = loss_of(method, second)
    loss.backward()
    query, (k1, k2) = embed(twin.student, second), embed(twin.teacher, second).chunk(2)
    expected = queue_loss(query, torch.cat([k2, k1]), torch.arange(8), keys, torch.arange(8) + 100, 0.2)
    torch.testing.assert_close(loss, expected)
    assert abs(loss - queue_loss(query, torch.cat([k1, k2]), torch.arange(8), keys, torch.arange(8) + 100, 0.2)) > 1e-6


def test_rollback_restores_the_queue():
    method = moco()
    loss_of(method, batch_of(method))
    before = {name: value.clone() for name, value in method.queue.state_dict().items()}
    assert before["next"] == 8
    rollback = StepRollback(method)
    rollback.save()
    loss_of(method, batch_of(method, first=10))[0].backward()
    assert method.queue.next == 16
    rollback.undo_unless(torch.tensor(False))
    for name, value in method.queue.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_shuffled_keys_are_returned_in_order_of_images():
    method = moco(plain, key_groups=4)
    batch = batch_of(method, size=7)
    expected = encode_views(method.teacher["backbone"], batch.views[0])
    for seed in range(3):
        batch.sampled.update(method.sample(7, torch.Generator().manual_seed(seed)))
        torch.testing.assert_close(method.encode_teacher(batch)["views"], expected)
    assert (expected[:, 0] - expected[:, 1]).abs().max() > 1e-3, "otherwise order is not tested"


def test_shuffled_groups_have_separate_batch_norm_statistics():
    method = moco(key_groups=2)
    batch = batch_of(method, size=8)
    group = batch.sampled["order"][0].argsort()[:4].tolist()
    assert group not in ([0, 1, 2, 3], [4, 5, 6, 7])
    image, other = group[0], next(i for i in range(8) if i not in group)
    before = method.encode_teacher(batch)["views"]
    batch.views[0][:, other] += 10 * torch.randn(1, 32, 32)
    outside = method.encode_teacher(batch)["views"]
    torch.testing.assert_close(outside[:, group], before[:, group])
    batch.views[0][:, image] += 10 * torch.randn(1, 32, 32)
    inside = method.encode_teacher(batch)["views"]
    assert (inside[:, group[1]] - before[:, group[1]]).abs().max() > 1e-3


def test_shuffle_order_is_a_function_of_the_generator():
    method = moco()
    orders = [method.sample(6, torch.Generator().manual_seed(seed))["order"] for seed in (3, 3, 4)]
    assert orders[0].shape == (1, 6)
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])
    assert moco(version="v3").sample(6, torch.Generator()) == {}


@pytest.mark.parametrize("parts", [2, 3])
def test_v2_in_chunks_equals_whole_batch(parts):
    method = moco(plain)
    loss_of(method, batch_of(method, size=5))  # something in the queue
    batch, results = batch_of(method, size=5, first=10), []
    for count in (1, parts):
        twin = copy.deepcopy(method)
        flat = {"autocast": autocast(CPU, "float32"), "loss_scale": LossScale(CPU, "float32")}
        loss, _ = backward(twin, batch, count, seed=0, timer=StepTimer(CPU), **flat)
        results.append([loss, *[p.grad for p in twin.trained.parameters()], *twin.buffers()])
    assert results[0][0] > 0
    for whole, part in zip(*results, strict=True):
        torch.testing.assert_close(part, whole, rtol=1e-4, atol=1e-6)


def test_auto_version_is_v3_for_vit_and_v2_otherwise():
    assert moco().version == "v2"
    assert moco(vit, 64).version == "v3"
    assert moco(version="v3").version == "v3"
    assert moco(vit, 64, version="v2").version == "v2"


def kinds(network):
    return [type(module).__name__ for module in network]


def test_heads_have_the_papers_layers():
    v2, v3 = moco(), moco(version="v3")
    assert set(v2.student) == {"backbone", "head"}
    assert kinds(v2.student["head"]) == ["Linear", "ReLU", "Linear"]
    assert set(v3.student) == {"backbone", "head", "predictor"}
    block = ["Linear", "BatchNorm1d", "ReLU"]
    assert kinds(v3.student["head"]) == [*block, *block, "Linear", "BatchNorm1d"]
    assert kinds(v3.student["predictor"]) == [*block, "Linear", "BatchNorm1d"]
    assert set(v3.teacher) == {"backbone", "head"}
    assert v3.queue is None
    for version, width in (("v2", 128), ("v3", 256)):
        head = moco(version=version, out_dim=None).student["head"]
        assert [m.out_features for m in head if isinstance(m, nn.Linear)][-1] == width


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_teacher_has_no_gradient_and_shares_no_storage(version):
    method = moco(version=version)
    assert not storages(method.student) & storages(method.teacher)
    loss_of(method, batch_of(method))  # v2: something in the queue
    batch = batch_of(method, first=10)
    with torch.no_grad():
        teacher_features = method.encode_teacher(batch)
    teacher_features["views"].requires_grad_()
    method.loss(method.encode(batch), teacher_features, batch)[0].backward()
    assert teacher_features["views"].grad is None
    assert not any(p.requires_grad or p.grad is not None for p in method.teacher.parameters())
    for name, network in method.student.items():
        assert any(p.grad.abs().max() > 0 for p in network.parameters()), name
    assert method.exported is method.student["backbone"]


def test_v3_loss_sums_both_directions():
    method = moco(version="v3")
    twin, batch = copy.deepcopy(method), batch_of(method)
    loss, _ = loss_of(method, batch)
    images = batch.views[0].flatten(0, 1)
    q1, q2 = twin.student["predictor"](twin.student["head"](twin.student["backbone"](images))).chunk(2)
    k1, k2 = twin.teacher["head"](twin.teacher["backbone"](images)).chunk(2)
    torch.testing.assert_close(loss, naive_batch_loss(q1, k2, 0.2) + naive_batch_loss(q2, k1, 0.2))
    assert abs(loss - naive_batch_loss(q1, k1, 0.2) - naive_batch_loss(q2, k2, 0.2)) > 1e-3


def shifted(method):
    """Return a copy of the teacher, after adding 1 to the student's parameters."""
    with torch.no_grad():
        for parameter in method.student.parameters():
            parameter.add_(1.0)
    return copy.deepcopy(method.teacher)


def test_v2_teacher_momentum_is_constant():
    method = moco(momentum=0.9)
    start = shifted(method)
    for progress in (0.0, 0.3, 0.5, 0.9, 1.0):
        method.after_step(progress, torch.tensor(True))
    for before, after in zip(start.parameters(), method.teacher.parameters(), strict=True):
        torch.testing.assert_close(after, before + (1 - 0.9**5), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("progress", "share"), [(0.0, 0.2), (0.5, 0.1), (1.0, 0.0)])
def test_v3_teacher_momentum_follows_the_cosine_schedule(progress, share):
    method = moco(version="v3", momentum_start=0.8, momentum=0.1)
    start = shifted(method)
    method.after_step(progress, torch.tensor(True))
    for before, after in zip(start.parameters(), method.teacher.parameters(), strict=True):
        torch.testing.assert_close(after, before + share, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("changes", "frozen"), [({}, True), ({"frozen_patch_embed": False}, False)])
def test_patch_embedding_of_vit_is_frozen_in_v3(changes, frozen):
    method = moco(vit, 64, **changes)
    optimizer = torch.optim.AdamW(parameter_groups(method.trained), lr=0.01, weight_decay=0.1)
    before = copy.deepcopy(method.student["backbone"])
    loss_of(method, batch_of(method))[0].backward()
    optimizer.step()
    method.after_step(0.0, torch.tensor(True))
    for network in (method.student, method.teacher):
        after = network["backbone"]
        assert torch.equal(before.patch_embed.proj.weight, after.patch_embed.proj.weight) == frozen
        assert torch.equal(before.patch_embed.proj.bias, after.patch_embed.proj.bias) == frozen
        assert not torch.equal(before.blocks[0].mlp.fc1.weight, after.blocks[0].mlp.fc1.weight)


def test_patch_embedding_of_vit_is_trained_in_v2():
    assert all(p.requires_grad for p in moco(vit, 64, version="v2").student.parameters())


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_batch_of_one_scan_in_bfloat16_is_finite(version):
    method = moco(version=version)
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            loss, _ = loss_of(method, batch_of(method, size=1))
        loss.backward()
        assert loss.dtype == torch.float32
        assert torch.isfinite(loss)
        assert all(torch.isfinite(p.grad).all() for p in method.trained.parameters())


def test_default_sizes_for_a_large_cohort_are_the_papers():
    large, small = MocoSettings().resolved(1_000_000), MocoSettings().resolved(5_000)
    assert (large.queue, large.momentum, large.temperature) == (65536, 0.999, 0.2)
    assert (large.hidden_dim, large.momentum_start) == (4096, 0.99)
    assert (small.queue, small.momentum, small.hidden_dim) == (1024, 0.99, 512)


def test_queue_after_resume_is_bit_identical(tmp_path, monkeypatch):
    store = write_small_cohort(tmp_path / "cohort")
    variant = {"method": "moco", "queue": 50, "out_dim": 8, "hidden_dim": 16}
    settings = SETTINGS.model_copy(update={"variants": {"moco": variant}})
    run(store, tmp_path / "whole", "moco", settings=settings)
    with monkeypatch.context() as patch:
        stop_at(patch, 5)
        with pytest.raises(StoppedEarly):
            run(store, tmp_path / "parts", "moco", settings=settings)
    run(store, tmp_path / "parts", "moco", settings=settings)
    weights = [(tmp_path / part / "backbone.safetensors").read_bytes() for part in ("whole", "parts")]
    assert weights[0] == weights[1]
