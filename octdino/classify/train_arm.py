"""Train the classifier of one arm and predict validation and test patients."""

from pathlib import Path

from octdino.classify.labeled_scans import read_labeled
from octdino.classify.probe import train_probe
from octdino.classify.trained_classifier import write_classifier
from octdino.config import Arm, ClassifySettings, ModelSettings
from octdino.errors import UserError
from octdino.training.launcher import processes


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
    run = {"arm": arm, "backbone": backbone, "fraction": fraction, "fold": fold, "seed": seed}
    if embeddings is None:
        from octdino.classify.finetune_arm import finetune_arm  # with torch and timm: seconds that linear, knn lack

        finetune_arm(chosen, run, settings, store=store, model=model, pretrained=pretrained, out=out)
        return
    data = read_labeled(store, fraction, fold)
    trained = train_probe(chosen, settings, data, embeddings, backbone, fold, seed)
    write_classifier(out, data, trained, run, settings)


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
    if processes() > 1:
        raise UserError(f"--processes: {name} trains no network; expected 1 for all arms but -finetune")
    if embeddings is None:
        raise UserError(f"--embeddings: missing; {name} reads the features that `octdino embed {arm.init}` writes")
    if pretrained is not None:
        raise UserError(f"--pretrained: {name} reads --embeddings and no backbone; name the run to `octdino embed`")
    return arm
