"""Results with external cohorts, without training: predictions of the internal test and scores of external scans."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd

from octdino.data.csv_io import label_matrix, probability_column, write_table
from octdino.data.schemas.csv_schemas import EXTERNAL_SCORES, MANIFEST, SPLITS
from octdino.data.store import read_header
from tests.results import LABELS, write_arm, write_cohort, write_store


def write_internal(
    root: Path, arms: tuple[str, ...] = ("scratch-finetune", "dino-linear"), folds: int = 1, seeds: int = 1
) -> list[Path]:
    """The internal cohort and its classifiers, which claim to have weights of their own; returns their folders."""
    write_cohort(root / "cohort", folds=folds)
    found = [
        write_arm(root / "classify", root / "cohort", arm, fold=fold, seed=seed)
        for arm in arms
        for seed in range(seeds)
        for fold in range(folds)
    ]
    for folder in found:
        path = folder / "classifier.json"
        weights = hashlib.sha256(folder.relative_to(root).as_posix().encode()).hexdigest()
        path.write_text(json.dumps({**json.loads(path.read_text()), "weights_sha256": weights}))
    return found


def write_external(root: Path, classifiers: list[Path], name: str = "b", patients: int = 30, seed: int = 5) -> Path:
    """An external cohort with labels of its own, and its scores by the classifiers; returns its folder.

    Its labels: Edema for DRT/ME or IRF, FAVF as inside, and Scar, which the internal cohort has not.
    """
    folder = root / "external" / name
    manifest = write_cohort(folder / "cohort", patients=patients, seed=seed)
    truth = label_matrix(manifest, LABELS)
    manifest = manifest.drop(columns=LABELS).assign(split="test", cohort=name)
    manifest["scan_id"] = name + "_" + manifest["scan_id"]
    manifest["pixel_hash"] = name + manifest["pixel_hash"].astype(str)
    manifest["Edema"] = np.maximum(truth[:, LABELS.index("IRF")], truth[:, LABELS.index("DRT/ME")])
    manifest["FAVF"], manifest["Scar"] = truth[:, LABELS.index("FAVF")], 0.0
    write_table(folder / "cohort" / "manifest.csv", manifest, MANIFEST)
    splits = manifest[["patient", "group"]].drop_duplicates().assign(fold=0, split="test", rank=None)
    write_table(folder / "cohort" / "splits.csv", splits, SPLITS)
    write_store(folder / "cohort", manifest.assign(IRF=0.0), size=16)
    for place, classifier in enumerate(classifiers):
        _write_scores(folder, classifier, manifest, truth, np.random.default_rng([seed, place]))
    return folder


def _write_scores(
    folder: Path, classifier: Path, manifest: pd.DataFrame, truth: np.ndarray, rng: np.random.Generator
) -> None:
    card = json.loads((classifier / "classifier.json").read_text())
    p = 1 / (1 + np.exp(-1.2 * (np.nan_to_num(truth, nan=0.5) - 0.5) - rng.normal(0.3, 1, truth.shape)))
    table = manifest[["scan_id", "patient"]].assign(out_of_distribution=rng.uniform(0.5, 1.5, len(p)))
    for place, label in enumerate(LABELS):
        table[probability_column(label)] = p[:, place]
    out = folder / "scores" / Path(*classifier.parts[-4:])
    write_table(out / "scores.csv", table, EXTERNAL_SCORES)
    names = ("arm", "backbone", "fraction", "fold", "seed", "labels", "exclusive", "weights_sha256")
    kept = {name: card[name] for name in names}
    source = read_header(folder / "cohort" / "scans.h5").checked_attributes(folder / "cohort" / "scans.h5").source
    kept |= {"cohort": folder.name, "source": source, "ood_threshold": 9.0}
    (out / "scores.json").write_text(json.dumps({**kept, "accepted_test": 0.9, "n_scans": len(p)}))
