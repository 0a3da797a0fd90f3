"""Pictures of pretraining runs on the page: augmented views, and scans that a masked autoencoder reconstructed."""

from collections.abc import Sequence
from pathlib import Path

from octdino.report.embedded_figures import Budget, FigureImage
from octdino.report.results_reader import Pretraining

BUDGET = 1_500_000  # characters of pictures on the page, beside those of the explain stage
PICTURES = {
    "views.png": (
        "Augmented views",
        "Stored scans, and what the network gets: the file views.png in the run's folder.",
    ),
    "reconstruction.png": (
        "Reconstructed scans",
        "Validation scans, the patches that the encoder sees (the others are gray), and these with the patches that "
        "the decoder predicts. It predicts a patch up to its brightness and contrast, which are taken from the scan.",
    ),
}


def run_pictures(root: Path, runs: Sequence[Pretraining]) -> list[FigureImage]:
    """Return the pictures of pretraining runs, each of the first run per method and backbone that has one.

    Pictures beyond the page's budget have a path and no image.

    Args:
        root: results/{cohort}.
        runs: which ones.

    Raises:
        UserError: a picture cannot be read.
    """
    budget, pictures = Budget(BUDGET), []
    for name, (what, caption) in PICTURES.items():
        first: dict[tuple[str, ...], Path] = {}
        for run in runs:
            path = root / "pretrain" / run.method / run.backbone / run.run / name
            if path.is_file():
                first.setdefault((run.method, run.backbone), path)
        for path in first.values():
            title = f"{what}: {' · '.join(path.parts[-4:-1])}"
            pictures.append(FigureImage(title, path.relative_to(root).as_posix(), budget.embed(path), caption))
    return pictures
