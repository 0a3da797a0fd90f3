"""Plots of saliency maps, masks and retrieved neighbors; gray scans are gray, the background is white."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from octdino.data.atomic_files import replacing
from octdino.plotting import figure_style

CELL, GAP, TITLE = 1.15, 0.08, 0.32  # inches
DPI = 120
HEAT = "inferno"
AGREES = {1: ("#139c77", "has it"), 0: ("#cc1a40", "has it not")}
TINT = torch.tensor([0.21, 0.82, 1.0])
UNKNOWN = ("#858585", "not graded")


def save_png(figure: Figure, path: Path) -> None:
    """Write the figure, atomically and with the same bytes for the same figure."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})


def plot_maps(images: Tensor, maps: Tensor, masks: Tensor, cleaned: Tensor, name: str, mass: float) -> Figure:
    """Plot one row per scan: the scan, each head's map, their maximum, its mask with and without small blobs.

    Args:
        images: uint8 [n, C, H, W]; maps: float [n, heads, H, W]; masks, cleaned: bool [n, H, W].
        name: attention or activation.
    """
    heads = maps.shape[1]
    heads_titles = [f"head {head + 1}" for head in range(heads)] if heads > 1 else []
    titles = ["scan", *heads_titles, "maximum" if heads > 1 else name, f"{100 * mass:g} % of it", "large parts"]
    with figure_style():
        figure, axes = _grid(len(images), len(titles))
        for row, (image, own, mask, clean) in enumerate(zip(images, maps, masks, cleaned, strict=True)):
            cells = iter(axes[row])
            _scan(next(cells), image)
            for head in own if heads > 1 else []:
                next(cells).imshow(head.numpy(), cmap=HEAT)
            next(cells).imshow(own.amax(0).numpy(), cmap=HEAT)
            for kept in (mask, clean):
                _scan(next(cells), image, kept)
        for cell, title in zip(axes[0], titles, strict=True):
            cell.set_title(title, loc="left")
    return figure


def plot_label_maps(images: Tensor, maps: Tensor, lesions: Tensor | None, titles: Sequence[str]) -> Figure:
    """Plot two panels per label: a scan that has it, with the true lesion outlined, and the label's map over it.

    Args:
        images: uint8 [n, C, H, W]; maps: float [n, H, W]; lesions: bool [n, H, W]; titles: n.
    """
    across = min(4, len(titles))
    down = -(-len(titles) // across)
    with figure_style():
        figure, axes = _grid(down, 2 * across)
        for place in range(across * down):
            left, right = axes[place // across, 2 * (place % across) : 2 * (place % across) + 2]
            if place >= len(titles):
                left.set_visible(False)
                right.set_visible(False)
                continue
            _scan(left, images[place])
            _scan(right, images[place])
            right.imshow(maps[place].clamp(min=0).numpy(), cmap=HEAT, alpha=0.45)
            if lesions is not None and lesions[place].any():
                for cell in (left, right):
                    cell.contour(lesions[place].numpy(), [0.5], colors="#35d0ff", linewidths=0.8)
            left.set_title(titles[place], loc="left", fontsize=8)
    return figure


def plot_neighbors(
    queries: Tensor, neighbors: Sequence[Tensor], agrees: Sequence[np.ndarray], titles: Sequence[str]
) -> Figure:
    """Plot one row per query: the query and its nearest scans; frame and title show whether they have its label.

    Args:
        queries: uint8 [n, C, H, W]; neighbors: n times uint8 [k, C, H, W]; agrees: n times [k], 1, 0 or NaN.
        titles: the label of each query.
    """
    with figure_style():
        figure, axes = _grid(len(queries), 1 + max(map(len, neighbors)))
        for row, (query, found, same) in enumerate(zip(queries, neighbors, agrees, strict=True)):
            _scan(axes[row, 0], query)
            axes[row, 0].set_title(fill(titles[row], 20), loc="left", fontsize=7)
            for cell in axes[row, 1 + len(found) :]:
                cell.set_visible(False)
            for cell, image, agreed in zip(axes[row, 1:], found, same, strict=False):
                _scan(cell, image)
                color, words = UNKNOWN if np.isnan(agreed) else AGREES[int(agreed)]
                cell.set_title(words, loc="left", fontsize=7.5, color=color)
                for spine in cell.spines.values():
                    spine.set(visible=True, color=color, linewidth=2.5)
    return figure


def _grid(rows: int, columns: int) -> tuple[Figure, np.ndarray]:
    """Square cells with room for a title of two lines above each row; placed by hand, as layout engines are slow."""
    width, height = columns * (CELL + GAP) + GAP, rows * (CELL + TITLE) + GAP
    figure = Figure(figsize=(width, height))
    figure.set_layout_engine("none")
    axes = np.empty((rows, columns), dtype=object)
    for row, column in np.ndindex(rows, columns):
        left, bottom = GAP + column * (CELL + GAP), height - (row + 1) * (CELL + TITLE)
        cell = figure.add_axes((left / width, bottom / height, CELL / width, CELL / height), xticks=[], yticks=[])
        cell.grid(False)
        for spine in cell.spines.values():
            spine.set_visible(False)
        axes[row, column] = cell
    return figure, axes


def _scan(cell: Axes, image: Tensor, mask: Tensor | None = None) -> None:
    """Show a scan; `mask` is tinted."""
    shown = image.float() / 255
    if mask is not None:
        shown = shown.expand(3, -1, -1)
        shown = torch.where(mask, 0.6 * shown + 0.4 * TINT[:, None, None], shown)
    pixels = shown.permute(1, 2, 0).numpy()
    if pixels.shape[2] == 1:
        cell.imshow(pixels[:, :, 0], cmap="gray", vmin=0, vmax=1)
    else:
        cell.imshow(pixels)
