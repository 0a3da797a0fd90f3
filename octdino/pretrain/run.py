"""Pretrain one backbone with one method: the loop, read top to bottom. It knows no method by name."""

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from octdino import __version__
from octdino.augment import Augment, resize, standardise
from octdino.config import ModelSettings, PretrainSettings
from octdino.models import BackboneSpec, create_backbone, save_backbone
from octdino.models.backbones import extract_features, num_features
from octdino.pretrain import monitor
from octdino.pretrain.data import Data, Watch, batch_order, read_data
from octdino.pretrain.methods import method_class
from octdino.pretrain.methods.base import Method
from octdino.progress import progress
from octdino.tables import replacing
from octdino.training import (
    RunState,
    Stopper,
    autocast,
    cosine,
    parameter_groups,
    pick_device,
    resident,
    seed_of,
    set_schedule,
    warmup_cosine,
)

log = logging.getLogger("octdino.pretrain")


def pretrain(
    name: str,
    settings: PretrainSettings,
    *,
    store: Path,
    backbone: str,
    model: ModelSettings,
    fold: int | None,
    seed: int,
    out: Path,
    max_minutes: float | None = None,
) -> None:
    """Pretrain a backbone with the method `name`: backbone.safetensors, backbone.json and history.csv in `out`.

    Resumes from `out`/state if that belongs to the same settings and scans; a killed and restarted run ends bit for
    bit where an undisturbed one ends.

    Args:
        name: a method, or one of `settings.variants`.
        store: scans.h5; manifest.csv and splits.csv stand beside it.
        backbone: its name in results/; `model` is what timm makes of it.
        fold: whose training patients are seen; None: every scan (scope `all`).
        seed: every random choice descends from it.
        max_minutes: stop and save after so long.

    Raises:
        UserError: something the user can mend.
        StoppedEarly: a signal or the time limit came; the state is saved.
    """
    data = read_data(store, fold)
    fingerprint = {
        "settings": settings.needed(name),
        "model": model.model_dump(mode="json"),
        "run": [backbone, fold, seed],
        "source": data.source,
        "version": __version__,
    }
    with RunState(out / "state", fingerprint, settings.checkpoint_seconds).locked() as state:
        run = Run(settings, name, model, data, seed, state)
        with Stopper(max_minutes).listening() as stopper:
            run.train(stopper)
        card = {
            "name": name,
            "backbone": backbone,
            "fold": fold,
            "seed": seed,
            "scope": "all" if fold is None else "train_patients",
            "images_seen": run.step * run.batch,
            "scans": len(data.manifest),
            "patients": int(data.manifest["patient"].nunique()),
            "device": run.device_name(),
            "octdino": __version__,
            "torch": torch.__version__,
            "settings": fingerprint["settings"],
        }
        with replacing(out / "history.csv") as temporary:
            pd.DataFrame(run.history).to_csv(temporary, index=False)
        save_backbone(out, run.method.exported, run.spec, card)
        state.discard()


class Run:
    """One run's networks, optimiser and position. `position` and `restore` are the whole of it."""

    def __init__(
        self, settings: PretrainSettings, name: str, model: ModelSettings, data: Data, seed: int, state: RunState
    ) -> None:
        self.settings, self.data, self.seed, self.state = settings, data, seed, state
        self.device = pick_device()
        self.variant = settings.variant(name)
        channels, size = data.images.shape[1], settings.augment.global_size
        torch.manual_seed(seed_of(seed, "weights"))
        probe = create_backbone(model, channels, size)
        self.spec = BackboneSpec(
            timm=model.timm, args=model.args, in_chans=channels, size=size, mean=data.mean, std=data.std
        )

        def make_backbone() -> nn.Module:
            return create_backbone(model, channels, size).to(memory_format=torch.channels_last)

        self.method: Method = method_class(self.variant)(self.variant, make_backbone, num_features(probe))
        self.method.to(self.device)
        kinds = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
        extra: dict[str, Any] = {"momentum": 0.9} if self.variant.optimizer == "sgd" else {}
        self.optimizer = kinds[self.variant.optimizer](parameter_groups(self.method.trained), lr=0.0, **extra)
        self.augment = Augment(settings.augment, data.mean, data.std)
        self.views = self.method.views(settings.augment)
        self.targets = self.method.targets(data.manifest)
        self.images = resident(data.images, self.device)
        self.batch = min(settings.batch_size, len(data.images))
        self.steps = len(data.images) // self.batch  # an epoch
        self.total = self.steps * settings.epochs
        self.step = 0
        self.sums: dict[str, Tensor] = {}  # on the device, of this epoch's scalars so far
        self.history: list[dict[str, float]] = []

    def position(self) -> dict[str, Any]:
        """Everything that the next step depends on. Randomness is a function of seed and step, so it is not here."""
        return {
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "sums": self.sums,
            "history": self.history,
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Take up a saved position."""
        self.method.load_state_dict(saved["method"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.step, self.history = saved["step"], saved["history"]
        self.sums = {key: value.to(self.device) for key, value in saved["sums"].items()}
        log.info("resumed at step %d of %d", self.step, self.total)

    def train(self, stopper: Stopper) -> None:
        """Step to the end, saving now and then; raises StoppedEarly when asked to stop."""
        if saved := self.state.load():
            self.restore(saved)
        log.info(
            "%d scans of %d patients, %d epochs of %d steps of %d scans on %s",
            len(self.images), self.data.manifest["patient"].nunique(), self.settings.epochs, self.steps, self.batch,
            self.device_name(),
        )  # fmt: skip
        self.method.train()
        order, began = None, time.monotonic()
        since = self.step
        for _ in progress(range(self.step, self.total), self.total - self.step, "pretraining", "step"):
            epoch, index = divmod(self.step, self.steps)
            if order is None or index == 0:
                order = batch_order(len(self.images), self.batch, self.seed, epoch)
            self.take_step(order[index])
            if index == self.steps - 1:
                rate = (self.step - since) * self.batch / (time.monotonic() - began)
                self.end_epoch(epoch, rate)
                since, began = self.step, time.monotonic()
            if reason := stopper.asked():
                self.state.stop(self.position(), reason)
            if self.state.due() and self.step < self.total:
                self.state.save(self.position())

    def take_step(self, rows: Tensor) -> None:
        """One step on the scans `rows`."""
        progress = self.step / self.total
        torch.manual_seed(seed_of(self.seed, "step", self.step))  # dropout and drop path
        generator = torch.Generator(self.device).manual_seed(seed_of(self.seed, "views", self.step))
        batch = self.images[rows.to(self.images.device)].to(self.device, non_blocking=True)
        views = self.augment(batch, self.views, generator)
        views = [view.contiguous(memory_format=torch.channels_last) for view in views]
        with autocast(self.device, self.settings.precision):
            loss, scalars = self.method.loss(views, self.targets[rows].to(self.device), progress)
        torch.autograd.backward(loss)
        self.method.before_step(progress)
        v = self.variant
        scale = self.batch / 256
        set_schedule(
            self.optimizer,
            warmup_cosine(progress, v.lr * scale, v.min_lr, v.warmup),
            cosine(progress, v.weight_decay, v.weight_decay_end),
        )
        if v.clip_grad is not None:
            parameters = [p for p in self.method.trained.parameters() if p.grad is not None]
            nn.utils.clip_grad_norm_(parameters, v.clip_grad, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.method.after_step(progress)
        for key, value in {"loss": loss.detach(), **scalars}.items():
            self.sums[key] = self.sums.get(key, 0) + value.double()
        self.step += 1

    def end_epoch(self, epoch: int, rate: float) -> None:
        """Add the epoch's row to the history; one plain line says how it goes."""
        row: dict[str, float] = {"epoch": epoch + 1, "step": self.step, "images_seen": self.step * self.batch}
        row |= {key: value.item() / self.steps for key, value in self.sums.items()}
        row |= {"lr": self.optimizer.param_groups[0]["lr"], "images_per_second": rate, **self.method.end_epoch()}
        self.sums = {}
        if (epoch + 1) % self.settings.eval_every == 0 or self.step == self.total:
            row |= watch(self.method.exported, self.data.watch, self.spec, self.settings.knn, self.device)
        self.history.append(row)
        left = (self.total - self.step) * self.batch / rate
        told = " ".join(
            f"{k} {row[k]:.4g}" for k in ("loss", "knn_auroc", "teacher_entropy", "feature_std") if k in row
        )
        log.info(
            "epoch %d/%d %s %.0f img/s, %.1f min left", epoch + 1, self.settings.epochs, told, rate, left / 60
        )  # fmt: skip

    def device_name(self) -> str:
        """What the run was trained on."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return f"CPU, {torch.get_num_threads()} thread(s)"


def watch(backbone: nn.Module, scans: Watch, spec: BackboneSpec, k: int, device: torch.device) -> dict[str, float]:
    """kNN macro AUROC on validation patients, and the spread of the features."""
    mean, std = (torch.tensor(x, device=device) for x in (spec.mean, spec.std))
    batches = (resize(standardise(b.to(device), mean, std), spec.size) for b in torch.split(scans.images, 256))
    features = extract_features(backbone, batches)
    found = {"feature_std": monitor.feature_spread(features), "rankme": monitor.rank_me(features)}
    query = torch.from_numpy(scans.is_query)
    if query.any() and (~query).any():
        bank = torch.from_numpy(scans.labels)[~query]
        scores = monitor.knn_scores(
            features[query], features[~query], bank, scans.patients[query], scans.patients[~query], k=k
        )
        found["knn_auroc"] = monitor.macro_auroc(scans.labels[scans.is_query], scores.numpy())
    return {key: value for key, value in found.items() if np.isfinite(value)}
