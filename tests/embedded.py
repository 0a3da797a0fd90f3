"""Stages that read embeddings, after the embed stage that writes them, as the workflow runs them."""

from pathlib import Path
from typing import Any

from octdino.classify.train_arm import classify
from octdino.config import Arm, ClassifySettings, EmbedSettings, ExplainSettings, ModelSettings
from octdino.embed.embedding_stage import embed  # only tests may join two stages
from octdino.explain import explain


def write_embedded(
    init: str,
    size: int,
    *,
    store: Path,
    backbone: str,
    model: ModelSettings,
    pretrained: Path | None = None,
    fold: int = 0,
    seed: int = 0,
    out: Path,
) -> Path:
    """Run the embed stage; return the path of embeddings.h5."""
    run: dict[str, Any] = {"store": store, "backbone": backbone, "model": model, "fold": fold, "seed": seed}
    embed(init, EmbedSettings(size=size), pretrained=pretrained, out=out, **run)
    return out / "embeddings.h5"


def train_arm(
    arm: str, settings: ClassifySettings, *, fraction: float, pretrained: Path | None = None, out: Path, **run: Any
) -> None:
    """Train an arm; the embeddings of arms on frozen features lie in a folder beside `out`."""
    init, mode = Arm.named(arm)
    if mode not in ("linear", "knn", "mlp"):
        classify(arm, settings, pretrained=pretrained, fraction=fraction, out=out, **run)
        return
    folder = out.with_name(f"{out.name}-embed")
    embeddings = write_embedded(init, settings.augment.global_size, pretrained=pretrained, out=folder, **run)
    classify(arm, settings, embeddings=embeddings, fraction=fraction, out=out, **run)


def explain_network(
    init: str,
    settings: ExplainSettings,
    *,
    classifiers: list[Path],
    masks_root: Path | None,
    pretrained: Path | None,
    out: Path,
    size: int = 32,
    **run: Any,
) -> None:
    """Explain a network; its embeddings lie in a folder beside `out`."""
    embeddings = write_embedded(init, size, pretrained=pretrained, out=out.with_name(f"{out.name}-embed"), **run)
    more: dict[str, Any] = {"classifiers": classifiers, "masks_root": masks_root, "pretrained": pretrained}
    run.pop("fold", None)  # maps are of fold 0
    explain(init, settings, embeddings=embeddings, out=out, **more, **run)
