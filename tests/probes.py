"""Train any arm as the workflow does: arms on frozen features after the embeddings that they read."""

from pathlib import Path
from typing import Any

from octdino.classify.train_arm import classify
from octdino.config import Arm, ClassifySettings, EmbedSettings, ModelSettings
from octdino.embed.embedding_stage import embed  # only tests may join two stages


def train_arm(
    arm: str,
    settings: ClassifySettings,
    *,
    store: Path,
    backbone: str,
    model: ModelSettings,
    pretrained: Path | None,
    fold: int,
    seed: int,
    out: Path,
    **more: Any,
) -> None:
    """Embed into a folder beside `out` where the arm needs it, then classify; the arguments are those of `classify`."""
    init, mode = Arm.parse(arm)
    run: dict[str, Any] = {"store": store, "backbone": backbone, "fold": fold, "seed": seed, "model": model}
    if mode == "finetune":
        classify(arm, settings, pretrained=pretrained, out=out, **run, **more)
        return
    folder = out.with_name(f"{out.name}-embed")
    embed(init, EmbedSettings(size=settings.augment.global_size), pretrained=pretrained, out=folder, **run)
    classify(arm, settings, embeddings=folder / "embeddings.h5", out=out, **run, **more)
