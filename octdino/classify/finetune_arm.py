"""A fine-tuned arm: train backbone and classifier, resuming a stopped run, and write the classifier."""

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from octdino import made_by
from octdino.classify.candidates import search_of
from octdino.classify.finetune_search import FinetuneSearch
from octdino.classify.labeled_scans import Labeled, read_labeled
from octdino.classify.trained_classifier import TrainedClassifier, write_classifier
from octdino.config import Arm, ClassifySettings, ModelSettings, fraction_text
from octdino.config.models import starts_published
from octdino.data.safetensors_torch import arrays_of
from octdino.data.schemas.metadata import Input
from octdino.models.adapters import check_adapters_installed
from octdino.models.initial_weights import start_backbone, start_input
from octdino.stats.calibration import probabilities
from octdino.tracking import Tracked, check_installed
from octdino.training.checkpoints import RunState
from octdino.training.determinism import set_determinism
from octdino.training.distributed import is_rank0, process_group, world_size
from octdino.training.learning_curves import Panel
from octdino.training.precision import resolve_precision
from octdino.training.run_monitor import RunMonitor
from octdino.training.signals import Stopper


@process_group()
def finetune_arm(
    arm: Arm,
    run: dict[str, Any],
    settings: ClassifySettings,
    *,
    store: Path,
    model: ModelSettings,
    pretrained: Path | None,
    out: Path,
) -> None:
    """Fine-tune and write predictions.csv, classifier.safetensors and classifier.json to `out`.

    Args:
        run: arm, backbone, fraction, fold and seed; the other arguments are those of `classify`.

    Raises:
        UserError, StoppedEarly: as `classify`.
    """
    trackers = check_installed(settings.tracking)
    if run["arm"] in settings.lora:
        check_adapters_installed()
    set_determinism(settings.deterministic)
    data = read_labeled(store, run["fraction"], run["fold"])
    with _finetuned(arm, run, settings, data, model, pretrained, out, trackers) as tuned:
        if tuned is not None:
            write_classifier(out, data, tuned, run, settings)


@contextmanager
def _finetuned(
    arm: Arm,
    run: dict[str, Any],
    settings: ClassifySettings,
    data: Labeled,
    model: ModelSettings,
    pretrained: Path | None,
    out: Path,
    trackers: Sequence[str],
) -> Iterator[TrainedClassifier | None]:
    """Fine-tune, resuming from the checkpoints in `out`/state, which are deleted when the block has ended well.

    Yields None in all processes but that of rank 0.
    """
    size, mean, std = start_input(arm.init, model, pretrained, settings.augment.global_size, data.mean, data.std)
    data, tuning = dataclasses.replace(data, mean=mean, std=std), settings.at_input_size(size)
    channels = data.images.shape[1]
    published = starts_published(arm.init, model, pretrained=pretrained is not None)
    network, origin = start_backbone(arm.init, model, channels, size, pretrained=pretrained, seed=run["seed"])
    fingerprint = {
        "arm": run["arm"],
        "run": [run[name] for name in ("backbone", "fraction", "fold", "seed")],
        "model": model.needed(as_init=published, as_imagenet=arm.init == "imagenet").model_dump(mode="json"),
        "settings": settings.needed(run["arm"]),
        "origin": origin,
        **({"input": [size, mean, std]} if published else {}),  # of all other arms it follows from source and settings
        "source": data.source,
        "patients": sorted(set(data.manifest["patient"].iloc[data.rows("train")])),
        "version": made_by("classify"),
    }
    with RunState(out / "state", fingerprint, settings.checkpoint_seconds).locked() as state:
        search = FinetuneSearch(
            tuning,
            data,
            network,
            pretrained=arm.init != "scratch",
            seed=run["seed"],
            adapted=run["arm"] in settings.lora,
        )
        with Stopper().listening() as stopper:
            search.run(state, stopper, _monitor(out, run, settings, data, trackers))
        if not is_rank0():  # rank 0 predicts, writes and deletes the checkpoints
            yield None
            return
        tuned = search.tuned
        adapted = {"adapter": f"LoRA, rank {settings.lora_rank}"} if run["arm"] in settings.lora else {}
        how = {**search_of(search.results), "processes": world_size()}
        yield TrainedClassifier(
            probabilities=probabilities(tuned.logits(data.rows("val", "test")), data.exclusive),
            tensors=arrays_of(tuned.network.state_dict()),
            model=fingerprint["model"],
            input=Input(image=data.image, size=size, mean=data.mean, std=data.std),
            pretrained=origin,
            details={**how, "precision": resolve_precision(tuned.device, settings.precision), **adapted},
        )
        state.discard()


def _monitor(
    out: Path, run: dict[str, Any], settings: ClassifySettings, data: Labeled, trackers: Sequence[str]
) -> RunMonitor:
    """Return what shows a fine-tuning while it trains."""
    path = f"classify/{run['arm']}/{run['backbone']}/f{fraction_text(run['fraction'])}"
    path += f"/fold{run['fold']}-seed{run['seed']}"
    config = {**run, "settings": settings.needed(run["arm"]), "octdino": made_by("classify")}
    tracked = Tracked(data.cohort.name, "classify", path, path, config, out)
    score = "validation accuracy" if data.exclusive else "validation macro AUROC"
    panels = (
        Panel("validation_score", score),
        Panel("loss", "training loss", logarithmic=True),
        Panel("lr", "learning rate"),
    )
    return RunMonitor(tracked, trackers, panels, "step")
