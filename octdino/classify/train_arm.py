"""Train the classifier of one arm and predict validation and test patients."""

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from octdino import made_by
from octdino.classify.candidates import search_of
from octdino.classify.labeled_scans import Labeled, read_labeled
from octdino.classify.probe import train_probe
from octdino.classify.trained_classifier import TrainedClassifier, write_classifier
from octdino.config import Arm, ClassifySettings, ModelSettings, fraction_text
from octdino.config.models import published_part, starts_published
from octdino.data.schemas.metadata import Input
from octdino.errors import UserError
from octdino.models.adapters import check_adapters_installed
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
def classify(
    arm: str,
    settings: ClassifySettings,
    *,
    store: Path,
    backbone: str,
    model: ModelSettings,
    pretrained: Path | None = None,
    embeddings: Path | None = None,
    fraction: float,
    fold: int,
    seed: int,
    out: Path,
) -> None:
    """Train `arm` and write predictions.csv, classifier.safetensors and classifier.json to `out`.

    Args:
        arm: {init}-{mode}: init is scratch, imagenet, a pretraining run's name or that of an entry of `models` with
            weights; mode linear, knn, mlp or finetune.
        store: scans.h5; manifest.csv and splits.csv stand beside it.
        backbone: its name in results/; `model` is what timm makes of it, for finetune.
        pretrained: finetune: folder of the pretraining run, for every init but scratch and imagenet.
        embeddings: linear, knn and mlp: embeddings.h5 of the init, the backbone and the fold.
        fraction: share of the labeled training patients that may be seen.
        fold, seed: which patients are test; the classifier's randomness.

    Raises:
        UserError: something the user can mend.
        StoppedEarly: a signal came; a fine-tuning run's state is saved.
    """
    chosen = _checked_arm(arm, pretrained, embeddings)
    trackers = check_installed(settings.tracking) if embeddings is None else []
    if arm in settings.lora:
        check_adapters_installed()
    set_determinism(settings.deterministic)
    data = read_labeled(store, fraction, fold)
    run = {"arm": arm, "backbone": backbone, "fraction": fraction, "fold": fold, "seed": seed}
    if embeddings is not None:
        trained = train_probe(chosen, settings, data, embeddings, backbone, fold, seed)
        write_classifier(out, data, trained, _metadata(run, settings, data, trained), settings)
        return
    with _finetuned(chosen, run, settings, data, model, pretrained, out, trackers) as tuned:
        if tuned is not None:
            write_classifier(out, data, tuned, _metadata(run, settings, data, tuned), settings)


def _checked_arm(name: str, pretrained: Path | None, embeddings: Path | None) -> Arm:
    """Return the arm; fine-tuning starts from weights, all other modes from embeddings."""
    try:
        arm = Arm.parse(name)
    except ValueError as error:
        raise UserError(f"arm: {error}") from None
    if arm.mode == "finetune":
        if embeddings is not None:
            raise UserError(f"--embeddings: {name} trains its backbone; expected only --pretrained, the run's folder")
        return arm
    if world_size() > 1:
        raise UserError(f"--processes: {name} trains no network; expected 1 for all arms but -finetune")
    if embeddings is None:
        raise UserError(f"--embeddings: missing; {name} reads the features that `octdino embed {arm.init}` writes")
    if pretrained is not None:
        raise UserError(f"--pretrained: {name} reads --embeddings and no backbone; name the run to `octdino embed`")
    return arm


def _metadata(
    run: dict[str, Any], settings: ClassifySettings, data: Labeled, trained: TrainedClassifier
) -> dict[str, Any]:
    """classifier.json without thresholds and calibration."""
    train = data.manifest.iloc[data.rows("train")]
    model = ModelSettings.parse(trained.model, "model")
    published = published_part(Arm.parse(run["arm"]).init, model, trained.pretrained)
    return {
        **run,
        "exclusive": data.exclusive,
        "model": trained.model,
        "input": trained.input.plain(),
        "pretrained": trained.pretrained,
        "n_train_patients": int(train["patient"].nunique()),
        "n_train_scans": len(train),
        "settings": settings.needed(run["arm"]),
        "octdino": made_by("classify"),
        **({"published": published} if published else {}),
        **trained.details,
    }


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
    from octdino.classify.finetune_search import FinetuneSearch  # with timm, which arms on embeddings do without
    from octdino.models.initial_weights import start_backbone, start_input

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
            tensors=tuned.network.state_dict(),
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
