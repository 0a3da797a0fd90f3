"""Figure of scans as a trained method reconstructs them: reconstruction.png beside the weights of its run."""

import logging
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from octdino.augment import resize, standardize
from octdino.data.atomic_files import replacing
from octdino.plotting import figure_style
from octdino.pretrain.methods.method import Method
from octdino.pretrain.pretraining_data import PretrainData
from octdino.training.random_seeds import seed_of

log = logging.getLogger("octdino.pretrain")

SCANS = 6
CELL, TITLE = 1.2, 0.25  # inches
DPI = 150
BLANK = 0.5  # gray, where a picture has no pixels


def write_reconstruction(
    path: Path, method: Method, data: PretrainData, size: int, seed: int, device: torch.device
) -> None:
    """Write the method's reconstruction of a few validation scans as PNG, atomically.

    An earlier file is deleted where there is none to write: the method reconstructs no scans, or no validation scan is
    in the online-evaluation set.

    Args:
        size: px, side of the method's input.
        seed: of the run; of the random choices of `Method.reconstruct`.
    """
    pictures = reconstruct(method, data, size, seed, device)
    if not pictures:
        path.unlink(missing_ok=True)
        return
    with replacing(path) as temporary:
        plot_pictures(pictures).savefig(
            temporary, format="png", dpi=DPI, facecolor="white", metadata={"Software": None}
        )
    log.info("reconstructions of validation scans: %s", path)


@torch.no_grad()
def reconstruct(
    method: Method, data: PretrainData, size: int, seed: int, device: torch.device
) -> dict[str, Tensor]:  # fmt: skip
    """Return pictures of validation scans by title, float32 [N, C, S, S] in 0 .. 1 on the CPU, NaN where blank."""
    scans = data.online_eval.images[torch.from_numpy(data.online_eval.is_query)]
    chosen = torch.linspace(0, len(scans) - 1, min(SCANS, len(scans))).long()
    if not len(chosen):
        return {}
    mean, std = (torch.tensor(x, device=device) for x in (data.mean, data.std))
    images = resize(standardize(scans[chosen].to(device), mean, std), size)
    training = method.training
    found = method.eval().reconstruct(images, torch.Generator().manual_seed(seed_of(seed, "reconstruction")))
    method.train(training)
    return {
        title: (picture * std[:, None, None] + mean[:, None, None]).clamp(0, 1).cpu()
        for title, picture in found.items()
    }  # fmt: skip


def plot_pictures(pictures: dict[str, Tensor]) -> Figure:
    """Plot one row per title, one column per scan; `pictures` are those of `reconstruct`."""
    count = len(next(iter(pictures.values())))
    with figure_style():
        figure = Figure(figsize=(CELL * count, (CELL + TITLE) * len(pictures)))
        grid = figure.subplots(len(pictures), count, squeeze=False)
        for row, (title, images) in zip(grid, pictures.items(), strict=True):
            row[0].set_title(title, loc="left")
            for axes, image in zip(row, images, strict=True):
                pixels = image.nan_to_num(BLANK).expand(3, -1, -1)  # gray scans have one channel
                axes.imshow(pixels.permute(1, 2, 0).numpy(), interpolation="nearest")
                axes.set_axis_off()
    return figure
