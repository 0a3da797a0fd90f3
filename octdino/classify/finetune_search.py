"""Fine-tune with every candidate of learning rate and length; validation patients choose one."""

import copy
import logging
import math
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from octdino.classify.candidates import Result, score_of
from octdino.classify.finetune import Finetune, check_history, schedule_of
from octdino.classify.first_views import first_views
from octdino.classify.labeled_scans import Labeled
from octdino.classify.linear import Head, fit_linear
from octdino.config import ClassifySettings
from octdino.errors import UserError
from octdino.models.input_batches import input_batches
from octdino.models.readouts import extract_features
from octdino.progress import progress
from octdino.tracking import RunTracking
from octdino.training.checkpoint_reader import CheckpointError, check_form
from octdino.training.checkpoints import RunState
from octdino.training.distributed import broadcast_from_rank0
from octdino.training.precision import pick_device, resolve_precision
from octdino.training.run_monitor import RunMonitor
from octdino.training.signals import Stopper

log = logging.getLogger("octdino.classify")


class FinetuneSearch:
    """Trainings from the same first weights, one per candidate, each with the same order of scans.

    Args:
        backbone: the first weights.
        pretrained: whether they are pretrained: then the linear probe on them is the first head where
            `settings.first_head` is "linear" (LP-FT, Kumar et al. 2022).
        adapted: whether low-rank adapters of the backbone are trained; they are merged at the end of `run`.

    Attributes:
        tuned: the training in progress; after `run` its network is that of the chosen candidate.
    """

    def __init__(
        self,
        settings: ClassifySettings,
        data: Labeled,
        backbone: nn.Module,
        pretrained: bool,
        seed: int,
        adapted: bool = False,
    ) -> None:
        self.settings, self.data, self.seed, self.adapted = settings, data, seed, adapted
        self.backbone, self.pretrained = backbone, pretrained
        self.candidates = settings.candidates()
        self.head = _linear_head(settings, data, backbone) if pretrained and settings.first_head == "linear" else None
        self.steps = 0
        self.results: list[Result] = []  # of the finished candidates
        self.histories: list[list[dict[str, float]]] = []  # of the same
        self.best: dict[str, Tensor] = {}
        self.tuned = self._training(0)

    def run(self, state: RunState, stopper: Stopper, monitor: RunMonitor) -> None:
        """Train all candidates, or the rest of them after a stop; leave the best network in `tuned`.

        Args:
            monitor: shows the views before the first step, and the histories.

        Raises:
            UserError: all candidates diverged.
            StoppedEarly: a signal came; the state is saved.
        """
        scans, count = len(self.data.rows("train")), len(self.candidates)
        total = sum(schedule_of(self.settings, each, scans).total for each in self.candidates)
        if saved := state.load(self.check):
            self.restore(saved)
        else:
            monitor.clear()
            monitor.show_views(lambda: first_views(self.tuned, self.data, monitor.name))
        log.info("%d labeled scans, %d candidates, up to %d steps", scans, count, total)
        with monitor.track() as trackers:
            training = self._train(monitor, trackers)
            for _ in progress(training, total - self.steps, "fine-tuning", "step"):
                if reason := stopper.asked():
                    monitor.show_curves(self._lines(), last=True)
                    state.stop(self.position(), self.steps, reason)
                if state.due():
                    state.save(self.position(), self.steps)
        if not self.best:
            raise UserError("classify.lr: the network's outputs are not finite: it diverged; expected lower candidates")
        self.tuned.network.load_state_dict(self.best)
        self.tuned.merge()

    def position(self) -> dict[str, Any]:
        """Return the checkpoint: all that the next step depends on."""
        return {
            "training": self.tuned.position(),
            "results": self.results,
            "histories": self.histories,
            "best": self.best,
            "steps": self.steps,
            "precision": self._precision(),
        }

    def check(self, saved: dict[str, Any]) -> None:
        """Check that this search can be restored from `saved`; nothing is changed.

        Raises:
            CheckpointError: a key is missing, a value has another type or shape, or it is of other candidates.
        """
        present = self.position()
        loose = {"training": None, "results": None, "histories": None, "best": None}
        check_form({**saved, **loose}, {**present, **loose}, "checkpoint")
        for key, kind in (("training", dict), ("results", list), ("histories", list), ("best", dict)):
            if not isinstance(saved.get(key), kind):
                raise CheckpointError(f"{key} is no {kind.__name__}")
        results = saved["results"]
        if len(results) >= len(self.candidates):
            raise CheckpointError(f"{len(results)} results of {len(self.candidates)} candidates")
        if len(saved["histories"]) != len(results):
            raise CheckpointError(f"{len(saved['histories'])} histories of {len(results)} finished candidates")
        for history in saved["histories"]:
            check_history(history)
        for result, candidate in zip(results, self.candidates, strict=False):
            expected = {**candidate._asdict(), "validation_score": 0.0, "best_step": 0}
            if isinstance(result, dict) and result.get("validation_score", 0) is None:
                expected["validation_score"] = None
            check_form(result, expected, "results")
        if saved["best"]:
            check_form(saved["best"], present["training"]["network"], "best")
        self._training(len(results)).check(saved["training"])

    def restore(self, saved: dict[str, Any]) -> None:
        """Restore the position of a checkpoint."""
        self.results, self.best, self.steps = saved["results"], saved["best"], saved["steps"]
        self.histories = saved["histories"]
        self.tuned = self._training(len(self.results))
        self.tuned.restore(saved["training"])
        log.info("resumed at step %d of candidate %d", self.tuned.step, len(self.results) + 1)
        if (now := self._precision()) != saved["precision"]:
            log.warning("resumed in %s after %s: the weights are of neither", now, saved["precision"])

    def _precision(self) -> str:
        return resolve_precision(pick_device(), self.settings.precision)

    def _training(self, index: int) -> Finetune:
        candidate = self.candidates[index]
        schedule = schedule_of(self.settings, candidate, len(self.data.rows("train")))
        return Finetune(
            self.settings, self.data, copy.deepcopy(self.backbone), lr=candidate.lr, schedule=schedule,
            pretrained=self.pretrained, head=self.head, seed=self.seed, adapted=self.adapted,
        )  # fmt: skip

    def _train(self, monitor: RunMonitor, trackers: RunTracking) -> Iterator[None]:
        """Yield after each step of each candidate."""
        for candidate, history in zip(self.candidates, self.histories, strict=False):  # of an earlier process
            trackers.begin(history, series=candidate.series, ended=True)
        while len(self.results) < len(self.candidates):
            trackers.begin(self.tuned.history, series=self.candidates[len(self.results)].series)
            while not self.tuned.done:
                known = len(self.tuned.history)
                self.tuned.train_step()
                self.steps += 1
                if len(self.tuned.history) > known:
                    trackers.log(self.tuned.history[-1])
                    monitor.show_curves(self._lines(), last=self.tuned.done)
                yield
            self._finish_candidate()
            if len(self.results) < len(self.candidates):
                self.tuned = self._training(len(self.results))

    def _lines(self) -> dict[str, Sequence[dict[str, float]]]:
        """Return the histories by candidate, that of the present one last."""
        histories = [*self.histories, self.tuned.history][: len(self.candidates)]
        return {each.series: rows for each, rows in zip(self.candidates, histories, strict=False)}

    def _finish_candidate(self) -> None:
        candidate, tuned = self.candidates[len(self.results)], self.tuned
        score = None if tuned.diverged else tuned.best_score
        result = {**candidate._asdict(), "validation_score": score, "best_step": tuned.best_step}
        if score_of(result) > max(map(score_of, self.results), default=-math.inf):
            self.best = tuned.best
        self.results.append(result)
        self.histories.append(tuned.history)
        told = "diverged" if score is None else f"{score:.4f} on validation patients at step {tuned.best_step}"
        log.info("candidate %d of %d, %s: %s", len(self.results), len(self.candidates), candidate, told)


def _linear_head(settings: ClassifySettings, data: Labeled, backbone: nn.Module) -> Head:
    """Return the linear probe on the backbone's pooled features, without augmentation; the same in all processes."""
    device, size = pick_device(), settings.augment.global_size
    backbone.to(device)

    def fitted() -> Head:
        train, val = data.rows("train"), data.rows("val")
        features = [
            extract_features(
                backbone, input_batches(data.images, data.mean, data.std, size, device, rows)
            ).double().numpy()
            for rows in (train, val)
        ]  # fmt: skip
        head, _ = fit_linear(
            features[0], data.truth[train], features[1], data.truth[val], settings, exclusive=data.exclusive
        )
        return head

    return broadcast_from_rank0(fitted)
