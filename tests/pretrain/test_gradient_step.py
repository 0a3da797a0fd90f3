"""GradCache chunks give the gradient of the whole batch; rollback of a non-finite step restores all buffers."""

import copy

import pandas as pd
import pytest
import torch

from octdino.config import METHODS, AugmentSettings, ModelSettings
from octdino.models.backbones import create_backbone
from octdino.pretrain.gradient_step import StepRollback, backward
from octdino.pretrain.methods import method_class
from octdino.pretrain.methods.method import Batch
from octdino.training.loss_scale import LossScale
from octdino.training.precision import autocast
from octdino.training.throughput import StepTimer

PLAIN = autocast(torch.device("cpu"), "float32")
NO_SCALE = LossScale(torch.device("cpu"), "float32")
TIMER = StepTimer(torch.device("cpu"))
TABLE = pd.DataFrame(
    {"cst": [250.0, 260, 300, 305] * 2, "bcva": 1.0, "eye": list("aabbccdd"), "patient": list("aabbccdd")}
)


def build(name, model="test_vit", **args):
    """Return a method and a batch of 8 scans."""
    torch.manual_seed(0)
    settings = METHODS[name]().resolved(100)
    spec = ModelSettings(timm=model, args={"patch_size": 8, **args} if "vit" in model else {})
    dim = create_backbone(spec, 1, 32).num_features
    method = method_class(settings)(settings, lambda: create_backbone(spec, 1, 32), dim)
    kinds = method.views(AugmentSettings(global_size=32, local_size=16, local_views=2))
    batch = Batch(
        views=[torch.randn(kind.count, 8, 1, kind.size, kind.size) for kind in kinds],
        sampled=method.sample(8, torch.Generator().manual_seed(0)),
        targets=method.targets(TABLE),
        progress=0.5,
    )
    return method, batch


def after(method, batch, chunks):
    """Return loss, scalars, gradients and buffers after a backward pass of a copy."""
    method = copy.deepcopy(method)
    loss, scalars = backward(method, batch, chunks, seed=0, autocast=PLAIN, loss_scale=NO_SCALE, timer=TIMER)
    gradients = {name: p.grad for name, p in method.trained.named_parameters() if p.requires_grad}
    return loss, scalars, gradients, dict(method.named_buffers())


@pytest.mark.parametrize("name", METHODS)
def test_four_chunks_give_gradients_of_whole_batch(name):
    method, batch = build(name)
    whole, chunked = after(method, batch, 1), after(method, batch, 4)
    torch.testing.assert_close(chunked[0], whole[0], rtol=1e-6, atol=1e-6)
    for index in (1, 2, 3):  # scalars, gradients, buffers: the center, the queue, heads' running statistics
        assert chunked[index].keys() == whole[index].keys()
        for key, value in whole[index].items():
            torch.testing.assert_close(
                chunked[index][key], value, rtol=1e-4, atol=1e-5, msg=lambda m, key=key: f"{key}: {m}"
            )


def test_chunks_of_unequal_size_give_gradients_of_whole_batch():
    method, batch = build("simclr")
    whole, chunked = after(method, batch, 1), after(method, batch, 3)
    torch.testing.assert_close(chunked[0], whole[0])
    for key, value in whole[2].items():
        torch.testing.assert_close(chunked[2][key], value, rtol=1e-4, atol=1e-5)


def test_mean_loss_of_separate_chunks_differs_from_loss_of_whole_batch():
    """Plain gradient accumulation has fewer negatives; if both were equal, the tests above would show nothing."""
    method, batch = build("simclr")
    losses = [after(method, chunk, 1)[0] for chunk in batch.chunks(4)]
    assert abs(torch.stack(losses).mean() - after(method, batch, 1)[0]) > 0.1


def test_both_passes_of_grad_cache_drop_the_same_paths():
    """Otherwise the gradient would belong to another network than the features of the loss."""
    method, batch = build("simclr", drop_path_rate=0.5, proj_drop_rate=0.3)
    _, _, gradients, _ = after(method, batch, 2)

    def loss_at(shift):
        moved = copy.deepcopy(method)
        with torch.no_grad():
            moved.network["backbone"].patch_embed.proj.weight += shift * direction
        return after(moved, batch, 2)[0]

    direction = torch.randn_like(method.network["backbone"].patch_embed.proj.weight)
    slope = (loss_at(1e-4) - loss_at(-1e-4)) / 2e-4  # larger steps cross kinks
    expected = (gradients["backbone.patch_embed.proj.weight"] * direction).sum()
    torch.testing.assert_close(slope, expected, rtol=0.02, atol=1e-4)


def test_backbone_batch_norm_counts_each_chunk_once():
    method, batch = build("simclr", model="test_resnet")
    norm = next(name for name, _ in method.named_buffers() if name.endswith("num_batches_tracked"))
    assert after(method, batch, 4)[3][norm] == 4
    assert after(method, batch, 1)[3][norm] == 1


@pytest.mark.parametrize("name", METHODS)
def test_rollback_restores_all_buffers(name):
    method, batch = build(name)
    before = {key: value.clone() for key, value in method.state_dict().items()}
    rollback = StepRollback(method)
    rollback.save()
    batch.views[0][0, 0] = torch.nan
    loss, _ = backward(method, batch, 1, seed=0, autocast=PLAIN, loss_scale=NO_SCALE, timer=TIMER)
    assert not torch.isfinite(loss)
    rollback.undo_unless(torch.tensor(False))
    for key, value in method.state_dict().items():
        assert torch.equal(value, before[key]), key
