"""Explain one network: maps and masks, their overlap with the truth, neighbours; tables, figures and a card."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from octdino import made_by
from octdino.augment import resize, standardize
from octdino.config import ExplainSettings, ModelSettings
from octdino.data.csv_io import write_table
from octdino.data.safetensors_torch import write_tensors
from octdino.data.schemas.column import Schema
from octdino.data.schemas.csv_schemas import EMBEDDING, JACCARD, JACCARD_IMAGES, OVERLAP, RETRIEVAL
from octdino.data.schemas.metadata import ExplainMetadata, write_metadata
from octdino.explain.classifier import Classifier, input_size, read_classifier
from octdino.explain.draw import Figures
from octdino.explain.embedding import project
from octdino.explain.explained_scans import Scans, Shown, read_shown
from octdino.explain.jaccard import jaccard
from octdino.explain.maps import attention, attention_query, has_attention, label_maps, last_map, whole_patches
from octdino.explain.overlap import measure
from octdino.explain.regions import Maps
from octdino.explain.retrieval import nearest, precision, same_patient
from octdino.explain.summary import summarise
from octdino.models.backbones import extract_features
from octdino.models.initial_weights import start_backbone
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
    classifiers: list[Path],
    masks_root: Path | None,
    seed: int,
    out: Path,
) -> None:
    """Write tables, figures (PNG), maps.safetensors and explain.json to `out`.

    Args:
        init: scratch, imagenet or a pretraining run's name.
        store: scans.h5; manifest.csv stands beside it.
        backbone: its name in results/; `model` is what timm makes of it.
        pretrained: folder of the pretraining run, for every init but scratch and imagenet.
        classifiers: folders of arms that start here, linear or fine-tuned; each gives a map a label.
        masks_root: the cohort's root, below which the manifest's masks lie; None: no truth to compare maps with.
        seed: of random weights.

    Raises:
        UserError: something the user can mend.
    """
    shown = read_shown(store, settings, masks_root)
    images = shown.scans.images
    size = settings.size or input_size(classifiers) or min(images.shape[2:])
    network, _ = start_backbone(init, model, images.shape[1], size, pretrained=pretrained, seed=seed)
    network = network.to(pick_device()).eval()
    classified = [read_classifier(folder, init, network) for folder in classifiers]
    own = {"init": init, "backbone": backbone}
    out.mkdir(parents=True, exist_ok=True)
    figures = Figures(out, settings, shown)
    overlap: Rows = []
    joined: Rows = []
    single: Rows = []
    found, what = _free_maps(network, shown, size)
    if found is not None:
        figures.maps(found, what)
        overlap += _overlap(found.maximum(), shown, settings)
        joined, single = _jaccard(found, shown, settings)
    seen: dict[str, Tensor] = {}
    for one in classified:
        if (maps := _label_maps(one, shown)) is not None:
            figures.labels(maps, one.arm)
            seen[one.arm] = small_maps(maps)
            overlap += [{"arm": one.arm, **row} for row in _overlap(maps, shown, settings)]
    features = _features(network, shown, size)
    neighbours = _retrieval(features, shown, settings, figures)
    table = _embedding(features, shown, figures)
    write_table(out / "embedding.csv", table, EMBEDDING)
    write_tensors(out / "maps.safetensors", seen)
    for name, schema, rows in (
        ("overlap", OVERLAP, overlap), ("jaccard", JACCARD, joined), ("jaccard_images", JACCARD_IMAGES, single),
        ("retrieval", RETRIEVAL, neighbours),
    ):  # fmt: skip
        _table(out / f"{name}.csv", schema, [{**own, **row} for row in rows])
    card = {
        **own, "seed": seed, "size": size, "maps": what, "arms": [one.arm for one in classified],
        "split": settings.split, "n_scans": len(shown.scans), "n_patients": len(set(shown.scans.patient)),
        "n_bank": len(shown.bank), "labels": shown.labels, "scan_ids": shown.scans.scan_id.tolist(),
        "figures": figures.written, "settings": settings.needed(), "octdino": made_by("explain"),
    }  # fmt: skip
    write_metadata(out / "explain.json", ExplainMetadata.parse(card, f"{out}/explain.json"))
    patients = f" of {card['n_patients']} patients" if shown.unit.patients else ""
    log.info("%d scans%s, maps: %s", card["n_scans"], patients, what or "none")


def _table(path: Path, schema: Schema, rows: Rows) -> None:
    table = pd.DataFrame(rows) if rows else pd.DataFrame(columns=schema.names)
    write_table(path, table, schema)


@torch.no_grad()
def _batched(scans: Scans, size: int, mean: list[float], std: list[float], see: Callable[[Tensor], Tensor]) -> Tensor:
    """`see` of the scans as a network takes them, standardised [B, C, size, size], batch by batch; on the CPU."""
    device = pick_device()
    centre, spread = (torch.tensor(values, device=device) for values in (mean, std))
    parts = torch.split(scans.images, BATCH)
    return torch.cat([see(resize(standardize(part.to(device), centre, spread), size)).cpu() for part in parts])


def _free_maps(network: nn.Module, shown: Shown, size: int) -> tuple[Maps | None, str]:
    """Maps that need no classifier, and what they are: attention of a ViT's heads, length of a CNN's last features."""
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
        found = label_maps(one.backbone, batch, one.weight.to(batch.device), one.bias.to(batch.device))
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
        for row in summarise(values[metric], shown.scans.patient, shown.labels, settings, chance[metric])
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
            rows = summarise(value[:, None], shown.scans.patient, ["all"], settings, None)
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


def _features(network: nn.Module, shown: Shown, size: int) -> Tensor:
    """Pooled features of the bank, [len(bank), D]."""
    size = whole_patches(network, size)
    return _batched(shown.bank, size, shown.mean, shown.std, lambda batch: extract_features(network, [batch]))


def _places(shown: Shown) -> np.ndarray:
    """Where each of the scans stands in the bank."""
    found: np.ndarray = pd.Index(shown.bank.scan_id).get_indexer(pd.Index(shown.scans.scan_id))
    return found


def _embedding(features: Tensor, shown: Shown, figures: Figures) -> pd.DataFrame:
    """embedding.csv, and the figure of it."""
    scans = shown.scans
    points, how = project(features[_places(shown)].double().numpy(), seed=0)
    figures.embedding(points, how)
    return pd.DataFrame({"scan_id": scans.scan_id, "x": points[:, 0], "y": points[:, 1], "how": how})


def _retrieval(features: Tensor, shown: Shown, settings: ExplainSettings, figures: Figures) -> Rows:
    """Rows of retrieval.csv."""
    queries, bank = shown.scans, shown.bank
    place = _places(shown)
    patient = torch.from_numpy(bank.patient)
    same = patient[place][:, None] == patient[None, :]
    itself = torch.from_numpy(place)[:, None] == torch.arange(len(bank))[None, :]
    known = torch.from_numpy(np.isfinite(bank.truth).any(axis=1))
    silent = ~known if known.any() else torch.zeros_like(known)  # scans without a label answer for nobody
    most = max(*settings.neighbors, 5)
    others = nearest(features[place], features, same | silent, most).numpy()
    anybody = nearest(features[place], features, itself, most).numpy()
    figures.neighbors(others)
    found: Rows = []
    for k in settings.neighbors:
        if shown.labels:
            values = precision(others, queries.truth, bank.truth, k)
            chance = np.where(np.isfinite(values), np.nanmean(bank.truth, axis=0), np.nan)
            rows = summarise(values, queries.patient, shown.labels, settings, chance)
            found += [{"metric": f"precision@{k}", **row} for row in rows]
        shares = same_patient(anybody, queries.patient, bank.patient, k)[:, None]
        found += [
            {"metric": f"same_patient@{k}", **row, "label": ""}
            for row in summarise(shares, queries.patient, ["all"], settings, None)
        ]
    return found
