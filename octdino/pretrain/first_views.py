"""The views of some scans in the first batches of a run, for the sheet that is written before the first step."""

import math

from torch import Tensor

from octdino.augment.view_sheet import LEAST_COLUMNS, SCANS, ScanRow, ViewCell, to_pixels, views_caption
from octdino.pretrain.batch_loader import BatchLoader
from octdino.pretrain.pretraining_data import PretrainData
from octdino.training.distributed import local_slice

KINDS = ("large", "small")  # of views, in the order of `Method.views`


def first_views(batches: BatchLoader, data: PretrainData, name: str) -> tuple[list[ScanRow], str]:
    """Return the rows of the sheet and its caption: scans of the first batch, of different patients where possible.

    Random numbers are functions of seed, step and scan, so nothing that is computed here changes the run.

    Args:
        name: of the run, for the caption.
    """
    chosen = _scans(batches, data)
    (step, position), *_ = batches.occurrences(chosen[0], 1)
    views, hidden = batches.views_of(step, chosen[0], position)
    wanted = math.ceil(LEAST_COLUMNS / len(_cells(views, hidden, data, "")))
    steps = {row: batches.occurrences(row, wanted) for row in chosen}
    shown = min(map(len, steps.values()))
    rows = []
    for row in chosen:
        cells: list[ViewCell] = []
        for index, (step, position) in enumerate(steps[row][:shown]):
            prefix = f"batch {index + 1}: " if shown > 1 else ""
            cells += _cells(*batches.views_of(step, row, position), data, prefix)
        rows.append(ScanRow(str(data.manifest["scan_id"].iloc[row]), data.images[data.rows[row]], cells))
    caption = views_caption(name, shown)
    if hidden is not None:
        caption += (
            " Masked: gray patches of a large view are hidden from the trained network; a teacher, if the method has "
            "one, sees them. No gray: this scan's view has no mask in this batch."
        )
    return rows, caption


def _scans(batches: BatchLoader, data: PretrainData) -> list[int]:
    """Return up to SCANS scans of this process's part of the first batch, different patients first."""
    rows: list[int] = batches.rows(0)[local_slice(batches.batch_size)].tolist()
    patients = data.manifest["patient"].iloc[rows].tolist()
    first = dict(zip(reversed(patients), reversed(rows), strict=True))  # the first scan of each patient
    apart = [row for row in rows if row in set(first.values())] if data.unit.patients else rows
    return [*apart, *(row for row in rows if row not in apart)][:SCANS]


def _cells(views: list[Tensor], hidden: Tensor | None, data: PretrainData, prefix: str) -> list[ViewCell]:
    """Return the cells of one scan in one batch; large views once more where patches of them are hidden."""
    cells: list[ViewCell] = []
    for kind, images in zip(KINDS, views, strict=False):
        size = f"{images.shape[-1]} px"
        for index, image in enumerate(images):
            title = f"{kind} {index + 1}"
            cells.append(ViewCell(f"{prefix}{title}\n{size}", to_pixels(image, data.mean, data.std)))
            if hidden is not None and kind == KINDS[0]:
                seen = to_pixels(image, data.mean, data.std, hidden[index])
                cells.append(ViewCell(f"{prefix}{title},\nmasked", seen))
    return cells
