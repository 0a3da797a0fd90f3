"""One fine-tuning: backbone and head trained together on labeled scans; the step is chosen on validation patients."""

import logging
import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from octdino.augment import Augment, View
from octdino.classify.labeled_scans import Labeled
from octdino.classify.linear import Head
from octdino.classify.losses import balance, loss_of
from octdino.config import ClassifySettings
from octdino.config.classify import Candidate
from octdino.models.adapters import add_adapters, merge_adapters
from octdino.models.backbones import num_features
from octdino.models.input_batches import input_batches
from octdino.models.sync_batchnorm import sync_batch_norm
from octdino.stats.validation_score import validation_score
from octdino.training.checkpoint_reader import CheckpointError, check_form, check_optimizer
from octdino.training.device_loader import DeviceLoader
from octdino.training.distributed import (
    all_gather,
    average_gradients,
    broadcast_from_rank0,
    local_slice,
    rank,
    shared_batch,
)
from octdino.training.loss_scale import LossScale
from octdino.training.optimizers import layer_decay_groups, make_optimizer, parameter_groups, set_schedule, step_if
from octdino.training.precision import autocast, keep_freed_memory, pick_device, resolve_precision
from octdino.training.random_seeds import seed_of
from octdino.training.schedules import warmup_cosine

log = logging.getLogger("octdino.classify")


class Schedule(NamedTuple):
    """Steps of one training: batch size, steps per epoch, steps in all, and steps between two validations."""

    batch: int
    epoch: int
    total: int
    check: int


def schedule_of(settings: ClassifySettings, candidate: Candidate, scans: int) -> Schedule:
    """Return the schedule of a candidate on so many training scans."""
    batch = shared_batch(settings.batch_size, scans)
    epoch = max(scans // batch, 1)
    epochs = max(settings.epochs, math.ceil(candidate.min_steps / epoch))
    return Schedule(batch, epoch, epochs * epoch, max(epoch, candidate.min_steps // settings.epochs))


class Finetune:
    """One fine-tuning run: network, optimizer, position and the best network so far.

    Args:
        backbone: its first weights; it is trained in place.
        lr: peak learning rate.
        schedule: batch size and number of steps.
        pretrained: whether the backbone's learning rate is scaled by `settings.backbone_lr`.
        head: first weight [L, D] and bias [L] of the classifier; None: random.
        adapted: whether low-rank adapters of the backbone are trained, not the backbone itself.
    """

    def __init__(
        self,
        settings: ClassifySettings,
        data: Labeled,
        backbone: nn.Module,
        *,
        lr: float,
        schedule: Schedule,
        pretrained: bool,
        seed: int,
        head: Head | None = None,
        adapted: bool = False,
    ) -> None:
        self.settings, self.data, self.seed = settings, data, seed
        self.device = pick_device()
        keep_freed_memory()
        self.adapted = adapted
        if adapted:
            channels, size = data.image.channels, settings.augment.global_size
            add_adapters(backbone, settings.lora_rank, channels, size, seed)
        torch.manual_seed(seed_of(seed, "head"))
        linear = nn.Linear(num_features(backbone), len(data.labels))
        if head is not None:
            linear.load_state_dict({"weight": torch.from_numpy(head[0]), "bias": torch.from_numpy(head[1])})
        self.network = (
            nn.Sequential(sync_batch_norm(backbone), linear).to(self.device).to(memory_format=torch.channels_last)
        )
        decayed = pretrained and settings.layer_decay < 1
        groups = layer_decay_groups(backbone, settings.layer_decay) if decayed else parameter_groups(backbone)
        for group in groups:
            group["lr_scale"] = group.get("lr_scale", 1.0) * (settings.backbone_lr if pretrained else 1.0)
        self.optimizer = make_optimizer("adamw", [*groups, *parameter_groups(linear)])
        self.loss_scale = LossScale(self.device, resolve_precision(self.device, settings.precision))
        self.feed = DeviceLoader(data.images, self.device)
        self.truth = torch.from_numpy(data.truth).to(self.device)
        self.train_rows = data.rows("train")
        self.lr, self.schedule = lr, schedule
        self.step, self.diverged = 0, False
        self.best_score, self.best_step = -math.inf, 0
        self.best: dict[str, Tensor] = {}
        self.history: list[dict[str, float]] = []
        self.loss_sum = torch.zeros((), device=self.device)  # since the last validation
        self.augment = Augment(settings.augment, data.mean, data.std, self.device)
        truth = data.truth[self.train_rows]
        balanced = settings.class_weights == "balanced"
        self.class_weight = balance(truth, data.exclusive).to(self.device) if balanced else None

    def position(self) -> dict[str, Any]:
        """Return the checkpoint: all that the next step depends on; randomness is a function of seed and step."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "loss_scale": self.loss_scale.position(),
            "step": self.step,
            "best_score": self.best_score,
            "best_step": self.best_step,
            "best": self.best,
            "history": self.history,
            "loss_sum": self.loss_sum,
        }

    def check(self, saved: dict[str, Any]) -> None:
        """Check that this training can be restored from `saved`; nothing is changed.

        Raises:
            CheckpointError: a key is missing, a value has another type or shape, or the step is not one of this run.
        """
        present = self.position()
        loose = {"optimizer": None, "best": None, "history": None}
        check_form({**saved, **loose}, {**present, **loose}, "checkpoint")
        check_history(saved.get("history"))
        check_optimizer(saved.get("optimizer"), self.optimizer)
        if saved.get("best") != {}:
            check_form(saved.get("best"), present["network"], "best")
        step, best_step = saved["step"], saved["best_step"]
        if not isinstance(step, int) or not 0 <= step <= self.schedule.total:
            raise CheckpointError(f"step {step} is none of this run's {self.schedule.total}")
        if not isinstance(best_step, int) or not 0 <= best_step <= step:
            raise CheckpointError(f"best_step {best_step} is none of the {step} steps taken")
        if not saved["best"] and step >= self.schedule.check:
            raise CheckpointError(f"best is empty after {step} steps")

    def restore(self, saved: dict[str, Any]) -> None:
        """Restore the position of a checkpoint."""
        self.network.load_state_dict(saved["network"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.loss_scale.restore(saved["loss_scale"])
        self.step, self.best_score, self.best_step = saved["step"], saved["best_score"], saved["best_step"]
        self.best, self.history = saved["best"], saved["history"]
        self.loss_sum = saved["loss_sum"].to(self.device)

    @property
    def done(self) -> bool:
        """Whether all steps are taken, it has diverged, or validation has not improved for `patience` checks."""
        patience = self.settings.patience
        waited = patience is not None and self.step - self.best_step > patience * self.schedule.check
        return self.step >= self.schedule.total or self.diverged or waited

    def train_step(self) -> None:
        """Take one step; at the end of an epoch, validate."""
        self._take_step()
        if self.step % self.schedule.check == 0 or self.step == self.schedule.total:
            self._validate()

    def batch(self, step: int) -> np.ndarray:
        """Return the scans of a step, as positions among the labeled scans."""
        epoch, index = divmod(step, self.schedule.epoch)
        size = self.schedule.batch
        return self.order(epoch)[index * size : (index + 1) * size]

    def order(self, epoch: int) -> np.ndarray:
        """Return the scans in the order of an epoch, those included that do not fill a last batch."""
        generator = torch.Generator().manual_seed(seed_of(self.seed, "order", epoch))
        rows: np.ndarray = self.train_rows[torch.randperm(len(self.train_rows), generator=generator).numpy()]
        return rows

    def views(self, step: int, images: Tensor, keys: Tensor) -> Tensor:
        """Return the views of a step, [B, C, S, S], of images uint8 [B, C, H, W] and their positions, on the device."""
        s = self.settings.augment
        (views,) = self.augment(
            images, [View(1, s.global_size, s.global_scale)], seed_of(self.seed, "views", step), keys
        )
        return views

    def _take_step(self) -> None:
        rows = self.batch(self.step)
        torch.manual_seed(seed_of(self.seed, "step", self.step, rank()))  # dropout and drop path
        s = self.settings
        local = local_slice(len(rows))
        places = torch.from_numpy(rows).to(self.device, non_blocking=True)
        images = self.views(self.step, self.feed.take(torch.from_numpy(rows[local])), places[local])
        self.network.train()
        with autocast(self.device, s.precision):
            logits = all_gather(self.network(images.contiguous(memory_format=torch.channels_last)))
        loss = loss_of(logits.float(), self.truth[places], self.data.exclusive, self.class_weight)
        self.loss_sum += loss.detach()
        torch.autograd.backward(self.loss_scale(loss))
        average_gradients(self.network)
        self.loss_scale.unscale(self.network.parameters())
        set_schedule(self.optimizer, warmup_cosine(self.step / self.schedule.total, self.lr, 0.0, 0.1), s.weight_decay)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), 3.0)
        step_if(self.optimizer, ~self.loss_scale.update(loss, norm))
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1

    def _validate(self) -> None:
        rows = self.data.rows("val")
        score = broadcast_from_rank0(
            lambda: validation_score(self.data.truth[rows], self.logits(rows), self.data.exclusive)
        )
        self.diverged = math.isnan(score)
        steps = self.step - (int(self.history[-1]["step"]) if self.history else 0)
        lr: float = self.optimizer.param_groups[-1]["lr"]  # of the head
        self.history.append(
            {"step": self.step, "loss": self.loss_sum.item() / steps, "lr": lr, "validation_score": score}
        )
        self.loss_sum.zero_()
        log.info("step %d/%d: %.4f on validation patients", self.step, self.schedule.total, score)
        if score > self.best_score:
            self.best_score, self.best_step = score, self.step
            self.best = {key: value.detach().clone() for key, value in self.network.state_dict().items()}

    def merge(self) -> None:
        """Merge adapters, if there are any, into the backbone's weights; the network is not trained after that."""
        if self.adapted:
            merge_adapters(self.network)

    @torch.no_grad()
    def logits(self, rows: np.ndarray) -> np.ndarray:
        """Return logits float64 [len(rows), L] of the images without augmentation."""
        self.network.eval()
        size = self.settings.augment.global_size
        batches = input_batches(self.data.images, self.data.mean, self.data.std, size, self.device, rows)
        return torch.cat([self.network(batch).double().cpu() for batch in batches]).numpy()


def check_history(rows: Any) -> None:
    """Check that `rows` of a checkpoint are a history: dicts from names to numbers, each with a step.

    Raises:
        CheckpointError: they are not.
    """
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "step" in row for row in rows):
        raise CheckpointError("history is no list of rows with a step")
    for row in rows:
        check_form(row, dict.fromkeys(row, 0.0), "history")
