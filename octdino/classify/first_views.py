"""The views of some scans in the first batches of a fine-tuning, for the sheet that is written before the first step."""

import torch

from octdino.augment.view_sheet import LEAST_COLUMNS, SCANS, ScanRow, ViewCell, to_pixels
from octdino.classify.finetune import Finetune
from octdino.classify.labeled_scans import Labeled


def first_views(tuned: Finetune, data: Labeled) -> tuple[list[ScanRow], str]:
    """Return the rows of the sheet and its caption; random numbers are functions of seed, step and scan.

    Scans of the first batch, and the first steps that train on them. All candidates get the same views.
    """
    size = tuned.settings.augment.global_size
    chosen = tuned.batch(0)[:SCANS].tolist()
    steps = {row: _steps_with(tuned, row) for row in chosen}
    count = min(map(len, steps.values()))
    rows = []
    for row in chosen:
        image = data.images[row]
        cells = [
            ViewCell(f"batch {index + 1}\n{size} px", to_pixels(_view(tuned, step, row), data.mean, data.std))
            for index, step in enumerate(steps[row][:count])
        ]
        rows.append(ScanRow(str(data.manifest["scan_id"].iloc[row]), image, cells))
    return (
        rows,
        f"Scans and their views exactly as the network gets them in the first {count} batches that have the scan.",
    )


def _steps_with(tuned: Finetune, row: int) -> list[int]:
    """Return the first steps that train on a scan; fewer in a short training."""
    found: list[int] = []
    for step in range(tuned.schedule.total):
        if row in tuned.batch(step):
            found.append(step)
            if len(found) == LEAST_COLUMNS:
                break
    return found


def _view(tuned: Finetune, step: int, row: int) -> torch.Tensor:
    """Return what the network gets of one scan in a step, [C, S, S]."""
    keys = torch.tensor([row], device=tuned.device)
    return tuned.views(step, tuned.data.images[[row]].to(tuned.device), keys)[0]
