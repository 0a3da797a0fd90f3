"""The protocol of the report that the project began with, so that its numbers can be told from its faults.

The score is the best of all epochs, on a random part of the test scans: test scans choose the epoch. The frozen probe
freezes a backbone that has been fine-tuned on the same labels before, and its batch norm goes on adapting. Nothing of
this is used anywhere else.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from octdino import made_by
from octdino.classify.finetune import Finetune
from octdino.classify.labeled_scans import Labelled, read_labelled
from octdino.config import Arm, ClassifySettings, ModelSettings
from octdino.data.atomic_files import replacing
from octdino.data.schemas.metadata import ReportedMetadata, write_metadata
from octdino.errors import UserError
from octdino.models.initial_weights import start_backbone
from octdino.training.checkpoint_reader import CheckpointError
from octdino.training.checkpoints import RunState
from octdino.training.determinism import ask_for_determinism
from octdino.training.random_seeds import seed_of
from octdino.training.signals import Stopper

log = logging.getLogger("octdino.classify")


class Reported(Finetune):
    """Trains for all epochs and looks at test scans after each.

    Attributes:
        curve: accuracy on the drawn test scans after each epoch.
    """

    def __init__(
        self,
        settings: ClassifySettings,
        data: Labelled,
        backbone: nn.Module,
        pretrained: bool,
        seed: int,
        *,
        test: np.ndarray,
        frozen: bool,
    ) -> None:
        super().__init__(settings, data, backbone, pretrained, seed)
        self.test = test
        self.curve: list[float] = []
        self.epochs, self.check_every = settings.reported.epochs, self.epoch_steps
        self.total = self.epochs * self.epoch_steps
        backbone.requires_grad_(not frozen)  # without gradients no step; batch norm still follows the scans

    def _done(self) -> bool:
        return False

    def _check(self) -> None:
        truth = self.data.truth[self.test].argmax(1)
        self.curve.append(float((self.logits(self.test).argmax(1) == truth).mean()))
        log.info("step %d/%d: %.4f of %d test scans", self.step, self.total, self.curve[-1], len(self.test))
        self.best = {key: value.detach().clone() for key, value in self.network.state_dict().items()}  # the last

    def position(self) -> dict[str, Any]:
        """With the curve."""
        return {**super().position(), "curve": self.curve}

    def check(self, saved: dict[str, Any]) -> None:
        """With the curve."""
        curve = saved.get("curve")
        if not isinstance(curve, list) or not all(isinstance(value, float) and 0 <= value <= 1 for value in curve):
            raise CheckpointError("curve is no list of numbers from 0 to 1")
        super().check({**saved, "curve": self.curve})
        if len(curve) != saved["step"] // self.check_every:
            raise CheckpointError(f"the curve has {len(curve)} values after step {saved['step']}")

    def restore(self, saved: dict[str, Any]) -> None:
        """With the curve."""
        super().restore(saved)
        self.curve = saved["curve"]


def reported_protocol(
    arm: str,
    settings: ClassifySettings,
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
    """Train `arm` in the report's way; write reported.csv (a row an epoch) and reported.json to `out`.

    The arguments are those of `classify`; arm is {init}-linear or {init}-finetune.

    Raises:
        UserError: something the user can mend, such as labels that do not exclude each other.
        StoppedEarly: a signal came; the state is saved.
    """
    try:
        init, mode = Arm.parse(arm, ("linear", "finetune"))
    except ValueError as error:
        raise UserError(f"arm: {error}") from None
    ask_for_determinism(settings.deterministic)
    data = read_labelled(store, fraction, fold)
    if not data.exclusive:
        raise UserError(f"{store}: its labels do not exclude each other; the report's protocol counts accuracy")
    size = settings.augment.global_size
    network, origin = start_backbone(init, model, data.images.shape[1], size, pretrained=pretrained, seed=seed)
    test = _some(data.rows("test"), settings.reported.test_share, seed)
    frozen = mode == "linear"
    tuned_before = frozen and settings.reported.contaminated
    fingerprint = {
        "arm": arm,
        "run": [backbone, fraction, fold, seed],
        "model": model.model_dump(mode="json"),
        "settings": settings.needed_reported(arm),
        "origin": origin,
        "source": data.source,
        "version": made_by("classify"),
    }
    with _states(out, fingerprint, settings) as (before, state), Stopper().listening() as stopper:
        start = init != "scratch"
        if tuned_before:
            Reported(settings, data, network, start, seed, test=test, frozen=False).run(before, stopper)
        run = Reported(settings, data, network, start, seed, test=test, frozen=frozen)
        run.run(state, stopper)
        card = {
            **{key: fingerprint[key] for key in ("arm", "model", "settings", "origin", "source")},
            **{"backbone": backbone, "fraction": fraction, "fold": fold, "seed": seed, "contaminated": tuned_before},
            **{"best": max(run.curve), "last": run.curve[-1], "epochs": len(run.curve), "n_test": len(test)},
            **{"n_train_scans": len(run.train_rows), "octdino": made_by("classify")},
        }
        curve = pd.DataFrame({"epoch": np.arange(len(run.curve)) + 1, "accuracy": run.curve})
        with replacing(out / "reported.csv") as temporary:
            curve.to_csv(temporary, index=False)
        write_metadata(out / "reported.json", ReportedMetadata.parse(card, f"{out}/reported.json"))


def _some(rows: np.ndarray, share: float, seed: int) -> np.ndarray:
    """A random share of the rows, ascending."""
    rng = np.random.default_rng(seed_of(seed, "test"))
    return np.sort(rng.choice(rows, max(1, round(share * len(rows))), replace=False))


@contextmanager
def _states(out: Path, fingerprint: dict[str, Any], settings: ClassifySettings) -> Iterator[tuple[RunState, RunState]]:
    """States of the fine-tuning that comes before and of the run itself; gone when both are finished."""
    before, state = (
        RunState(out / name, {**fingerprint, "part": name}, settings.checkpoint_seconds)
        for name in ("state-before", "state")
    )
    with before.locked(), state.locked():
        yield before, state
        before.discard()
        state.discard()
