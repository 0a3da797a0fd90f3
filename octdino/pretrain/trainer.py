"""The loop, read top to bottom. It knows no method by name."""

import functools
import logging
import math
import time
from typing import Any

import torch
from torch import Tensor, nn

from octdino.augment import Augment
from octdino.config import PretrainSettings
from octdino.data.schemas.metadata import BackboneSpec, Input
from octdino.errors import UserError
from octdino.models.backbones import num_features
from octdino.models.initial_weights import Start
from octdino.models.sync_batchnorm import has_batch_norm, synchronised
from octdino.pretrain.checkpoint_schema import check_position
from octdino.pretrain.collapse import alarms
from octdino.pretrain.gradient_step import Guard, backward, gradient_norm
from octdino.pretrain.methods import method_class
from octdino.pretrain.methods.method import Batch, Method
from octdino.pretrain.online_eval import watch
from octdino.pretrain.pretraining_data import Data, batch_order
from octdino.pretrain.skipped_steps import SkippedSteps
from octdino.pretrain.tensorboard import clear_board, summary_writer, write_board
from octdino.progress import duration, progress
from octdino.training.checkpoints import RunState
from octdino.training.device_loader import DeviceLoader
from octdino.training.distributed import all_true, is_rank0, local_slice, shared_batch, world_size
from octdino.training.optimizers import make_optimizer, parameter_groups, set_schedule, step_if
from octdino.training.precision import autocast, keep_freed_memory, pick_device, resolve_precision
from octdino.training.random_seeds import seed_of
from octdino.training.schedules import cosine, warmup_cosine
from octdino.training.signals import Stopper
from octdino.training.throughput import Stopwatch, Utilisation

log = logging.getLogger("octdino.pretrain")

COUNTED = 16  # images whose arithmetic is counted, before the first step


class Run:
    """One run's networks, optimiser and position. `position` and `restore` are the whole of it."""

    def __init__(
        self, settings: PretrainSettings, name: str, start: Start, data: Data, seed: int, state: RunState
    ) -> None:
        self.settings, self.data, self.seed, self.state = settings, data, seed, state
        self.device = pick_device()
        keep_freed_memory()
        self.variant = settings.variant(name).resolved(len(data.rows))  # the run's scans, not this process's share
        channels, size = data.images.shape[1], settings.augment.global_size
        start.check_views(settings.augment)
        torch.manual_seed(seed_of(seed, "weights"))
        first = start.backbone(channels, size)
        dim = num_features(first)
        self.variant = self.variant.for_backbone(has_batch_norm(first))
        self.spec = BackboneSpec(timm=start.model.timm, args=start.model.args, in_chans=channels, size=size)
        self.input = Input(image=data.image, size=size, mean=data.mean, std=data.std)

        def make_backbone() -> nn.Module:
            return synchronised(start.backbone(channels, size)).to(memory_format=torch.channels_last)

        self.method: Method = method_class(self.variant)(self.variant, make_backbone, dim)
        self.method.to(self.device)
        if settings.compile:
            for module in [m for name, m in self.method.named_modules() if name.rpartition(".")[2] == "backbone"]:
                module.compile(dynamic=False)  # a graph a size of view
        self.optimizer = make_optimizer(self.variant.optimizer, parameter_groups(self.method.trained))
        self.guard = Guard(self.method)
        self.augment = Augment(settings.augment, data.mean, data.std, self.device)
        self.views = self.method.views(settings.augment)
        self.targets = self.method.targets(data.manifest).to(self.device)
        self.feed = DeviceLoader(data.images, self.device)
        self.batch = shared_batch(settings.batch_size, len(data.rows))
        self.own = local_slice(self.batch)
        self.steps = len(data.rows) // self.batch  # an epoch
        self.total = self.steps * settings.epochs
        self.order = functools.lru_cache(2)(functools.partial(batch_order, len(data.rows), self.batch, seed))
        self.clock = Stopwatch(self.device)
        self.precision = resolve_precision(self.device, settings.precision)
        self.autocast = autocast(self.device, self.precision)
        self.use = Utilisation(self.device, getattr(torch, self.precision))
        self.board = state.folder.with_name("tensorboard")
        self.step = 0
        self.sums: dict[str, Tensor] = {}  # on the device, of this epoch's scalars so far
        self.history: list[dict[str, float]] = []
        self.skipped = SkippedSteps(
            state.folder.with_name("skipped.csv"), self.scans_of, settings.max_skipped, self.total
        )
        self.lengths: list[int] = []  # epochs after which the run was finished once, and extended
        self.best: dict[str, Any] = {}  # score, epoch and weights, if the best are to be exported
        if is_rank0() and settings.export == "best" and not data.watch.can_choose():
            raise UserError("export: best needs a label that validation patients have and lack; use last")
        if settings.tensorboard:
            summary_writer()

    def position(self) -> dict[str, Any]:
        """Everything that the next step depends on. Randomness is a function of seed and step, so it is not here."""
        self.skipped.read()
        return {
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "sums": self.sums,
            "history": self.history,
            "skipped": self.skipped.steps,
            "lengths": self.lengths,
            "best": self.best,
            "epochs": self.settings.epochs,
            "precision": self.precision,
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Take up a saved position."""
        self.method.load_state_dict(saved["method"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.step, self.history, self.skipped.steps = saved["step"], saved["history"], saved["skipped"]
        self.lengths, self.best = saved["lengths"], saved["best"]
        self.sums = {key: value.to(self.device) for key, value in saved["sums"].items()}
        log.info("resumed at step %d of %d", self.step, self.total)
        if saved["precision"] != self.precision:
            log.warning("resumed in %s after %s: the weights are of neither", self.precision, saved["precision"])
        if saved["epochs"] != self.settings.epochs:
            self.lengths = [*self.lengths, saved["epochs"]]
            log.info("going on from the end of a run of %d epochs", saved["epochs"])

    def train(self, stopper: Stopper) -> None:
        """Step to the end, saving now and then; raises StoppedEarly when asked to stop."""
        if saved := self.state.load(lambda saved: check_position(saved, self), extend=self.settings.extend):
            self.restore(saved)
        elif is_rank0():
            clear_board(self.board)
            self.skipped.file.unlink(missing_ok=True)
        log.info(
            "%d scans of %d patients, %d epochs of %d steps of %d scans on %s",
            len(self.data.rows), self.data.manifest["patient"].nunique(), self.settings.epochs, self.steps, self.batch,
            self.device_name(),
        )  # fmt: skip
        self.method.train()
        self.count_arithmetic()
        since, began = self.step, time.monotonic()
        for _ in progress(range(self.step, self.total), self.total - self.step, "pretraining", "step"):
            self.take_step()
            if self.step % self.steps == 0:
                self.skipped.read()  # waits for the device
                images, seconds = (self.step - since) * self.batch, time.monotonic() - began
                self.end_epoch(images / seconds, {name: s / seconds for name, s in self.clock.read().items()})
                since, began = self.step, time.monotonic()
            if reason := stopper.asked():
                self.state.stop(self.position(), self.step, reason)
            if self.state.due() and self.step < self.total:
                self.state.save(self.position(), self.step)
        self.state.save(self.position(), self.step)

    def rows(self, step: int) -> Tensor:
        """The scans of a step, int64 [batch]."""
        epoch, index = divmod(step, self.steps)
        order: Tensor = self.order(epoch)
        return order[index]

    def scans_of(self, step: int) -> list[str]:
        """The scan ids of a step."""
        names: list[str] = self.data.manifest["scan_id"].iloc[self.rows(step).numpy()].tolist()
        return names

    def take_step(self) -> None:
        """The next step; it changes nothing if its loss or gradient is not finite. Nothing here waits for a GPU."""
        progress, v = self.step / self.total, self.variant
        self.guard.remember()
        loss, scalars = self.one_backward()
        with self.clock.part("optimizer"):
            self.method.before_step(progress)
            set_schedule(
                self.optimizer,
                warmup_cosine(progress, v.peak_lr(self.batch), v.min_lr, v.warmup),
                cosine(progress, v.weight_decay, v.weight_decay_end),
            )
            gradients = [p for p in self.method.trained.parameters() if p.grad is not None]
            norm = gradient_norm(gradients)
            taken = all_true(torch.isfinite(loss + norm))
            if v.clip_grad is not None:
                nn.utils.clip_grads_with_norm_(gradients, v.clip_grad, norm, foreach=True)
            step_if(self.optimizer, taken)
            self.optimizer.zero_grad(set_to_none=True)
        with self.clock.part("average"):
            self.method.after_step(progress, taken)
        self.guard.take_back_unless(taken)
        for key, value in {"loss": loss, **scalars, "taken": torch.ones_like(loss)}.items():
            self.sums[key] = self.sums.get(key, 0) + torch.where(taken, value.double(), 0)
        self.skipped.add(self.step, ~taken)
        self.step += 1

    def one_backward(self, images: int | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Gradients, loss and scalars of this step's scans, or of each process's first few `images` as one part."""
        batch = self.make_batch(self.rows(self.step).view(world_size(), -1)[:, :images].flatten())
        seed = seed_of(self.seed, "step", self.step)
        parts = self.settings.grad_cache_chunks if images is None else 1
        return backward(self.method, batch, parts, seed, self.autocast, self.clock)

    def count_arithmetic(self) -> None:
        """What one image costs, from a step on a few that leaves no trace."""
        self.guard.remember()
        self.use.count(self.one_backward, images=min(self.batch // world_size(), COUNTED))
        self.optimizer.zero_grad(set_to_none=True)
        self.guard.take_back_unless(torch.zeros((), dtype=torch.bool, device=self.device))
        self.clock.read()

    def make_batch(self, rows: Tensor) -> Batch:
        """The views of the scans `rows`, a function of the seed, the step and each scan."""
        seed = seed_of(self.seed, "views", self.step)
        with self.clock.part("data"):
            following = self.data.rows[self.rows(self.step + 1)[self.own]] if self.step + 1 < self.total else None
            mine = rows[local_slice(len(rows))]
            images = self.feed.take(self.data.rows[mine], following)
            here = rows.to(self.device, non_blocking=True)
        with self.clock.part("augmentation"):
            views = self.augment(images, self.views, seed, here[local_slice(len(rows))])
        return Batch(
            views=[view.view(-1, len(mine), *view.shape[1:]) for view in views],
            drawn=self.method.draw(len(rows), torch.Generator().manual_seed(seed)),
            targets=self.targets[here],
            progress=self.step / self.total,
        )

    def end_epoch(self, rate: float, shares: dict[str, float]) -> None:
        """Add the epoch's row to the history; one plain line says how it goes.

        Args:
            rate: images a second.
            shares: of the epoch's time, by part of a step.
        """
        epoch = self.step // self.steps
        row: dict[str, float] = {"epoch": epoch, "step": self.step, "images_seen": self.step * self.batch}
        taken = self.sums.pop("taken", torch.zeros(())).item()
        row |= {key: value.item() / taken if taken else math.nan for key, value in self.sums.items()}
        row |= {"lr": self.optimizer.param_groups[0]["lr"], "skipped": self.steps - taken}
        used = self.use.at(rate / world_size())
        row |= {"images_per_second": rate, "utilisation": used, "data_wait": shares.get("data", 0.0)}
        row |= {"augmentation": shares.get("augmentation", 0.0), **self.method.end_epoch()}
        self.sums = {}
        if is_rank0() and (epoch % self.settings.eval_every == 0 or self.step == self.total):
            row |= watch(self.method.exported, self.data.watch, self.input, self.settings.knn, self.device)
            self.keep_best(row)
        self.history.append(row)
        shown = ("loss", "knn_accuracy", "knn_auroc", "teacher_entropy", "feature_std")
        log.info(
            "epoch %d/%d %s %.0f img/s, data wait %.1f %%, augmentation %.1f %%, %.0f %% of the machine, %s left",
            epoch, self.settings.epochs, " ".join(f"{key} {row[key]:.4g}" for key in shown if key in row), rate,
            100 * row["data_wait"], 100 * row["augmentation"], 100 * row["utilisation"],
            duration((self.total - self.step) * self.batch / rate),
        )  # fmt: skip
        before = alarms(self.history[:-1], self.settings.epochs)
        for alarm in alarms(self.history, self.settings.epochs):
            if alarm not in before:
                log.warning("%s", alarm)
        if self.settings.tensorboard and is_rank0():
            write_board(self.board, self.history)

    def keep_best(self, row: dict[str, float]) -> None:
        """Remember the weights that neighbours among validation patients like best, if they are to be exported."""
        score = row.get("knn_accuracy", row.get("knn_auroc", float("-inf")))
        if self.settings.export == "best" and score > self.best.get("score", float("-inf")):
            weights = {key: value.detach().clone() for key, value in self.method.exported.state_dict().items()}
            self.best = {"score": score, "epoch": int(row["epoch"]), "weights": weights}

    def export(self) -> int:
        """Bring the weights that are handed on into `method.exported`; the epoch that they are of."""
        if self.settings.export == "last":
            return self.settings.epochs
        if not self.best:
            raise UserError("export: best: the online kNN had no finite score at any epoch; use last")
        self.method.exported.load_state_dict(self.best["weights"])
        epoch: int = self.best["epoch"]
        return epoch

    def device_name(self) -> str:
        """What the run was trained on."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return f"CPU, {torch.get_num_threads()} thread(s)"
