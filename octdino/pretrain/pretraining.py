"""The pretrain stage: one backbone pretrained with one method, from a store to weights, metadata and history."""

import copy
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from octdino import made_by
from octdino.config import ModelSettings, PretrainSettings
from octdino.data.atomic_files import replacing
from octdino.data.schemas.metadata import BackboneSpec
from octdino.models.backbones import save_backbone
from octdino.models.initial_weights import Start
from octdino.pretrain.collapse import collapse_warnings
from octdino.pretrain.eye_visits import visit_partners
from octdino.pretrain.pretraining_data import held_rows, read_data
from octdino.pretrain.reconstruction import reconstruction_sheet
from octdino.pretrain.trainer import Trainer
from octdino.tracking import Tracked, check_installed
from octdino.training.checkpoints import RunState
from octdino.training.determinism import set_determinism
from octdino.training.distributed import is_rank0, process_group, world_size
from octdino.training.learning_curves import Panel
from octdino.training.precision import device_name
from octdino.training.run_monitor import RunMonitor
from octdino.training.signals import Stopper

PANELS = (  # of curves.svg, as in the report's figures of training
    Panel("loss", "loss", logarithmic=True),
    Panel("lr", "learning rate"),
    Panel("knn_accuracy", "kNN accuracy, validation"),
    Panel("knn_auroc", "kNN macro AUROC, validation"),
    Panel("feature_std", "feature spread (towards 0: collapse)"),
    Panel("rankme", "RankMe, effective rank of the features"),
    Panel("teacher_entropy", "teacher entropy / ln K (0 or 1: collapse)", per="ln_k", share=True),
    Panel("kl", "KL teacher to student (0 early: collapse)"),
    Panel("mean_entropy", "entropy of the mean / ln K (low: collapse)", per="ln_k", share=True),
    Panel("prototypes_used", "share of prototypes used", share=True),
)


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

    Resumes from the checkpoint in `out`/state if its fingerprint matches settings and scans; a killed and resumed run
    is bit-identical to an uninterrupted one, on one kind of CPU with the same precision and number of threads. The last
    checkpoint of a finished run is kept: with more epochs and `settings.extend` the run is extended from it.

    Args:
        name: a method, or one of `settings.variants`.
        store: scans.h5, with manifest.csv and splits.csv in the same folder.
        backbone: its name in results/; `model` is its timm model.
        fold: train on the training patients of this fold; None: on every scan (scope `all`).
        seed: of every random choice.
        max_minutes: save and stop after this time.

    Raises:
        UserError: a mistake that the user can correct.
        StoppedEarly: stopped by a signal or the time limit; a checkpoint is saved.
    """
    trackers = check_installed(settings.tracking)
    set_determinism(settings.deterministic)
    variant = settings.variant(name)
    data = read_data(
        store, fold, settings.online_eval_max_scans, functools.partial(held_rows, settings.batch_size, seed),
        functools.partial(visit_partners, variant),
    )  # fmt: skip
    start = Start(variant, model, backbone, fold, seed)
    start.check_cohort(data.title, data.kind, data.source)
    settings = settings.at_size(len(data.rows))
    needed = settings.needed(name)
    fingerprint = {
        "settings": {key: value for key, value in needed.items() if key != "epochs"},
        "model": model.needed(as_start=variant.starts_from_file(backbone)).model_dump(mode="json"),
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
        length=settings.length,
    )
    run = {"name": name, "backbone": backbone, "fold": fold, "seed": seed, "start": start.origin}
    config = {**run, "settings": needed, "model": fingerprint["model"], "octdino": made_by("pretrain")}
    with state.locked():
        trainer = Trainer(settings, name, start, data, seed, state)
        monitor = run_monitor(out, data.title, trackers, config)
        with Stopper(max_minutes).listening() as stopper:
            trainer.train(stopper, monitor)
        if not is_rank0():
            return
        write_outputs(out, trainer, model, {**run, "settings": needed})
        size = settings.augment.global_size
        monitor.show_reconstruction(
            lambda: reconstruction_sheet(trainer.method, data, size, seed, trainer.device, monitor.name)
        )
        state.finish()


def run_monitor(out: Path, project: str, trackers: Sequence[str], config: dict[str, Any]) -> RunMonitor:
    """Return what shows a run while it trains.

    Args:
        project: name of the cohort, for trackers.
        config: what identifies the run, and its settings: plain values, for trackers.
    """
    group = f"pretrain/{config['name']}/{config['backbone']}"
    fold = "all" if config["fold"] is None else config["fold"]
    path = f"{group}/fold{fold}-seed{config['seed']}"
    run = Tracked(project, "pretrain", path, group, config, out)
    return RunMonitor(run, trackers, PANELS, "epoch")


def write_outputs(out: Path, trainer: Trainer, model: ModelSettings, run: dict[str, Any]) -> None:
    """Write backbone.safetensors, backbone.json and history.csv of a finished run; its networks stay as they are.

    Args:
        run: plain values that identify the run, for backbone.json.
    """
    data, settings, history = trainer.data, trainer.settings, trainer.history
    size = settings.augment.global_size
    exported = copy.deepcopy(trainer.method.exported)  # the best epoch's weights do not fit the last epoch's decoder
    metadata = {
        **run,
        **{"cohort": data.title, "kind": data.kind, "source": data.source},
        "scope": "all" if run["fold"] is None else "train_patients",
        "input": data.input(size).plain(),
        "images_seen": trainer.images_seen,
        "skipped_steps": len(trainer.skipped.steps),
        "epochs": [*trainer.earlier_lengths, settings.length],
        "exported_epoch": history.load_export(exported),
        "scans": len(data.manifest),
        "patients": int(data.manifest["patient"].nunique()),
        "alarms": collapse_warnings(history.rows, settings.length),
        "device": device_name(trainer.device),
        "precision": trainer.precision,
        "processes": world_size(),
        "octdino": made_by("pretrain"),
        "torch": torch.__version__,
        "method": trainer.method.settings.model_dump(mode="json"),
    }
    with replacing(out / "history.csv") as temporary:
        pd.DataFrame(history.rows).to_csv(temporary, index=False)
    spec = BackboneSpec(timm=model.timm, args=model.args, in_chans=data.images.shape[1], size=size)
    save_backbone(out, exported, spec, metadata)
