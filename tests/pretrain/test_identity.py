"""Optimizations of speed change no number: losses equal those of a plain loop, written here from the paper."""

import copy

import pandas as pd
import pytest
import torch
from torch._inductor import config as inductor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from octdino.config import METHODS
from octdino.models.initial_weights import Start
from octdino.pretrain import batch_loader
from octdino.pretrain.pretraining_data import read_data
from octdino.pretrain.trainer import Trainer
from octdino.training.checkpoints import RunState
from octdino.training.device_loader import DeviceLoader
from octdino.training.optimizers import parameter_groups, set_schedule
from octdino.training.schedules import cosine, warmup_cosine
from tests.pretrain.small_runs import NO_DROP_PATH, PAIRS, SETTINGS
from tests.pretrain.small_runs import run as pretrain_run

STEPS = 8


def make(store, folder, name="dino", model="resnet", **changes):
    settings = SETTINGS.model_copy(update=changes)
    start = Start(settings.variant(name), NO_DROP_PATH[model], "b", 0, 0)
    trainer = Trainer(settings, name, start, read_data(store, 0), 0, RunState(folder / "state", {}, 1e9))
    trainer.method.train()
    return trainer


class Plain:
    """DINO step by step as its authors' code has it: pairs in a loop, parameters one by one, no memory format.

    Args:
        together: whether views of one size pass the backbone in one batch (batch norm over all of them), or separately.
    """

    def __init__(self, trainer, together):
        self.trainer, self.together, self.settings = trainer, together, trainer.method.settings
        method = copy.deepcopy(trainer.method).to(memory_format=torch.contiguous_format)
        self.student, self.teacher = method.student, method.teacher
        groups = parameter_groups(self.student)
        self.optimizer = torch.optim.AdamW(groups, lr=0.0, foreach=False, fused=False)
        self.center = torch.zeros(self.settings.prototypes)

    def logits(self, network, kinds):
        """Return a list of logits, [B, K] per view."""
        batches = [kind.flatten(0, 1) for kind in kinds] if self.together else [v for kind in kinds for v in kind]
        features = torch.cat([network["backbone"](batch.contiguous()) for batch in batches])
        return network["head"](features).split(kinds[0].shape[1])

    def loss(self, views, progress):
        s, temperature = self.settings, self.trainer.method.teacher_temp(progress)
        with torch.no_grad():
            teacher = self.logits(self.teacher, views[:1])
            targets = [F.softmax((x - self.center) / temperature, dim=-1) for x in teacher]
            self.center = s.center_momentum * self.center + (1 - s.center_momentum) * torch.cat(teacher).mean(0)
        answers = self.logits(self.student, views)
        pairs = [(i, j) for i in range(len(targets)) for j in range(len(answers)) if i != j]
        terms = [-(targets[i] * F.log_softmax(answers[j] / s.student_temp, -1)).sum(-1).mean() for i, j in pairs]
        return sum(terms) / len(terms)

    def step(self, views, progress):
        s, loss = self.settings, self.loss(views, progress)
        loss.backward()
        if progress < s.freeze_last_layer:
            self.student["head"].prototypes.weight.grad = None
        gradients = [p.grad for p in self.student.parameters() if p.grad is not None]
        norm = torch.stack([g.norm() for g in gradients]).norm()
        if s.clip_grad is not None and norm > s.clip_grad:
            for g in gradients:
                g.mul_(s.clip_grad / (norm + 1e-6))
        lr = warmup_cosine(progress, s.peak_lr(self.trainer.batches.batch_size), s.min_lr, s.warmup)
        set_schedule(self.optimizer, lr, cosine(progress, s.weight_decay, s.weight_decay_end))
        self.optimizer.step()
        self.optimizer.zero_grad()
        momentum = self.trainer.method.momentum(progress)
        with torch.no_grad():
            for t, p in zip(self.teacher.parameters(), (p for n in self.teacher for p in self.student[n].parameters()),
                            strict=True):  # fmt: skip
                t.copy_(momentum * t + (1 - momentum) * p)
        return loss.item()


@pytest.mark.parametrize(("model", "together"), [("resnet", True), ("vit", True), ("vit", False)])
def test_trainer_losses_and_weights_equal_plain_loop(store, tmp_path, model, together):
    """One forward per size, the expanded loss, channels last, fused AdamW, foreach EMA and clipping together."""
    trainer = make(store, tmp_path, model=model, precision="float32")
    plain = Plain(trainer, together)
    for _ in range(STEPS):
        batch = trainer.batches.load(trainer.step)
        expected = plain.step(batch.views, batch.progress)
        before = trainer.history.sums.get("loss", torch.zeros(()))
        trainer.take_step()
        assert (trainer.history.sums["loss"] - before).item() == pytest.approx(expected, rel=1e-4)
    for name, value in plain.teacher.named_parameters():
        torch.testing.assert_close(trainer.method.teacher.get_parameter(name), value, rtol=1e-3, atol=1e-4)


def test_prefetched_images_give_same_weights_as_resident_ones(store, tmp_path, monkeypatch):
    pretrain_run(store, tmp_path / "resident")
    monkeypatch.setattr(
        batch_loader, "DeviceLoader", lambda images, device: DeviceLoader(images, device, resident=False)
    )
    pretrain_run(store, tmp_path / "ahead")
    one, two = ((tmp_path / name / "backbone.safetensors").read_bytes() for name in ("resident", "ahead"))
    assert one == two


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "precision", "local_views", "rel"), [("resnet", "float32", 0, 1e-3), ("vit", "bfloat16", 2, 2e-2)]
)
def test_compiled_backbone_gives_same_losses(store, tmp_path, model, precision, local_views, rel):
    """Each size of views is compiled on its own, half a minute or more: one of the two cases has two of them."""
    augment = SETTINGS.augment.model_copy(update={"local_views": local_views})
    for name, compiled in (("plain", False), ("compiled", True)):
        changes = {"compile": compiled, "precision": precision, "augment": augment}
        with inductor.patch(compile_threads=1):  # without worker processes, each of which imports torch
            pretrain_run(store, tmp_path / name, "dino", model, SETTINGS.model_copy(update=changes))
    one, two = (pd.read_csv(tmp_path / name / "history.csv")["loss"] for name in ("plain", "compiled"))
    assert one.tolist() == pytest.approx(two.tolist(), rel=rel)


WAITING = ("_local_scalar_dense", "nonzero", "bincount", "masked_select", "_unique2", "is_nonzero", "equal")


class SynchronizingOperations(TorchDispatchMode):
    """Records operations that synchronize with a GPU, because the host needs the shape or value of their result."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        indexed = args[1] if name in ("index", "index_put_", "_index_put_impl_") else []
        if name in WAITING or any(x is not None and x.dtype == torch.bool for x in indexed):
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("name", "model"), PAIRS)
def test_step_does_not_synchronize_with_the_device(store, tmp_path, name, model):
    trainer = make(store, tmp_path, name, model)
    with SynchronizingOperations() as operations:
        for _ in range(2):
            trainer.take_step()
    masks = ["nonzero", "index"] * 2  # DINOv2 reads masks that were sampled on the host
    assert operations.found == (masks if name == "dinov2" else [])


def test_operations_that_synchronize_are_detected():
    with SynchronizingOperations() as operations:
        x = torch.ones(3)
        _ = x.sum().item(), x[x > 0], x.nonzero()
    assert operations.found == ["_local_scalar_dense", "index", "nonzero"]
    assert {name for name, _ in PAIRS} == set(METHODS)
