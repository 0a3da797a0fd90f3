"""Figures of the explain stage: which scans they show, chosen by rule, and their captions."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from octdino.config import ExplainSettings
from octdino.explain.attention_figures import plot_label_maps, plot_maps, plot_neighbors, save_png
from octdino.explain.explained_scans import Shown
from octdino.explain.regions import Maps
from octdino.explain.scan_projection import most_balanced_label, plot_projection
from octdino.plotting import save_svg

NEIGHBORS = 5


class FigureWriter:
    """Writes figures into a folder and keeps their captions for the page."""

    def __init__(self, folder: Path, settings: ExplainSettings, shown: Shown) -> None:
        self.folder, self.settings, self.shown = folder, settings, shown
        self.written: list[dict[str, str]] = []
        for stale in [*folder.glob("*.png"), *folder.glob("*.svg")]:
            stale.unlink()

    def plot_maps(self, maps: Maps, of: str) -> None:
        """maps.png: the scans with most labels, of different patients."""
        rows = examples(self.shown, self.settings.examples)
        if not len(rows):
            return
        some, top = maps.take(rows), maps.take(rows).maximum()
        mass, blob = self.settings.attention_mass, self.settings.min_blob
        images, masks, cleaned = self.shown.scans.images[rows], top.masks(mass)[:, 0], top.masks(mass, blob)[:, 0]
        other = ", each of another patient" if self.shown.unit.patients else ""
        figure = plot_maps(images, some.pixels(), masks, cleaned, maps.name, mass)
        heads = (
            f"one map per head ({maps.native.shape[1]}), their maximum, " if maps.native.shape[1] > 1 else "the map, "
        )
        self._write(
            figure, "maps",
            f"{of[0].upper()}{of[1:]}: the scan, {heads}the part that holds {100 * mass:g} % of it, and that without "
            f"pieces below {100 * blob:g} % of the image. The scans with most labels{other}.",
        )  # fmt: skip

    def plot_label_maps(self, maps: Maps, arm: str) -> None:
        """labels_{arm}.png: per label, the scan in which it is largest, or the first that has it."""
        shown = self.shown
        places = label_examples(shown)
        if not places or not self.settings.examples:
            return
        rows, columns = (np.array(part) for part in zip(*places, strict=True))
        own = maps.take(rows, columns).pixels()[:, 0]
        lesions = None
        if shown.masks is not None and shown.masks.labels:
            lesions = shown.masks.label_masks(rows)[np.arange(len(rows)), columns]
        figure = plot_label_maps(shown.scans.images[rows], own, lesions, [_short(shown.labels[c]) for c in columns])
        outlined = " Outlined: the ground-truth mask." if lesions is not None else ""
        what = {
            "cam": "class activation", "gradcam": "Grad-CAM", "projection": "patches projected on the classifier",
        }[maps.name]  # fmt: skip
        self._write(
            figure, f"labels_{arm}",
            f"{arm}, {what}: per label, a scan that has it and the map of the classifier.{outlined} "
            "Chosen by rule: the scan in which the label is largest, or the first.",
        )  # fmt: skip

    def plot_projection(self, places: np.ndarray, how: str) -> None:
        """embedding.png and .svg: all scans of the tables as points, colored in up to three ways."""
        if len(places) < 3 or not self.settings.examples:
            return
        scans, label = self.shown.scans, most_balanced_label(self.shown.scans.truth)
        name, truth = ("", None) if label is None else (self.shown.labels[label], scans.truth[:, label])
        patients = self.shown.unit.patients
        figure = plot_projection(places, name, truth, scans.cst, scans.patient if patients else None)
        save_svg(figure, self.folder / "embedding.svg", f"{len(scans)} scans as points; numbers: embedding.csv")
        self._write(
            figure, "embedding",
            f"Frozen features of {len(scans)} scans in a plane, by {how}: near points have similar features. "
            "The label is the one nearest to half of the scans. Distances between clusters mean little"
            + ("; one cluster per patient means that features identify the patient." if patients else "."),
        )  # fmt: skip

    def plot_neighbors(self, found: np.ndarray) -> None:
        """retrieval.png: of the commonest labels one query each, of different patients, with its nearest scans.

        Args:
            found: positions in the gallery [N, k], -1 for none.
        """
        shown = self.shown
        queries: list[tuple[int, int]] = []
        order = np.argsort(-np.nansum(shown.scans.truth, axis=0), kind="stable")
        for label in order:
            taken = {shown.scans.patient[row] for row, _ in queries}
            has = np.flatnonzero(shown.scans.truth[:, label] == 1)
            fresh = [row for row in has if shown.scans.patient[row] not in taken]
            if fresh and len(queries) < self.settings.examples:
                queries.append((int(fresh[0]), int(label)))
        if not queries:
            return
        near = [found[row, :NEIGHBORS][found[row, :NEIGHBORS] >= 0] for row, _ in queries]
        figure = plot_neighbors(
            shown.scans.images[[row for row, _ in queries]],
            [shown.gallery.images[each] for each in near],
            [shown.gallery.truth[each, label] for each, (_, label) in zip(near, queries, strict=True)],
            [_short(shown.labels[label]) for _, label in queries],
        )
        other = " of other patients" if shown.unit.patients else ""
        self._write(
            figure, "retrieval",
            f"A scan with the label above it, and the scans{other} whose features are nearest. The frame "
            "says whether they have the label, too. One scan of each of the commonest labels.",
        )  # fmt: skip

    def _write(self, figure: Figure, name: str, caption: str) -> None:
        save_png(figure, self.folder / f"{name}.png")
        self.written.append({"file": f"{name}.png", "caption": caption})


def examples(shown: Shown, count: int) -> np.ndarray:
    """The scans with most labels, at most one a patient, ascending rank."""
    order = np.argsort(-np.nansum(shown.scans.truth, axis=1), kind="stable")
    first = np.sort(np.unique(shown.scans.patient[order], return_index=True)[1])
    return order[first[:count]]


def label_examples(shown: Shown) -> list[tuple[int, int]]:
    """Return pairs of scan and label: per label, the scan in which it is largest, or the first without masks."""
    found = []
    sizes = None
    if shown.masks is not None and shown.masks.labels:
        parts = [shown.masks.label_masks(np.array([row])).sum((2, 3))[0].numpy() for row in range(len(shown.scans))]
        sizes = np.stack(parts)
    for label in range(len(shown.labels)):
        rows = np.flatnonzero(shown.scans.truth[:, label] == 1)
        if len(rows):
            found.append((int(rows[sizes[rows, label].argmax()] if sizes is not None else rows[0]), label))
    return found


def _short(label: str) -> str:
    return label if len(label) <= 30 else f"{label[:29]}…"
