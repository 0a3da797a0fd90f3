"""Number of scans of a cohort, as far as it is known before a run, and the memory and disk that follow from it.

Used by the rules for `mem_mb`, by the checks before a run and by `octdino plan`.
"""

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

from octdino.config.cohort import CohortSettings, ImageSettings
from octdino.config.folder_glance import glance_at_table

if TYPE_CHECKING:
    from octdino.config import Config

PUBLISHED_SCANS = {
    "olives": 78_189, "oct2017": 109_309, "octdl": 2_064, "imagenette": 13_394, "cifar10": 60_000, "stl10": 113_000,
    "voc12": 17_125,
}  # fmt: skip
LABELED_SHARE = {"olives": 0.13, "stl10": 0.12}  # of the scans; all of them elsewhere
DENSITY_SCANS = 4096  # of each split, evenly spaced, from which the model folder has density and threshold
EYES = 96 / 87  # of the phantom, per patient
FEATURES_BYTES = 64_000  # per labeled scan of a classifier on frozen features: 2,000 features, four copies in float64
PROCESS_BYTES = 1_700_000_000  # of a training process beside its scans: libraries, networks, one batch
LEAST_MB = {"pretrain": 8000, "embed": 8000, "classify": 8000, "cohort": 8000, "audit": 8000}  # and where unknown


def known_scans(settings: CohortSettings, folder: Path) -> int | None:
    """Return the number of scans: of the manifest in results/{cohort}/, or as the cohort is published or listed.

    Args:
        folder: results/{cohort}.
    """
    if made := manifest_rows(folder / "cohort" / "manifest.csv"):
        return made
    if settings.name == "phantom":
        chosen = settings.phantom
        return round(chosen.patients * EYES * chosen.visits * chosen.slices)
    if settings.name in PUBLISHED_SCANS:
        return PUBLISHED_SCANS[settings.name]
    table = glance_at_table(settings)
    return table.rows if table and table.plain else None


def manifest_rows(path: Path) -> int:
    """Return the number of rows of a table of octdino, 0 if there is none; no cell of its tables has a line end."""
    if not path.is_file():
        return 0
    with path.open("rb") as file:
        return max(0, sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b"")) - 1)


def labeled_share(settings: CohortSettings) -> float:
    """Return the share of scans that may have labels."""
    if settings.name == "phantom":  # the first and the last visit
        return min(1.0, 2 / settings.phantom.visits)
    return LABELED_SHARE.get(settings.name, 1.0)


def image_bytes(image: ImageSettings) -> int:
    """Return the bytes of a stored scan."""
    return image.channels * math.prod(image.size)


def memory_mb(settings: "Config", scans: int | None, rule: str) -> int:
    """Return the memory of a job of a rule in MB: its least value, or more where the number of scans needs it."""
    need = 0 if scans is None else memory_bytes(settings, scans, rule)
    return max(LEAST_MB[rule], math.ceil(need / 1e6))


def memory_bytes(settings: "Config", scans: int, rule: str) -> int:
    """Estimate the peak memory of a job of a rule: the scans or features that it holds, and its process."""
    scan = image_bytes(settings.cohort.image)
    labeled = math.ceil(scans * labeled_share(settings.cohort))
    held = {
        "pretrain": scan * (scans + min(scans, settings.pretrain.online_eval_max_scans)),
        "classify": max(scan, FEATURES_BYTES) * labeled,
        "embed": 2**28,  # blocks of scans
        "cohort": 2_000 * scans,  # rows; scans are streamed
        "audit": scan * scans,
    }
    return held[rule] + PROCESS_BYTES


def store_bytes(settings: CohortSettings, scans: int) -> int:
    """Return the size of scans.h5."""
    return image_bytes(settings.image) * scans


def machine_memory() -> int:
    """Return the bytes of memory that this process may use: the machine's, or less in a container."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(limit).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdecimal():
            total = min(total, int(text))
    return total
