"""Map of scans: t-SNE projection of embeddings to a plane; an illustration, not a measurement."""

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from octdino.plotting import CATEGORIES, figure_style

DIMENSIONS = 30  # that t-SNE starts from
FEWEST = 12  # scans; with fewer t-SNE shows no structure
PERPLEXITY = 30
MARKERS = "os^vD*P"
UNKNOWN = "#b0b0b0"


def project(features: np.ndarray, seed: int) -> tuple[np.ndarray, str]:
    """Return places [N, 2], and how: t-SNE (van der Maaten 2008) of the first principal components, or those alone.

    Args:
        features: [N, D], scaled to length 1 here, as neighbors are found by cosine similarity.
    """
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    if len(unit) < 3:
        return np.zeros((len(unit), 2)), "too few scans for a map"
    flat = PCA(min(DIMENSIONS, *unit.shape), random_state=seed).fit_transform(unit)
    if len(flat) < FEWEST:
        return np.pad(flat[:, :2], ((0, 0), (0, max(0, 2 - flat.shape[1])))), "first two principal components"
    perplexity = min(PERPLEXITY, (len(flat) - 1) / 3)
    # From the components scaled to a small spread, as scikit-learn's own init="pca" does.
    spread = max(float(flat[:, 0].std()), 1e-12)
    start = (np.pad(flat, ((0, 0), (0, 1)))[:, :2] / spread * 1e-4).astype(np.float32)
    places = TSNE(perplexity=perplexity, init=start, random_state=seed, n_jobs=1).fit_transform(flat)
    return np.asarray(places, float), f"t-SNE (perplexity {perplexity:.0f}) of {flat.shape[1]} principal components"


def most_balanced_label(truth: np.ndarray) -> int | None:
    """Return the label whose prevalence is nearest to one half, of [N, L]; None where no label has both classes."""
    known = np.isfinite(truth)
    share = np.where(known, truth, 0).sum(0) / np.maximum(known.sum(0), 1)
    both = (share > 0) & (share < 1)
    return int(np.argmin(np.where(both, np.abs(share - 0.5), np.inf))) if both.any() else None


def plot_projection(
    places: np.ndarray, label: str, truth: np.ndarray | None, cst: np.ndarray, patient: np.ndarray | None
) -> Figure:
    """Return up to three panels of the same places: colored by a label, by CST and by patient; gray where unknown.

    Args:
        places: [N, 2]; truth: of `label`, [N], None where there is none; cst: µm, [N]; patient: numbers, [N], None
            where patients are unknown.
    """
    alone = truth is None and not np.isfinite(cst).any() and patient is None
    panels = (truth is not None) + bool(np.isfinite(cst).any()) + (patient is not None) + alone
    with figure_style():
        figure = Figure(figsize=(2.9 * panels, 2.9))
        cells = iter(np.atleast_1d(figure.subplots(1, panels)))
        if truth is not None:
            _by_label(next(cells), places, label, truth)
        if np.isfinite(cst).any():
            _by_value(next(cells), places, cst)
        if patient is not None:
            _by_patient(next(cells), places, patient)
        if alone:
            next(cells).scatter(places[:, 0], places[:, 1], s=12, color=CATEGORIES[0], alpha=0.8)
        for axes in figure.axes[:panels]:
            axes.set(xticks=[], yticks=[])
            axes.margins(0.06)
    return figure


def _by_label(axes: Axes, places: np.ndarray, label: str, truth: np.ndarray) -> None:
    kinds = ((np.isnan(truth), UNKNOWN, "x", "unknown"), (truth == 0, CATEGORIES[0], "o", "absent"))
    for rows, color, marker, words in (*kinds, (truth == 1, CATEGORIES[1], "^", "present")):
        if rows.any():
            axes.scatter(
                places[rows, 0],
                places[rows, 1],
                s=12,
                color=color,
                marker=marker,
                alpha=0.8,
                label=words,
                linewidths=0.5,
            )
    axes.set_title(label if len(label) < 30 else label[:28] + "…")
    axes.legend(loc="upper left", bbox_to_anchor=(0, 0), ncols=3, handletextpad=0.1, columnspacing=0.8)


def _by_value(axes: Axes, places: np.ndarray, cst: np.ndarray) -> None:
    known = np.isfinite(cst)
    axes.scatter(places[~known, 0], places[~known, 1], s=12, color=UNKNOWN, marker="x", linewidths=0.5)
    points = axes.scatter(places[known, 0], places[known, 1], s=12, c=cst[known], cmap=colormaps["viridis"], alpha=0.85)
    axes.set_title("CST, µm")
    axes.figure.colorbar(points, ax=axes, location="bottom", fraction=0.06, pad=0.03)


def _by_patient(axes: Axes, places: np.ndarray, patient: np.ndarray) -> None:
    """One pair of color and marker per patient; pairs repeat when all are used."""
    patients, index = np.unique(patient, return_inverse=True)
    for place in range(len(patients)):
        rows = index == place
        marker = MARKERS[place // len(CATEGORIES) % len(MARKERS)]
        axes.scatter(
            places[rows, 0], places[rows, 1], s=12, color=CATEGORIES[place % len(CATEGORIES)], marker=marker, alpha=0.8
        )
    axes.set_title(f"{len(patients)} patients" if len(patients) < len(patient) else "each its own patient")
