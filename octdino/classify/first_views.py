"""The views of some scans in the first batches of a fine-tuning, for the sheet that precedes its first step."""

import numpy as np
import torch
from torch import Tensor

from octdino.augment.view_sheet import LEAST_COLUMNS, SCANS, ScanRow, ViewCell, to_pixels, views_caption
from octdino.classify.finetune import Finetune
from octdino.classify.labeled_scans import Labeled


def first_views(tuned: Finetune, data: Labeled, name: str) -> tuple[list[ScanRow], str]:
    """Return the rows of the sheet and its caption; random numbers are functions of seed, step and scan.

    Scans of the first batch, and the first steps that train on them. All candidates get the same views.

    Args:
        name: of the run, for the caption.
    """
    size = tuned.settings.augment.global_size
    steps = _steps_with(tuned, tuned.batch(0)[:SCANS].tolist())
    count = min(map(len, steps.values()))
    rows = []
    for row, occurrences in steps.items():
        cells = [
            ViewCell(f"batch {index + 1}\n{size} px", to_pixels(_view(tuned, step, row), data.mean, data.std))
            for index, step in enumerate(occurrences[:count])
        ]
        rows.append(ScanRow(str(data.manifest["scan_id"].iloc[row]), data.images[row], cells))
    return rows, views_caption(name, count)


def _steps_with(tuned: Finetune, rows: list[int]) -> dict[int, list[int]]:
    """Return the first steps that train on each scan, at most LEAST_COLUMNS; fewer in a short training."""
    found: dict[int, list[int]] = {row: [] for row in rows}
    schedule = tuned.schedule
    for epoch in range(schedule.total // schedule.epoch):
        order = tuned.order(epoch)[: schedule.epoch * schedule.batch]
        for row, steps in found.items():
            steps += (epoch * schedule.epoch + np.flatnonzero(order == row) // schedule.batch).tolist()
        if min(map(len, found.values())) >= LEAST_COLUMNS:
            break
    return {row: steps[:LEAST_COLUMNS] for row, steps in found.items()}


def _view(tuned: Finetune, step: int, row: int) -> Tensor:
    """Return what the network gets of one scan in a step, [C, S, S]."""
    keys = torch.tensor([row], device=tuned.device)
    return tuned.views(step, tuned.data.images[[row]].to(tuned.device), keys)[0]
