"""What makes a run fast changes no number: its losses are those of a plain loop, written out here from the paper."""

import copy

import pandas as pd
import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from octdino.config import METHODS, ModelSettings
from octdino.models.initial_weights import Start
from octdino.pretrain import trainer as loop
from octdino.pretrain.pretraining_data import read_data
from octdino.pretrain.trainer import Run
from octdino.training.checkpoints import RunState
from octdino.training.device_loader import DeviceLoader
from octdino.training.optimizers import parameter_groups, set_schedule
from octdino.training.schedules import cosine, warmup_cosine
from tests.pretrain.test_pretraining import MODELS, PAIRS, SETTINGS
from tests.pretrain.test_pretraining import run as pretrain_run
from tests.small import write_small_cohort

STILL = {**MODELS, "vit": ModelSettings(timm="test_vit", args={"patch_size": 8})}  # no drop path: views may be apart
STEPS = 8


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_small_cohort(tmp_path_factory.mktemp("cohort"))


def make(store, folder, name="dino", model="resnet", **changes):
    settings = SETTINGS.model_copy(update=changes)
    start = Start(settings.variant(name), STILL[model], "b", 0, 0)
    run = Run(settings, name, start, read_data(store, 0), 0, RunState(folder / "state", {}, 1e9))
    run.method.train()
    return run


class Plain:
    """DINO step by step as its authors' code has it: pairs in a loop, parameters one by one, no memory format.

    Args:
        together: whether views of one size pass the backbone in one batch (batch norm sees them all), or each alone.
    """

    def __init__(self, run, together):
        self.run, self.together, self.settings = run, together, run.method.settings
        method = copy.deepcopy(run.method).to(memory_format=torch.contiguous_format)
        self.student, self.teacher = method.student, method.teacher
        groups = parameter_groups(self.student)
        self.optimizer = torch.optim.AdamW(groups, lr=0.0, foreach=False, fused=False)
        self.center = torch.zeros(self.settings.prototypes)

    def logits(self, network, kinds):
        """A list, [B, K] a view."""
        batches = [kind.flatten(0, 1) for kind in kinds] if self.together else [v for kind in kinds for v in kind]
        features = torch.cat([network["backbone"](batch.contiguous()) for batch in batches])
        return network["head"](features).split(kinds[0].shape[1])

    def loss(self, views, progress):
        s, temperature = self.settings, self.run.method.teacher_temp(progress)
        with torch.no_grad():
            taught = self.logits(self.teacher, views[:1])
            targets = [F.softmax((x - self.center) / temperature, dim=-1) for x in taught]
            self.center = s.center_momentum * self.center + (1 - s.center_momentum) * torch.cat(taught).mean(0)
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
        lr = warmup_cosine(progress, s.peak_lr(self.run.batch), s.min_lr, s.warmup)
        set_schedule(self.optimizer, lr, cosine(progress, s.weight_decay, s.weight_decay_end))
        self.optimizer.step()
        self.optimizer.zero_grad()
        momentum = self.run.method.momentum(progress)
        with torch.no_grad():
            for t, p in zip(self.teacher.parameters(), (p for n in self.teacher for p in self.student[n].parameters()),
                            strict=True):  # fmt: skip
                t.copy_(momentum * t + (1 - momentum) * p)
        return loss.item()


@pytest.mark.parametrize(("model", "together"), [("resnet", True), ("vit", True), ("vit", False)])
def test_the_losses_are_those_of_a_plain_loop(store, tmp_path, model, together):
    """One forward a size, the expanded loss, channels last, fused AdamW, foreach average and clipping: all at once."""
    run = make(store, tmp_path, model=model, precision="float32")
    plain = Plain(run, together)
    for _ in range(STEPS):
        progress, views = run.step / run.total, run.make_batch(run.rows(run.step)).views
        expected = plain.step(views, progress)
        before = run.sums.get("loss", torch.zeros(()))
        run.take_step()
        assert (run.sums["loss"] - before).item() == pytest.approx(expected, rel=1e-4)
    for name, value in plain.teacher.named_parameters():
        torch.testing.assert_close(run.method.teacher.get_parameter(name), value, rtol=1e-3, atol=1e-4)


def test_images_sent_ahead_give_the_run_that_resident_ones_give(store, tmp_path, monkeypatch):
    pretrain_run(store, tmp_path / "resident")
    monkeypatch.setattr(loop, "DeviceLoader", lambda images, device: DeviceLoader(images, device, resident=False))
    pretrain_run(store, tmp_path / "ahead")
    one, two = ((tmp_path / name / "backbone.safetensors").read_bytes() for name in ("resident", "ahead"))
    assert one == two


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "precision", "rel"),
    [("resnet", "float32", 1e-3), ("vit", "float32", 1e-3), ("resnet", "bfloat16", 2e-2)],
)
def test_a_compiled_backbone_gives_the_losses_of_a_plain_one(store, tmp_path, model, precision, rel):
    for name, compiled in (("plain", False), ("compiled", True)):
        settings = SETTINGS.model_copy(update={"compile": compiled, "precision": precision})
        pretrain_run(store, tmp_path / name, "dino", model, settings)
    one, two = (pd.read_csv(tmp_path / name / "history.csv")["loss"] for name in ("plain", "compiled"))
    assert one.tolist() == pytest.approx(two.tolist(), rel=rel)


WAITING = ("_local_scalar_dense", "nonzero", "bincount", "masked_select", "_unique2", "is_nonzero", "equal")


class Waits(TorchDispatchMode):
    """Notes the operations after which the host has to wait for a GPU: those whose result's shape or value it needs."""

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
def test_no_step_waits_for_the_device(store, tmp_path, name, model):
    run = make(store, tmp_path, name, model)
    with Waits() as waits:
        for _ in range(2):
            run.take_step()
    masks = ["nonzero", "index"] * 2  # DINOv2 arm_styles at masks that it has drawn on the host
    assert waits.found == (masks if name == "dinov2" else [])


def test_whoever_waits_would_be_found():
    with Waits() as waits:
        x = torch.ones(3)
        _ = x.sum().item(), x[x > 0], x.nonzero()
    assert waits.found == ["_local_scalar_dense", "index", "nonzero"]
    assert {name for name, _ in PAIRS} == set(METHODS)
