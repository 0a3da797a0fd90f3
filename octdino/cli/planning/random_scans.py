"""Random scans, labels and manifest rows of a given number, for trials."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from octdino.classify.labeled_scans import Labeled
from octdino.config import MethodSettings
from octdino.config.cohort import ImageSettings
from octdino.config.eye_visits import VisitLimits
from octdino.data.cohort_reader import Cohort
from octdino.data.sampling_units import unit
from octdino.pretrain.eye_visits import visit_partners
from octdino.pretrain.pretraining_data import OnlineEvalSet, PretrainData

HELD = 256  # scans in memory; the rows of more scans point to them


def random_data(scans: int, image: ImageSettings, method: MethodSettings | None = None) -> PretrainData:
    """Return `scans` training scans, a few of them in memory, so that settings by the number of scans are real.

    Args:
        image: settings of the store.
        method: that trains on them; None: classifiers do.
    """
    held = min(scans, HELD)
    shape = (held, image.channels, *image.size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, std = [0.5] * image.channels, [0.29] * image.channels
    chosen = images[: min(held, 32)]
    evaluated = OnlineEvalSet(
        chosen, np.zeros((len(chosen), 1), np.float32), torch.arange(len(chosen)), np.arange(len(chosen)) % 2 == 0
    )
    manifest = random_manifest(scans, method)
    partners = visit_partners(method, manifest) if method else None
    return PretrainData(
        images, torch.arange(scans) % held, manifest, mean, std, evaluated, "", image, "trial", unit("known"), partners
    )


def random_manifest(scans: int, method: MethodSettings | None = None) -> pd.DataFrame:
    """Return the manifest rows of so many scans, ten per eye and five per visit, with clinical values.

    The two visits of an eye are at the same time, on a scale for which `method` has a limit, if it has any.
    """
    number, rng = np.arange(scans), np.random.default_rng(0)
    numbered = isinstance(method, VisitLimits) and method.limited and method.positives_weeks is None
    names = ("V0", "v0") if numbered else ("W0", "w0")
    eyes = pd.Series([f"p{n // 10}-OD" for n in number], dtype="string")
    return pd.DataFrame(
        {
            "scan_id": pd.Series([f"s{n}" for n in number], dtype="string"),
            "cohort": "trial",
            "patient": eyes.str.removesuffix("-OD"),
            "eye": eyes,
            "visit": pd.Series([names[n // 5 % 2] for n in number], dtype="string"),
            "slice": pd.Series(number % 5 + 1, dtype="Int64"),
            "cst": rng.integers(200, 600, scans).astype("float64"),
            "bcva": rng.integers(20, 90, scans).astype("float64"),
            "split": "train",
        }
    )


def random_labels(scans: int, labels: int) -> np.ndarray:
    """Return float32 [scans, labels], each 0 or 1 with both among the first rows."""
    truth = (np.random.default_rng(1).random((scans, max(labels, 1))) < 0.3).astype(np.float32)
    truth[0], truth[1 % scans] = 1, 0
    return truth


def random_labeled(data: PretrainData, labels: int) -> Labeled:
    """Return the training scans as labeled ones, with their images in memory."""
    truth = random_labels(len(data.images), labels)
    manifest = data.manifest.iloc[: len(data.images)]
    names = [f"label {number}" for number in range(truth.shape[1])]
    cohort = Cohort(Path("scans.h5"), manifest, pd.DataFrame(), names, truth, None)
    found = Labeled(cohort, np.arange(len(manifest)), manifest, truth, data.mean, data.std)
    vars(found)["images"] = data.images  # in the place of those that it would read from a store
    return found
