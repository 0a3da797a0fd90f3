"""Fine-tuning: train backbone and head together on labeled scans; the epoch is chosen on validation patients."""

import logging
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from octdino.augment import Augment, View
from octdino.classify.labeled_scans import Labeled
from octdino.classify.losses import balance, loss_of, validation_score
from octdino.config import ClassifySettings
from octdino.errors import UserError
from octdino.models.backbones import num_features
from octdino.models.input_batches import input_batches
from octdino.models.sync_batchnorm import sync_batch_norm
from octdino.progress import progress
from octdino.training.checkpoint_reader import CheckpointError, check_form, check_optimizer
from octdino.training.checkpoints import RunState
from octdino.training.device_loader import DeviceLoader
from octdino.training.distributed import (
    all_gather,
    average_gradients,
    broadcast_from_rank0,
    local_slice,
    rank,
    shared_batch,
)
from octdino.training.optimizers import make_optimizer, parameter_groups, set_schedule
from octdino.training.precision import autocast, keep_freed_memory, pick_device, resolve_precision
from octdino.training.random_seeds import seed_of
from octdino.training.schedules import warmup_cosine
from octdino.training.signals import Stopper

log = logging.getLogger("octdino.classify")


class Finetune:
    """One fine-tuning run: network, optimizer, position and the best network so far."""

    def __init__(
        self, settings: ClassifySettings, data: Labeled, backbone: nn.Module, pretrained: bool, seed: int
    ) -> None:
        self.settings, self.data, self.seed = settings, data, seed
        self.device = pick_device()
        keep_freed_memory()
        torch.manual_seed(seed_of(seed, "head"))
        head = nn.Linear(num_features(backbone), len(data.labels))
        self.network = (
            nn.Sequential(sync_batch_norm(backbone), head).to(self.device).to(memory_format=torch.channels_last)
        )
        groups = parameter_groups(backbone)
        for group in groups:
            group["lr_scale"] = settings.backbone_lr if pretrained else 1.0
        self.optimizer = make_optimizer("adamw", [*groups, *parameter_groups(head)])
        self.feed = DeviceLoader(data.images, self.device)
        self.train_rows = data.rows("train")
        self.batch = shared_batch(settings.batch_size, len(self.train_rows))
        self.epoch_steps = max(len(self.train_rows) // self.batch, 1)
        self.epochs = max(settings.epochs, math.ceil(settings.min_steps / self.epoch_steps))
        self.check_every = max(self.epoch_steps, settings.min_steps // settings.epochs)  # steps
        self.step, self.total = 0, self.epochs * self.epoch_steps
        self.best_score, self.best_step = -math.inf, 0
        self.best: dict[str, Tensor] = {}
        self.augment = Augment(settings.augment, data.mean, data.std, self.device)
        truth = data.truth[self.train_rows]
        balanced = settings.class_weights == "balanced"
        self.class_weight = balance(truth, data.exclusive).to(self.device) if balanced else None

    def run(self, state: RunState, stopper: Stopper) -> None:
        """Train to the end or until the validation score stops improving; leave the best network in `network`."""
        if saved := state.load(self.check):
            self.restore(saved)
        log.info("%d labeled scans, up to %d steps of %d", len(self.train_rows), self.total, self.batch)
        for _ in progress(range(self.step, self.total), self.total - self.step, "fine-tuning", "step"):
            if self._done():
                break
            self._take_step()
            if self.step % self.check_every == 0 or self.step == self.total:
                self._check()
            if reason := stopper.asked():
                state.stop(self.position(), self.step, reason)
            if state.due():
                state.save(self.position(), self.step)
        self.network.load_state_dict(self.best)

    def position(self) -> dict[str, Any]:
        """Return the checkpoint: all that the next step depends on; randomness is a function of seed and step."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "best_score": self.best_score,
            "best_step": self.best_step,
            "best": self.best,
            "precision": resolve_precision(self.device, self.settings.precision),
        }

    def check(self, saved: dict[str, Any]) -> None:
        """Check that this run can be restored from `saved`; nothing is changed.

        Raises:
            CheckpointError: a key is missing, a value has another type or shape, or the step is not one of this run.
        """
        present = self.position()
        check_form(
            {**saved, "optimizer": None, "best": None}, {**present, "optimizer": None, "best": None}, "checkpoint"
        )
        check_optimizer(saved.get("optimizer"), self.optimizer)
        if saved.get("best") != {}:
            check_form(saved.get("best"), present["network"], "best")
        step, best_step = saved["step"], saved["best_step"]
        if not isinstance(step, int) or not 0 <= step <= self.total:
            raise CheckpointError(f"step {step} is none of this run's {self.total}")
        if not isinstance(best_step, int) or not 0 <= best_step <= step:
            raise CheckpointError(f"best_step {best_step} is none of the {step} steps taken")
        if not saved["best"] and step >= self.check_every:
            raise CheckpointError(f"best is empty after {step} steps")

    def restore(self, saved: dict[str, Any]) -> None:
        """Restore the position of a checkpoint."""
        self.network.load_state_dict(saved["network"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.step, self.best_score, self.best_step = saved["step"], saved["best_score"], saved["best_step"]
        self.best = saved["best"]
        log.info("resumed at step %d of %d", self.step, self.total)
        if (now := resolve_precision(self.device, self.settings.precision)) != saved["precision"]:
            log.warning("resumed in %s after %s: the weights are of neither", now, saved["precision"])

    def _done(self) -> bool:
        return self.step - self.best_step > self.settings.patience * self.check_every

    def _take_step(self) -> None:
        epoch, index = divmod(self.step, self.epoch_steps)
        order = torch.Generator().manual_seed(seed_of(self.seed, "order", epoch))
        chosen = torch.randperm(len(self.train_rows), generator=order)[index * self.batch : (index + 1) * self.batch]
        rows = self.train_rows[chosen.numpy()]
        torch.manual_seed(seed_of(self.seed, "step", self.step, rank()))  # dropout and drop path
        s = self.settings
        view = View(1, s.augment.global_size, s.augment.global_scale)
        places = torch.from_numpy(rows[local_slice(len(rows))])
        images, keys = self.feed.take(places), places.to(self.device)
        (images,) = self.augment(images, [view], seed_of(self.seed, "views", self.step), keys)
        self.network.train()
        with autocast(self.device, s.precision):
            logits = all_gather(self.network(images.contiguous(memory_format=torch.channels_last)))
        truth = torch.from_numpy(self.data.truth[rows]).to(self.device)
        loss = loss_of(logits.float(), truth, self.data.exclusive, self.class_weight)
        torch.autograd.backward(loss)
        average_gradients(self.network)
        set_schedule(self.optimizer, warmup_cosine(self.step / self.total, s.lr, 0.0, 0.1), s.weight_decay)
        nn.utils.clip_grad_norm_(self.network.parameters(), 3.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1

    def _check(self) -> None:
        rows = self.data.rows("val")
        score = broadcast_from_rank0(
            lambda: validation_score(self.data.truth[rows], self.logits(rows), self.data.exclusive)
        )
        if math.isnan(score):
            raise UserError(f"step {self.step}: the network's outputs are not finite: it diverged; lower classify.lr")
        log.info("step %d/%d: %.4f on validation patients", self.step, self.total, score)
        if score > self.best_score:
            self.best_score, self.best_step = score, self.step
            self.best = {key: value.detach().clone() for key, value in self.network.state_dict().items()}

    @torch.no_grad()
    def logits(self, rows: np.ndarray) -> np.ndarray:
        """Return logits float64 [len(rows), L] of the images without augmentation."""
        self.network.eval()
        size = self.settings.augment.global_size
        batches = input_batches(self.data.images, self.data.mean, self.data.std, size, self.device, rows)
        return torch.cat([self.network(batch).double().cpu() for batch in batches]).numpy()
