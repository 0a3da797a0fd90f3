"""Compute the embeddings of a cohort: the features of every scan by one frozen backbone, in one HDF5 file."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from octdino import made_by
from octdino.config import ClassifySettings, EmbedSettings, ModelSettings
from octdino.config.models import starts_published
from octdino.data.cohort_reader import Cohort, read_cohort
from octdino.data.embeddings import EmbeddingAttributes, write_embeddings
from octdino.models.backbones import num_features
from octdino.models.initial_weights import start_backbone, start_input
from octdino.models.input_batches import input_batches
from octdino.models.readouts import extract_features
from octdino.progress import progress
from octdino.training.determinism import set_determinism
from octdino.training.precision import pick_device

log = logging.getLogger("octdino.embed")

READ_BYTES = 2**26  # of the images that are in memory at a time
CHUNK = 64  # images: blocks are read in multiples of the store's chunks
BATCH_PIXELS = 2**22  # of a batch; activations of a batch at 480 px take no more memory than at 128 px


def embed(
    init: str,
    settings: EmbedSettings,
    *,
    store: Path,
    backbone: str,
    model: ModelSettings,
    pretrained: Path | None,
    fold: int,
    seed: int,
    out: Path,
) -> None:
    """Write `out`/embeddings.h5: the features of every scan of the store, in manifest order.

    Scans are standardized by the mean and standard deviation of the fold's training patients; for published weights by
    those of the published network.

    Args:
        init: scratch, imagenet, a pretraining run's name, or that of an entry of `models` with weights.
        store: scans.h5; manifest.csv and splits.csv stand beside it.
        backbone: its name in results/; `model` is what timm makes of it.
        pretrained: folder of the pretraining run, for every init but scratch and imagenet.
        fold: whose training patients give mean and standard deviation.
        seed: of random weights.

    Raises:
        UserError: something the user can mend, such as a pretraining that diverged or a full disk.
    """
    set_determinism(True)
    cohort = read_cohort(store)
    channels = cohort.header.shape[1]
    published = starts_published(init, model, pretrained=pretrained is not None)
    common = settings.size or ClassifySettings().augment.global_size
    size, mean, std = start_input(init, model, pretrained, common, *cohort.statistics(fold))
    network, weights_sha256 = start_backbone(init, model, channels, size, pretrained=pretrained, seed=seed)
    attributes = EmbeddingAttributes(
        init=init,
        backbone=backbone,
        model=model.needed(as_init=published, as_imagenet=init == "imagenet").model_dump(mode="json"),
        readout=settings.readout,
        pooled=num_features(network),
        size=size,
        channels=channels,
        mean=mean,
        std=std,
        fold=fold,
        seed=seed,
        source=cohort.source,
        pretrained=weights_sha256,
        settings=settings.model_dump(mode="json"),
        octdino=made_by("embed"),
    )
    blocks = feature_blocks(network, cohort, attributes)
    path = out / "embeddings.h5"
    write_embeddings(path, cohort.manifest["scan_id"].tolist(), blocks, attributes)
    log.info("%s: features of %d scans, %s of %s at %d px", path, len(cohort), settings.readout, model.timm, size)


def feature_blocks(network: nn.Module, cohort: Cohort, attributes: EmbeddingAttributes) -> Iterator[np.ndarray]:
    """Yield the features float32 [n, D] of all scans, block by block; memory is bounded by `READ_BYTES` of images."""
    device = pick_device()
    network = network.to(device).to(memory_format=torch.channels_last)
    block = max(CHUNK, READ_BYTES // int(np.prod(cohort.header.shape[1:])) // CHUNK * CHUNK)
    batch = max(1, min(256, BATCH_PIXELS // attributes.size**2))
    starts = range(0, len(cohort), block)
    for start in progress(starts, len(starts), f"embedding {len(cohort)} scans", "block"):
        images = torch.from_numpy(cohort.images(np.arange(start, min(start + block, len(cohort)))))
        inputs = input_batches(images, attributes.mean, attributes.std, attributes.size, device, batch=batch)
        yield extract_features(network, inputs, attributes.readout).numpy()
