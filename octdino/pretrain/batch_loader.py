"""Data loader of pretraining: the batch of each step, loaded and augmented on the device that trains."""

import functools

import torch
from torch import Tensor

from octdino.augment import Augment
from octdino.config import AugmentSettings
from octdino.pretrain.methods.method import Batch, Method
from octdino.pretrain.pretraining_data import PretrainData, batch_order
from octdino.training.device_loader import DeviceLoader
from octdino.training.distributed import local_slice, shared_batch
from octdino.training.random_seeds import seed_of
from octdino.training.throughput import StepTimer


class BatchLoader:
    """Batches as a function of the run's seed, the step and each scan, whatever the number of processes.

    Args:
        data: the run's scans.
        method: says which views, targets and samples a batch has.
        batch_size: of all processes together.
        epochs: length of the run.
        seed: of the run.
        timer: times data loading and augmentation.

    Attributes:
        batch_size: as wanted, or smaller on a cohort of fewer scans.
        steps_per_epoch, total_steps: of the run.
    """

    def __init__(
        self,
        data: PretrainData,
        method: Method,
        augment: AugmentSettings,
        *,
        batch_size: int,
        epochs: int,
        seed: int,
        device: torch.device,
        timer: StepTimer,
    ) -> None:
        count = len(data.rows)  # the run's scans, not this process's share
        self.batch_size = shared_batch(batch_size, count)
        self.steps_per_epoch = count // self.batch_size
        self.total_steps = self.steps_per_epoch * epochs
        self.views = method.views(augment)
        self._data, self._method, self._seed, self._device, self._timer = data, method, seed, device, timer
        self._local = local_slice(self.batch_size)
        self._augment = Augment(augment, data.mean, data.std, device)
        self._targets = method.targets(data.manifest).to(device)
        self._partners = data.partners
        self._images = DeviceLoader(data.images, device)
        self._order = functools.lru_cache(2)(functools.partial(batch_order, count, self.batch_size, seed))

    def rows(self, step: int) -> Tensor:
        """Return the training scans of a step, int64 [batch]."""
        epoch, index = divmod(step, self.steps_per_epoch)
        order: Tensor = self._order(epoch)
        return order[index]

    def scan_ids(self, step: int) -> list[str]:
        """Return the scan ids of a step."""
        ids: list[str] = self._data.manifest["scan_id"].iloc[self.rows(step).numpy()].tolist()
        return ids

    def load(self, step: int, rows: Tensor | None = None) -> Batch:
        """Return the batch of a step: views of this process's scans, targets and samples of all processes' scans.

        Args:
            rows: training scans to take instead of the step's own.
        """
        rows = self.rows(step) if rows is None else rows
        local = local_slice(len(rows))
        seed = seed_of(self._seed, "views", step)
        with self._timer.part("data"):
            following = None
            if step + 1 < self.total_steps:
                following = self._data.rows[self._with_partners(self.rows(step + 1)[self._local], step + 1)]
            shown = self._with_partners(rows[local], step)
            images = self._images.take(self._data.rows[shown], prefetch=following)
            rows, shown = (each.to(self._device, non_blocking=True) for each in (rows, shown))
        with self._timer.part("augmentation"):
            views = self._views(images, shown, seed)
        return Batch(
            views=views,
            sampled=self._method.sample(len(rows), torch.Generator().manual_seed(seed)),
            targets=self._targets[rows],
            progress=step / self.total_steps,
        )

    def _with_partners(self, rows: Tensor, step: int) -> Tensor:
        """Return the rows and, where the method compares visits, after them those of their partners in this step."""
        if self._partners is None:
            return rows
        return torch.cat([rows, self._partners.choose(rows, seed_of(self._seed, "views", step))])

    def _views(self, images: Tensor, rows: Tensor, seed: int) -> list[Tensor]:
        """Return the views of scans and, if their partners follow them, with the second large view of these.

        A partner's view is that which it would have as a scan of this step.
        """
        if self._partners is None:
            made = self._augment(images, self.views, seed, rows)
            return [view.view(-1, len(images), *view.shape[1:]) for view in made]
        count = len(rows) // 2
        made = self._augment(images[:count], self.views, seed, rows[:count])
        views = [view.view(-1, count, *view.shape[1:]) for view in made]
        other = self._augment(images[count:], self.views[:1], seed, rows[count:])[0]
        views[0][1] = other.view_as(views[0])[1]
        return views

    def occurrences(self, row: int, count: int) -> list[tuple[int, int]]:
        """Return the first `count` steps that train on a scan of this process, each with its position in the batch.

        There are fewer in a run of fewer epochs: a last incomplete batch of an epoch is dropped.
        """
        found: list[tuple[int, int]] = []
        for epoch in range(self.total_steps // self.steps_per_epoch):
            for index, position in (self._order(epoch) == row).nonzero().tolist():
                found.append((epoch * self.steps_per_epoch + index, position))
            if len(found) >= count:
                break
        return found[:count]

    def views_of(self, step: int, row: int, position: int) -> tuple[list[Tensor], Tensor | None]:
        """Return what the network gets of one scan in a step, computed apart from the step's batch.

        Args:
            row: a training scan that this process holds.
            position: of the scan in the step's batch.

        Returns:
            Per kind of view [V, C, S, S], as in `load`; and the hidden patches of the large views, bool [V, rows,
            columns], None where the method hides none.
        """
        seed = seed_of(self._seed, "views", step)
        shown = self._with_partners(torch.tensor([row]), step)
        images = self._data.images[self._data.rows[shown]].to(self._device)
        views = [view[:, 0] for view in self._views(images, shown.to(self._device), seed)]
        sampled = self._method.sample(self.batch_size, torch.Generator().manual_seed(seed))
        hidden = self._method.hidden_patches(sampled)
        return views, None if hidden is None else hidden[:, position]
