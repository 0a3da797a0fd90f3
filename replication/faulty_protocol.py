"""The report's faulty training protocol, to tell how much of its numbers its faults explain.

The score is the best of all epochs on a random part of the test scans, so test scans select the epoch. The frozen probe
freezes a backbone that has been fine-tuned on the same labels before, and its batch norm keeps adapting. Nothing else
reads what is written here but the table of quoted numbers.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from octdino import made_by
from octdino.classify.finetune import Finetune, schedule_of
from octdino.classify.labeled_scans import Labeled, read_labeled
from octdino.config import Arm, ClassifySettings, ModelSettings
from octdino.config.classify import Candidate
from octdino.data.atomic_files import replacing
from octdino.errors import UserError
from octdino.models.initial_weights import start_backbone
from octdino.progress import progress
from octdino.training.checkpoint_reader import CheckpointError
from octdino.training.checkpoints import RunState
from octdino.training.determinism import set_determinism
from octdino.training.random_seeds import seed_of
from octdino.training.signals import Stopper
from replication.settings import ProtocolSettings

log = logging.getLogger("replication")


class FaultyProtocol(Finetune):
    """Fine-tuning for all epochs, scored on test scans after each.

    Attributes:
        curve: accuracy on the sampled test scans after each epoch.
    """

    def __init__(
        self,
        settings: ClassifySettings,
        epochs: int,
        data: Labeled,
        backbone: nn.Module,
        pretrained: bool,
        seed: int,
        *,
        test: np.ndarray,
        frozen: bool,
    ) -> None:
        lr = settings.lr[0]
        schedule = schedule_of(settings, Candidate(lr, min_steps=1), len(data.rows("train")))
        schedule = schedule._replace(total=epochs * schedule.epoch)
        super().__init__(settings, data, backbone, lr=lr, schedule=schedule, pretrained=pretrained, seed=seed)
        self.test = test
        self.curve: list[float] = []
        backbone.requires_grad_(not frozen)  # without gradients no step; batch norm still follows the scans

    def run(self, state: RunState, stopper: Stopper) -> None:
        """Train for all epochs, or the rest of them after a stop.

        Raises:
            StoppedEarly: a signal arrived; the state is saved.
        """
        if saved := state.load(self.check):
            self.restore(saved)
            log.info("resumed at step %d of %d", self.step, self.schedule.total)
        for _ in progress(range(self.step, self.schedule.total), self.schedule.total - self.step, "training", "step"):
            self.train_step()
            if reason := stopper.asked():
                state.stop(self.position(), self.step, reason)
            if state.due():
                state.save(self.position(), self.step)

    def _validate(self) -> None:
        truth = self.data.truth[self.test].argmax(1)
        self.curve.append(float((self.logits(self.test).argmax(1) == truth).mean()))
        log.info("step %d/%d: %.4f of %d test scans", self.step, self.schedule.total, self.curve[-1], len(self.test))
        self.best = {key: value.detach().clone() for key, value in self.network.state_dict().items()}  # the last

    def position(self) -> dict[str, Any]:
        """Return the state of the run with the curve."""
        return {**super().position(), "curve": self.curve}

    def check(self, saved: dict[str, Any]) -> None:
        """Check that this run can be restored from `saved`, curve included.

        Raises:
            CheckpointError: it cannot.
        """
        curve = saved.get("curve")
        if not isinstance(curve, list) or not all(isinstance(value, float) and 0 <= value <= 1 for value in curve):
            raise CheckpointError("curve is no list of numbers from 0 to 1")
        super().check({**saved, "curve": self.curve})
        if len(curve) != saved["step"] // self.schedule.check:
            raise CheckpointError(f"the curve has {len(curve)} values after step {saved['step']}")

    def restore(self, saved: dict[str, Any]) -> None:
        """Restore a saved position and its curve."""
        super().restore(saved)
        self.curve = saved["curve"]


def faulty_protocol(
    arm: str,
    settings: ClassifySettings,
    protocol: ProtocolSettings,
    *,
    store: Path,
    backbone: str,
    model: ModelSettings,
    pretrained: Path | None,
    fraction: float,
    fold: int,
    seed: int,
    out: Path,
) -> None:
    """Train `arm` with the report's protocol; write protocol.csv (one row per epoch) and protocol.json to `out`.

    The other arguments are those of `octdino.classify.train_arm.classify`; arm is {init}-linear or {init}-finetune.

    Raises:
        UserError: a mistake of the user, such as labels that do not exclude each other.
        StoppedEarly: a signal arrived; the state is saved.
    """
    try:
        init, mode = Arm.parse(arm, ("linear", "finetune"))
    except ValueError as error:
        raise UserError(f"arm: {error}") from None
    set_determinism(settings.deterministic)
    data = read_labeled(store, fraction, fold)
    if not data.exclusive:
        raise UserError(f"{store}: its labels do not exclude each other; the report's protocol counts accuracy")
    size = settings.augment.global_size
    network, origin = start_backbone(init, model, data.images.shape[1], size, pretrained=pretrained, seed=seed)
    test = sample_rows(data.rows("test"), protocol.test_share, seed)
    frozen = mode == "linear"
    tuned_before = frozen and protocol.contaminated
    fingerprint = {
        "arm": arm,
        "run": [backbone, fraction, fold, seed],
        "model": model.model_dump(mode="json"),
        "settings": protocol.needed(arm, settings),
        "origin": origin,
        "source": data.source,
        "version": made_by("classify"),
    }
    with _states(out, fingerprint, settings) as (before, state), Stopper().listening() as stopper:
        start = init != "scratch"
        if tuned_before:
            FaultyProtocol(settings, protocol.epochs, data, network, start, seed, test=test, frozen=False).run(
                before, stopper
            )
        run = FaultyProtocol(settings, protocol.epochs, data, network, start, seed, test=test, frozen=frozen)
        run.run(state, stopper)
        metadata = {
            **{key: fingerprint[key] for key in ("arm", "model", "settings", "origin", "source")},
            **{"backbone": backbone, "fraction": fraction, "fold": fold, "seed": seed, "contaminated": tuned_before},
            **{"best": max(run.curve), "last": run.curve[-1], "epochs": len(run.curve), "n_test": len(test)},
            **{"n_train_scans": len(run.train_rows), "octdino": made_by("classify")},
        }
        curve = pd.DataFrame({"epoch": np.arange(len(run.curve)) + 1, "accuracy": run.curve})
        with replacing(out / "protocol.csv") as temporary:
            curve.to_csv(temporary, index=False)
        with replacing(out / "protocol.json") as temporary:
            temporary.write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")


def sample_rows(rows: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Return a random share of the rows, ascending."""
    rng = np.random.default_rng(seed_of(seed, "test"))
    return np.sort(rng.choice(rows, max(1, round(share * len(rows))), replace=False))


@contextmanager
def _states(out: Path, fingerprint: dict[str, Any], settings: ClassifySettings) -> Iterator[tuple[RunState, RunState]]:
    """Yield the states of the preceding fine-tuning and of the run itself; they are removed when both have finished."""
    before, state = (
        RunState(out / name, {**fingerprint, "part": name}, settings.checkpoint_seconds)
        for name in ("state-before", "state")
    )
    with before.locked(), state.locked():
        yield before, state
        before.discard()
        state.discard()
