"""Pretrain one backbone with one method: from a store to weights, their card and their history."""

import functools
from pathlib import Path

import pandas as pd
import torch

from octdino import made_by
from octdino.config import ModelSettings, PretrainSettings
from octdino.data.atomic_files import replacing
from octdino.models import save_backbone
from octdino.models.initial_weights import Start
from octdino.pretrain.collapse import alarms
from octdino.pretrain.pretraining_data import held_rows, read_data
from octdino.pretrain.trainer import Run
from octdino.training.checkpoints import RunState
from octdino.training.determinism import ask_for_determinism
from octdino.training.distributed import is_rank0, process_group, world_size
from octdino.training.signals import Stopper


@process_group()
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
    bit where an undisturbed one ends, on one kind of CPU with the same precision and number of threads. The state of a
    finished run stays there: with more epochs and `settings.extend` the run goes on from it.

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
    ask_for_determinism(settings.deterministic)
    data = read_data(
        store, fold, settings.online_eval_max_scans, functools.partial(held_rows, settings.batch_size, seed)
    )
    cohort = str(data.manifest["cohort"].iloc[0])
    start = Start(settings.variant(name), model, backbone, fold, seed)
    start.check_cohort(cohort, data.kind, data.source)
    needed = settings.needed(name)
    fingerprint = {
        "settings": {key: value for key, value in needed.items() if key != "epochs"},
        "model": model.model_dump(mode="json"),
        "run": [backbone, fold, seed],
        "start": start.origin,
        "source": data.source,
        "version": made_by("pretrain"),
    }
    state = RunState(
        out / "state",
        fingerprint,
        settings.checkpoint_seconds,
        keep=settings.keep_checkpoints,
        length=settings.epochs,
    )
    with state.locked():
        run = Run(settings, name, start, data, seed, state)
        with Stopper(max_minutes).listening() as stopper:
            run.train(stopper)
        if not is_rank0():
            return
        card = {
            **{"name": name, "backbone": backbone, "fold": fold, "seed": seed},
            **{"cohort": cohort, "kind": data.kind, "source": data.source},
            "scope": "all" if fold is None else "train_patients",
            "start": start.origin,
            "input": run.input.plain(),
            "images_seen": run.step * run.batch,
            "skipped_steps": len(run.skipped.steps),
            "epochs": [*run.lengths, settings.epochs],
            "exported_epoch": run.export(),
            "scans": len(data.manifest),
            "patients": int(data.manifest["patient"].nunique()),
            "alarms": alarms(run.history, settings.epochs),
            "device": run.device_name(),
            "precision": run.precision,
            "processes": world_size(),
            "octdino": made_by("pretrain"),
            "torch": torch.__version__,
            "settings": needed,
            "method": run.variant.model_dump(mode="json"),
        }
        with replacing(out / "history.csv") as temporary:
            pd.DataFrame(run.history).to_csv(temporary, index=False)
        save_backbone(out, run.method.exported, run.spec, card)
        state.finish()
