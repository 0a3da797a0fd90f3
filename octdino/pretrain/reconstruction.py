"""The sheet of scans as a trained method reconstructs them: reconstruction.png beside the weights of its run."""

import numpy as np
import torch
from torch import Tensor

from octdino.augment import resize, standardize
from octdino.augment.view_sheet import HIDDEN, ScanRow, ViewCell
from octdino.pretrain.methods.method import Method
from octdino.pretrain.pretraining_data import OnlineEvalSet, PretrainData
from octdino.training.random_seeds import seed_of

SCANS = 6


def reconstruction_sheet(
    method: Method, data: PretrainData, size: int, seed: int, device: torch.device, name: str
) -> tuple[list[ScanRow], str] | None:
    """Return the rows of the sheet and its caption: the method's reconstruction of a few validation scans.

    None where there is nothing to show: the method reconstructs no scans, or no validation scan is in the
    online-evaluation set.

    Args:
        size: px, side of the method's input.
        seed: of the run; of the random choices of `Method.reconstruct`.
        name: of the run, for the caption.
    """
    pictures = reconstruct(method, data, size, seed, device)
    if not pictures:
        return None
    scans = data.online_eval
    rows = []
    for index, row in enumerate(_shown(scans)):
        cells = [ViewCell(f"{title}\n{size} px", _pixels(images[index])) for title, images in pictures.items()]
        rows.append(ScanRow(scans.scan_ids[row], scans.images[row], cells))
    return rows, f"{name}: validation scans and their reconstruction by the trained network. Gray: hidden from it."


@torch.no_grad()
def reconstruct(
    method: Method, data: PretrainData, size: int, seed: int, device: torch.device
) -> dict[str, Tensor]:  # fmt: skip
    """Return pictures of validation scans by title, float32 [N, C, S, S] in 0 .. 1 on the CPU, NaN where blank."""
    chosen = _shown(data.online_eval)
    if not len(chosen):
        return {}
    mean, std = (torch.tensor(x, device=device) for x in (data.mean, data.std))
    scans = data.online_eval.images[torch.from_numpy(chosen)]
    images = resize(standardize(scans.to(device), mean, std), size)
    training = method.training
    pictures = method.eval().reconstruct(images, torch.Generator().manual_seed(seed_of(seed, "reconstruction")))
    method.train(training)
    return {
        title: (picture * std[:, None, None] + mean[:, None, None]).clamp(0, 1).cpu()
        for title, picture in pictures.items()
    }  # fmt: skip


def _shown(scans: OnlineEvalSet) -> np.ndarray:
    """Return the positions of at most SCANS validation scans in the online-evaluation set, evenly spread."""
    queries = np.flatnonzero(scans.is_query)
    shown: np.ndarray = queries[torch.linspace(0, len(queries) - 1, min(SCANS, len(queries))).long().numpy()]
    return shown


def _pixels(picture: Tensor) -> Tensor:
    """Return a picture in 0 .. 1 as uint8; NaN becomes gray."""
    return (picture * 255).round().nan_to_num(HIDDEN).to(torch.uint8)
