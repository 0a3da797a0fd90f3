"""The training loop of pretraining, for any method: one step, one epoch, the checkpoint, resume."""

import logging
from typing import Any

import torch
from torch import Tensor, nn

from octdino.config import MethodSettings, PretrainSettings
from octdino.errors import UserError
from octdino.models.backbones import num_features
from octdino.models.initial_weights import Start
from octdino.models.sync_batchnorm import has_batch_norm, sync_batch_norm
from octdino.pretrain.batch_loader import BatchLoader
from octdino.pretrain.checkpoint_schema import check_position
from octdino.pretrain.first_views import first_views
from octdino.pretrain.gradient_step import StepRollback, backward, gradient_norm
from octdino.pretrain.history import History
from octdino.pretrain.methods import method_class
from octdino.pretrain.methods.method import Method
from octdino.pretrain.online_eval import evaluate_online
from octdino.pretrain.pretraining_data import PretrainData
from octdino.pretrain.skipped_steps import SkippedSteps
from octdino.progress import progress
from octdino.tracking import RunTracking
from octdino.training.checkpoints import RunState
from octdino.training.distributed import all_true, is_rank0, world_size
from octdino.training.loss_scale import LossScale
from octdino.training.optimizers import make_optimizer, parameter_groups, set_schedule, step_if
from octdino.training.precision import (
    autocast,
    device_name,
    keep_freed_memory,
    match_compiler_to_cpu,
    pick_device,
    resolve_precision,
)
from octdino.training.random_seeds import seed_of
from octdino.training.run_monitor import RunMonitor
from octdino.training.schedules import cosine, warmup_cosine
from octdino.training.signals import Stopper
from octdino.training.throughput import Throughput

log = logging.getLogger("octdino.pretrain")

FLOP_IMAGES = 16  # images whose FLOPs are counted, before the first step


def create_method(settings: PretrainSettings, name: str, start: Start, data: PretrainData, seed: int) -> Method:
    """Build the networks of the method `name`, with settings resolved for cohort and backbone.

    Raises:
        UserError: the backbone cannot take the views, or cannot be trained by this method.
    """
    channels, size = data.images.shape[1], settings.augment.global_size
    start.check_views(settings.augment)
    torch.manual_seed(seed_of(seed, "weights"))
    first = start.backbone(channels, size)
    variant = settings.variant(name).resolved(len(data.rows)).for_backbone(has_batch_norm(first))

    def make_backbone() -> nn.Module:
        return sync_batch_norm(start.backbone(channels, size)).to(memory_format=torch.channels_last)

    method: Method = method_class(variant)(variant, make_backbone, num_features(first))
    return method


class Trainer:
    """Pretrains one backbone: networks, optimizer, data loader and position of a run.

    `position` returns everything that a checkpoint needs, `restore` sets it.

    Args:
        name: of a method or variant in `settings`.
        device: None: the GPU if there is one.
    """

    def __init__(
        self,
        settings: PretrainSettings,
        name: str,
        start: Start,
        data: PretrainData,
        seed: int,
        state: RunState,
        device: torch.device | None = None,
    ) -> None:
        self.settings, self.data, self.seed, self.state = settings, data, seed, state
        self.device = device or pick_device()
        keep_freed_memory()
        self.precision = resolve_precision(self.device, settings.precision)
        self.autocast = autocast(self.device, self.precision)
        self.loss_scale = LossScale(self.device, self.precision)
        self.method = create_method(settings, name, start, data, seed).to(self.device)
        if settings.compile:
            match_compiler_to_cpu()
            for module in [m for name, m in self.method.named_modules() if name.rpartition(".")[2] == "backbone"]:
                module.compile(dynamic=False)  # one graph per size of view
        chosen: MethodSettings = self.method.settings
        self.optimizer = make_optimizer(chosen.optimizer, parameter_groups(self.method.trained), chosen.adam_betas)
        self.rollback = StepRollback(self.method)
        self.throughput = Throughput(self.device, getattr(torch, self.precision))
        self.batches = BatchLoader(
            data,
            self.method,
            settings.augment,
            batch_size=settings.batch_size,
            epochs=settings.length,
            seed=seed,
            device=self.device,
            timer=self.throughput.timer,
        )
        self.history = History(settings)
        self.skipped = SkippedSteps(
            state.folder.with_name("skipped.csv"),
            self.batches.scan_ids,
            settings.max_skipped,
            self.batches.total_steps,
        )
        most = max(self.batches.batch_size // world_size() // 2, 1)  # batch norm needs two scans
        if settings.grad_cache_chunks > most:
            raise UserError(
                f"grad_cache_chunks: {settings.grad_cache_chunks} chunks of {self.batches.batch_size} scans per step; "
                f"expected at most {most}, so that each process has two scans per chunk"
            )
        self.step = 0
        self.earlier_lengths: list[int] = []  # epochs after which the run was finished once, and then extended
        if is_rank0() and settings.export == "best" and not data.online_eval.has_both_classes():
            raise UserError(f"export: best needs a label that is 0 and 1 among validation {data.unit.many}; use last")

    def position(self) -> dict[str, Any]:
        """Return everything that the next step depends on; all randomness is a function of seed and step."""
        self.skipped.read()
        return {
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "loss_scale": self.loss_scale.position(),
            "step": self.step,
            "sums": self.history.sums,
            "history": self.history.rows,
            "skipped": self.skipped.steps,
            "lengths": self.earlier_lengths,
            "best": self.history.best,
            "epochs": self.settings.length,
            "precision": self.precision,
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Resume from what `position` returned."""
        self.method.load_state_dict(saved["method"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.loss_scale.restore(saved.get("loss_scale", {}))
        self.step, self.skipped.steps, self.earlier_lengths = saved["step"], saved["skipped"], saved["lengths"]
        self.history.rows, self.history.best = saved["history"], saved["best"]
        self.history.sums = {key: value.to(self.device) for key, value in saved["sums"].items()}
        log.info("resumed at step %d of %d", self.step, self.batches.total_steps)
        if saved["precision"] != self.precision:
            log.warning(
                "resumed in %s after %s: the weights are those of neither precision", self.precision, saved["precision"]
            )
        if saved["epochs"] != self.settings.length:
            self.earlier_lengths = [*self.earlier_lengths, saved["epochs"]]
            log.info("extending a finished run of %d epochs", saved["epochs"])

    def train(self, stopper: Stopper, monitor: RunMonitor) -> None:
        """Train to the last step, with checkpoints; raises StoppedEarly when asked to stop.

        Args:
            monitor: shows the views before the first step, and the history after each epoch.
        """
        per_epoch = self.batches.steps_per_epoch
        if saved := self.state.load(lambda saved: check_position(saved, self), extend=self.settings.extend):
            self.restore(saved)
        elif is_rank0():
            self.skipped.file.unlink(missing_ok=True)
        if not saved:
            monitor.clear()
            monitor.show_views(lambda: first_views(self.batches, self.data, monitor.name))
        log.info(
            "%s, %d epochs of %d steps of %d scans on %s",
            self.data.counted(), self.settings.length, per_epoch, self.batches.batch_size, device_name(self.device),
        )  # fmt: skip
        with monitor.track() as trackers:
            trackers.begin(self.history.rows)
            self._train(stopper, monitor, trackers)

    def _train(self, stopper: Stopper, monitor: RunMonitor, trackers: RunTracking) -> None:
        """Train from the present step to the last one."""
        total, per_epoch = self.batches.total_steps, self.batches.steps_per_epoch
        self.method.train()
        self.count_flops()
        self.throughput.restart()
        for _ in progress(range(self.step, total), total - self.step, "pretraining", "step"):
            self.take_step()
            if self.step % per_epoch == 0:
                self.end_epoch()
                trackers.log(self.history.rows[-1])
                monitor.show_curves({monitor.name: self.history.rows}, last=self.step == total)
                self.throughput.restart()
            if reason := stopper.asked():
                monitor.show_curves({monitor.name: self.history.rows}, last=True)
                self.state.stop(self.position(), self.step, reason)
            if self.state.due() and self.step < total:
                self.state.save(self.position(), self.step)
        self.state.save(self.position(), self.step)

    def take_step(self) -> None:
        """Take the next step, without effect if its loss or gradient is not finite. Nothing here waits for a GPU."""
        progress, s = self.step / self.batches.total_steps, self.method.settings
        timer = self.throughput.timer
        self.rollback.save()
        loss, scalars = self.forward_backward()
        with timer.part("optimizer"):
            self.method.before_step(progress)
            set_schedule(
                self.optimizer,
                warmup_cosine(progress, s.peak_lr(self.batches.batch_size), s.min_lr, s.warmup),
                cosine(progress, s.weight_decay, s.weight_decay_end),
            )
            trained = [p for p in self.method.trained.parameters() if p.grad is not None]
            self.loss_scale.unscale(trained)
            norm = gradient_norm(trained)
            taken = all_true(torch.isfinite(loss + norm))
            overflow = self.loss_scale.update(loss, norm)
            if s.clip_grad is not None:
                nn.utils.clip_grads_with_norm_(trained, s.clip_grad, norm, foreach=True)
            step_if(self.optimizer, taken)
            self.optimizer.zero_grad(set_to_none=True)
        with timer.part("average"):
            self.method.after_step(progress, taken)
        self.rollback.undo_unless(taken)
        self.history.add_step({"loss": loss, **scalars}, taken)
        self.skipped.add(self.step, ~taken & ~overflow)
        self.throughput.add(self.batches.batch_size)
        self.step += 1

    def forward_backward(self, images: int | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute gradients, loss and scalars of this step's batch, without an optimizer step.

        Args:
            images: only so many of each process's images, in one chunk.
        """
        rows = self.batches.rows(self.step).view(world_size(), -1)[:, :images].flatten()
        batch = self.batches.load(self.step, rows)
        chunks = self.settings.grad_cache_chunks if images is None else 1
        seed = seed_of(self.seed, "step", self.step)
        return backward(self.method, batch, chunks, seed, self.autocast, self.loss_scale, self.throughput.timer)

    def count_flops(self) -> None:
        """Count the FLOPs per image on a few images; networks, buffers and gradients are left as they were."""
        self.rollback.save()
        self.throughput.mfu.count(
            self.forward_backward, images=min(self.batches.batch_size // world_size(), FLOP_IMAGES)
        )
        self.optimizer.zero_grad(set_to_none=True)
        self.rollback.undo_unless(torch.zeros((), dtype=torch.bool, device=self.device))

    def end_epoch(self) -> None:
        """Add the epoch's row to the history, with the online evaluation every `eval_every` epochs."""
        self.skipped.read()  # waits for the device
        speed = self.throughput.columns()
        epoch, left = self.step // self.batches.steps_per_epoch, self.batches.total_steps - self.step
        means, taken = self.history.close_epoch()
        row: dict[str, float] = {"epoch": epoch, "step": self.step, "images_seen": self.images_seen, **means}
        row |= {"lr": self.optimizer.param_groups[0]["lr"], "skipped": self.batches.steps_per_epoch - taken}
        row |= speed | self.method.end_epoch() | self.loss_scale.columns()
        if is_rank0() and (epoch % self.settings.eval_every == 0 or not left):
            given = self.data.input(self.settings.augment.global_size)
            row |= evaluate_online(self.method.exported, self.data.online_eval, given, self.settings.knn, self.device)
            self.history.keep_best(row, self.method.exported)
        self.history.add_epoch(row, left * self.batches.batch_size / speed["images_per_second"])

    @property
    def images_seen(self) -> int:
        """How many images the run has trained on, repetitions counted."""
        return self.step * self.batches.batch_size
