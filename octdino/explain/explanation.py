"""Explain one network: maps and masks, their overlap with ground truth, neighbors; tables, figures and metadata."""

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from octdino import made_by
from octdino.config import ExplainSettings, ModelSettings
from octdino.config.models import starts_published
from octdino.data.csv_io import write_table
from octdino.data.embeddings import read_embeddings
from octdino.data.safetensors_torch import write_tensors
from octdino.data.schemas.column import Schema
from octdino.data.schemas.csv_schemas import EMBEDDING, JACCARD, JACCARD_IMAGES, OVERLAP, RETRIEVAL
from octdino.data.schemas.metadata import ExplainMetadata, write_metadata
from octdino.errors import UserError
from octdino.explain.classifier import Classifier, input_size, read_classifier
from octdino.explain.explained_scans import Scans, Shown, read_shown
from octdino.explain.figure_writer import FigureWriter
from octdino.explain.jaccard import jaccard
from octdino.explain.overlap import measure
from octdino.explain.regions import Maps
from octdino.explain.retrieval import nearest, precision, same_patient
from octdino.explain.scan_projection import project
from octdino.explain.summary import summarize
from octdino.models.initial_weights import start_backbone
from octdino.models.input_batches import input_batches
from octdino.models.saliency import attention, attention_query, has_attention, label_maps, last_map, whole_patches
from octdino.training.precision import pick_device

log = logging.getLogger("octdino.explain")

BATCH = 16
BLOBS = ("kept", "removed")
Rows = list[dict[str, Any]]


def explain(
    init: str,
    settings: ExplainSettings,
    *,
    store: Path,
    backbone: str,
    model: ModelSettings,
    pretrained: Path | None,
    embeddings: Path,
    classifiers: list[Path],
    masks_root: Path | None,
    seed: int,
    out: Path,
) -> None:
    """Write tables, figures (PNG), maps.safetensors and explain.json to `out`.

    Args:
        init: scratch, imagenet, a pretraining run's name, or that of an entry of `models` with weights.
        store: scans.h5; manifest.csv stands beside it.
        backbone: its name in results/; `model` is what timm makes of it.
        pretrained: folder of the pretraining run, for every init but scratch and imagenet.
        embeddings: embeddings.h5 of these weights in fold 0, for retrieval and the map of scans.
        classifiers: folders of arms that start here, linear or fine-tuned; each gives one map per label.
        masks_root: the cohort's root, below which the manifest's masks lie; None: no ground truth to compare maps with.
        seed: of random weights.

    Raises:
        UserError: something the user can mend.
    """
    shown = read_shown(store, settings, masks_root)
    embedded = read_embeddings(embeddings, shown.cohort, shown.gallery_rows)
    embedded.check_run(init, backbone, fold=0)
    images = shown.scans.images
    size = settings.size or input_size(classifiers) or min(images.shape[2:])
    if starts_published(init, model, pretrained=pretrained is not None):
        used = embedded.attributes
        size, shown = settings.size or used.size, dataclasses.replace(shown, mean=used.mean, std=used.std)
    network, weights_sha256 = start_backbone(init, model, images.shape[1], size, pretrained=pretrained, seed=seed)
    if weights_sha256 != embedded.attributes.pretrained:
        raise UserError(f"{embeddings}: features of other weights than those of --pretrained or --model.weights")
    network = network.to(pick_device()).eval()
    classified = [read_classifier(folder, init, network) for folder in classifiers]
    run = {"init": init, "backbone": backbone}
    out.mkdir(parents=True, exist_ok=True)
    figures = FigureWriter(out, settings, shown)
    overlap: Rows = []
    jaccard_rows: Rows = []
    jaccard_images: Rows = []
    maps, maps_of = _free_maps(network, shown, size)
    if maps is not None:
        figures.plot_maps(maps, maps_of)
        overlap += _overlap(maps.maximum(), shown, settings)
        jaccard_rows, jaccard_images = _jaccard(maps, shown, settings)
    label_maps_of: dict[str, Tensor] = {}
    for classifier in classified:
        if (maps := _label_maps(classifier, shown)) is not None:
            figures.plot_label_maps(maps, classifier.arm)
            label_maps_of[classifier.arm] = small_maps(maps)
            overlap += [{"arm": classifier.arm, **row} for row in _overlap(maps, shown, settings)]
    features = torch.from_numpy(embedded.pooled)
    retrieval = _retrieval(features, shown, settings, figures)
    write_table(out / "embedding.csv", _projection(features, shown, figures), EMBEDDING)
    write_tensors(out / "maps.safetensors", label_maps_of)
    for name, schema, rows in (
        ("overlap", OVERLAP, overlap), ("jaccard", JACCARD, jaccard_rows), ("jaccard_images", JACCARD_IMAGES,
        jaccard_images), ("retrieval", RETRIEVAL, retrieval),
    ):  # fmt: skip
        _table(out / f"{name}.csv", schema, [{**run, **row} for row in rows])
    metadata = {
        **run, "seed": seed, "size": size, "maps": maps_of, "arms": [each.arm for each in classified],
        "split": settings.split, "n_scans": len(shown.scans), "n_patients": len(set(shown.scans.patient)),
        "n_bank": len(shown.gallery), "labels": shown.labels, "scan_ids": shown.scans.scan_id.tolist(),
        "figures": figures.written, "settings": settings.needed(), "octdino": made_by("explain"),
    }  # fmt: skip
    write_metadata(out / "explain.json", ExplainMetadata.parse(metadata, f"{out}/explain.json"))
    patients = f" of {metadata['n_patients']} patients" if shown.unit.patients else ""
    log.info("%d scans%s, maps: %s", metadata["n_scans"], patients, maps_of or "none")


def _table(path: Path, schema: Schema, rows: Rows) -> None:
    table = pd.DataFrame(rows) if rows else pd.DataFrame(columns=schema.names)
    write_table(path, table, schema)


@torch.no_grad()
def _batched(scans: Scans, size: int, mean: list[float], std: list[float], maps: Callable[[Tensor], Tensor]) -> Tensor:
    """Return `maps` of the scans' inputs [B, C, size, size], batch by batch, on the CPU."""
    batches = input_batches(scans.images, mean, std, size, pick_device(), batch=BATCH)
    return torch.cat([maps(batch).cpu() for batch in batches])


def _free_maps(network: nn.Module, shown: Shown, size: int) -> tuple[Maps | None, str]:
    """Return maps without a classifier, and what they are: a ViT's attention, or length of a CNN's last features."""
    size = whole_patches(network, size)
    frame = (shown.scans.images.shape[2], shown.scans.images.shape[3])
    if has_attention(network):
        found = _batched(shown.scans, size, shown.mean, shown.std, lambda batch: attention(network, batch))
        return Maps("attention", found, frame, smooth=False), f"attention of the last block, {attention_query(network)}"

    def strength(batch: Tensor) -> Tensor:
        features = last_map(network, batch)
        return torch.zeros(len(batch), 0, 1, 1) if features is None else features.norm(dim=1, keepdim=True)

    found = _batched(shown.scans, size, shown.mean, shown.std, strength)
    if not found.shape[1]:
        log.warning("a %s has no map that could be shown", type(network).__name__)
        return None, ""
    return Maps("activation", found, frame, smooth=True), "length of the last feature map's vectors"


def _label_maps(one: Classifier, shown: Shown) -> Maps | None:
    names = set()

    def see(batch: Tensor) -> Tensor:
        found = label_maps(one.backbone, batch, one.weight.to(batch.device), one.bias.to(batch.device), one.readout)
        if found is None:
            return torch.zeros(len(batch), 0, 1, 1)
        names.add(found[1])
        return found[0]

    found = _batched(shown.scans, one.size, one.mean, one.std, see)
    if not names:
        return None
    frame = (shown.scans.images.shape[2], shown.scans.images.shape[3])
    order = [one.labels.index(label) for label in shown.labels]
    own = found[:, order]
    # From its lowest value: a rare label's bias alone would leave nothing above 0, and MONAI shows maps in this way.
    return Maps(names.pop(), own - own.amin((2, 3), keepdim=True), frame, smooth=True)


def _overlap(maps: Maps, shown: Shown, settings: ExplainSettings) -> Rows:
    """Rows of overlap.csv."""
    if shown.masks is None or not shown.masks.labels:
        return []
    values, chance = measure(maps, shown.masks, settings.attention_masses)
    return [
        {"map": maps.name, "metric": metric, **row}
        for metric in values
        for row in summarize(values[metric], shown.scans.patient, shown.labels, settings, chance[metric])
    ]


def _jaccard(maps: Maps, shown: Shown, settings: ExplainSettings) -> tuple[Rows, Rows]:
    """Rows of jaccard.csv and of jaccard_images.csv."""
    if shown.masks is None:
        return [], []
    joined, single = [], []
    for blobs, share in zip(BLOBS, (0.0, settings.min_blob), strict=True):
        values, objects = jaccard(maps, shown.masks, settings.attention_mass, share)
        for protocol, value in values.items():
            if shown.masks.bits and protocol.endswith("_void"):  # there is no void
                continue
            known = np.isfinite(value)
            counted = objects if protocol == "paper" else known.astype(int)
            names = {"map": maps.name, "protocol": protocol, "blobs": blobs}
            rows = summarize(value[:, None], shown.scans.patient, ["all"], settings, None)
            joined += [{**names, **row, "n_images": row["n_scans"], "n_objects": counted[known].sum()} for row in rows]
            single += [
                {**names, "scan_id": shown.scans.scan_id[row], "value": value[row], "n_objects": counted[row]}
                for row in np.flatnonzero(known)
            ]
    return joined, single


def small_maps(maps: Maps) -> Tensor:
    """Maps as the network gives them, each scaled to its highest value: uint8 [N, L, h, w]."""
    highest = maps.native.amax((2, 3), keepdim=True).clamp(min=1e-12)
    return (255 * maps.native.clamp(min=0) / highest).round().to(torch.uint8).contiguous()


def _projection(features: Tensor, shown: Shown, figures: FigureWriter) -> pd.DataFrame:
    """embedding.csv, and the figure of it: the scans as points of a plane."""
    scans = shown.scans
    points, how = project(features[shown.places].double().numpy(), seed=0)
    figures.plot_projection(points, how)
    return pd.DataFrame({"scan_id": scans.scan_id, "x": points[:, 0], "y": points[:, 1], "how": how})


def _retrieval(features: Tensor, shown: Shown, settings: ExplainSettings, figures: FigureWriter) -> Rows:
    """Rows of retrieval.csv.

    Args:
        features: of the gallery, [len(gallery), D].
    """
    queries, gallery = shown.scans, shown.gallery
    places, patient = torch.from_numpy(shown.places), torch.from_numpy(gallery.patient)
    same = patient[places][:, None] == patient[None, :]
    itself = places[:, None] == torch.arange(len(gallery))[None, :]
    labeled = torch.from_numpy(np.isfinite(gallery.truth).any(axis=1))
    excluded = ~labeled if labeled.any() else torch.zeros_like(labeled)  # scans without a label are no neighbors
    most = max(*settings.neighbors, 5)
    others = nearest(features[places], features, same | excluded, most).numpy()
    any_patient = nearest(features[places], features, itself, most).numpy()
    figures.plot_neighbors(others)
    found: Rows = []
    for k in settings.neighbors:
        if shown.labels:
            values = precision(others, queries.truth, gallery.truth, k)
            chance = np.where(np.isfinite(values), np.nanmean(gallery.truth, axis=0), np.nan)
            rows = summarize(values, queries.patient, shown.labels, settings, chance)
            found += [{"metric": f"precision@{k}", **row} for row in rows]
        shares = same_patient(any_patient, queries.patient, gallery.patient, k)[:, None]
        found += [
            {"metric": f"same_patient@{k}", **row, "label": ""}
            for row in summarize(shares, queries.patient, ["all"], settings, None)
        ]
    return found
