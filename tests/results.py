"""A small plausible results folder, for the tests of the stages that only read files."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import pytest

from octdino.config import EvaluateSettings
from octdino.data.csv_io import label_matrix, labels_of, write_table
from octdino.data.predictions import write_predictions
from octdino.data.schemas.csv_schemas import MANIFEST, QUARANTINE, SPLITS
from octdino.data.store_writer import StoreWriter
from octdino.evaluate import evaluate, evaluation  # only tests may join two stages
from octdino.stats.calibration import calibration_of
from octdino.stats.thresholds import choose_threshold
from tests.small import INPUT, store_attributes

LABELS = ["IRF", "DRT/ME", "FAVF", "VMT"]
SKILL = {"scratch-finetune": 0.6, "dino-linear": 1.6, "simclr-linear": 1.2, "clinical": 0.8}


def write_cohort(folder: Path, patients: int = 60, folds: int = 1, seed: int = 0) -> pd.DataFrame:
    """manifest.csv, splits.csv and quarantine.csv in `folder`; two labeled visits of three slices a patient.

    VMT is positive in two patients only; DRT/ME goes with CST. Returns the manifest.
    """
    rng = np.random.default_rng(seed)
    names = [f"{index:03d}" for index in range(patients)]
    order = rng.permutation(patients)
    splits, sides = [], {}
    for fold in range(folds):
        test = set(order[fold * patients // (3 if folds == 1 else folds) :][: patients // (3 if folds == 1 else folds)])
        rest = [index for index in order if index not in test]
        val = set(rest[: patients // 6])
        train = [index for index in rest if index not in val]
        for index, name in enumerate(names):
            side = "test" if index in test else "val" if index in val else "train"
            rank = train.index(index) if side == "train" else None
            splits.append({"fold": fold, "patient": name, "group": name, "split": side, "rank": rank})
            sides.setdefault(name, side)
    rows = []
    for index, name in enumerate(names):
        severity = rng.normal()
        for visit in ("W0", "W52"):
            swollen = rng.random() < 1 / (1 + np.exp(-severity))
            for slice_ in (10, 25, 40):
                rows.append(
                    {
                        "scan_id": f"phantom_{name}_{visit}_{slice_}", "path": f"{name}/{visit}/{slice_}.tif",
                        "cohort": "phantom", "patient": name, "group": name, "eye": f"{name}OD", "visit": visit,
                        "slice": slice_, "laterality": "OD", "trial": "PRIME" if index % 2 else "TREX DME",
                        "pixel_hash": f"{name}-{visit}-{slice_}", "split": sides[name],
                        "bcva": 80 - 10 * swollen + rng.normal(0, 5),
                        "cst": None if index == 1 else 280 + 120 * swollen + rng.normal(0, 30), "mask": "", "flags": "",
                        "IRF": int(rng.random() < 1 / (1 + np.exp(-severity))), "DRT/ME": int(swollen),
                        "FAVF": None if index == 2 else int(rng.random() < 0.5), "VMT": int(index < 2),
                    }
                )  # fmt: skip
    manifest = pd.DataFrame(rows)
    write_table(folder / "manifest.csv", manifest, MANIFEST)
    write_table(folder / "splits.csv", pd.DataFrame(splits), SPLITS)
    refused = [("a/1.tif", 7, "missing_file", "no such file"), ("a/2.tif", 8, "unreadable", "0 bytes")]
    refused.append(("a/3.tif", 9, "unreadable", "truncated"))
    table = pd.DataFrame(refused, columns=[column.name for column in QUARANTINE])
    write_table(folder / "quarantine.csv", table, QUARANTINE)
    return manifest


def write_store(folder: Path, manifest: pd.DataFrame, size: int = 48) -> None:
    """scans.h5: bands with noise; a dark bubble stands for IRF."""
    rng = np.random.default_rng(0)
    row, column = np.mgrid[:size, :size] / size
    with StoreWriter(folder / "scans.h5", 1, (size, size)) as writer:
        for scan_id, positive in zip(manifest["scan_id"], manifest["IRF"].fillna(0), strict=True):
            retina = ((row > 0.35) & (row < 0.65)) * (90 + 90 * (np.sin(row * 60) > 0))
            if positive:
                retina = np.where((row - 0.48) ** 2 + (column - rng.uniform(0.3, 0.7)) ** 2 < 0.006, 30, retina)
            noisy = np.clip((retina + 12) * rng.gamma(6, 1 / 6, (size, size)), 0, 255)
            writer.append(noisy.astype(np.uint8)[None], scan_id)
        found = {"mean": [0.2], "std": [0.2], **store_attributes(manifest, size)}
        writer.finish(np.arange(len(manifest)), found)


def write_arm(
    root: Path, cohort: Path, arm: str, fraction: float = 1.0, fold: int = 0, seed: int = 0, skill: float | None = None,
    backbone: str = "resnet18",
) -> Path:  # fmt: skip
    """One classifier's folder below `root`, with predictions of the given skill (0: none, 3: nearly always right)."""
    manifest = pd.read_csv(cohort / "manifest.csv", dtype={name.name: name.dtype for name in MANIFEST})
    splits = pd.read_csv(cohort / "splits.csv", dtype={"patient": "string"})
    splits = splits[splits["fold"] == fold]
    manifest["split"] = manifest["patient"].map(splits.set_index("patient")["split"]).astype("string")
    labels = labels_of(manifest)
    rows = manifest[manifest["split"] != "train"].reset_index(drop=True)
    truth = label_matrix(rows, labels)
    rng = np.random.default_rng([seed, fold, int(100 * fraction), sum(arm.encode())])
    effect = rng.normal(0, 0.5, (rows["patient"].nunique(), len(labels)))[pd.factorize(rows["patient"])[0]]
    skill = (SKILL.get(arm, 1.0) if skill is None else skill) * (0.5 + 0.5 * fraction)
    logits = skill * 2 * (np.nan_to_num(truth, nan=0.5) - 0.5) + effect + rng.normal(0, 1, truth.shape)
    p = 1 / (1 + np.exp(-logits))
    val = (rows["split"] == "val").to_numpy()
    thresholds = {name: choose_threshold(truth[val, k], p[val, k], "youden") for k, name in enumerate(labels)}
    calibration = calibration_of(truth[val], p[val], False, rows["patient"][val].nunique())
    backbone = "none" if arm == "clinical" else backbone
    out = root / arm / backbone / f"f{fraction:g}" / f"fold{fold}-seed{seed}"
    trained = round(fraction * int((splits["split"] == "train").sum()))
    write_predictions(
        out, rows, labels, p,
        {
            "arm": arm, "backbone": backbone, "fraction": fraction, "fold": fold, "seed": seed,
            "exclusive": False, "thresholds": thresholds, "thresholds_from": "val", "calibration": calibration,
            "settings": {"epochs": 3}, "n_train_patients": trained,
            "n_train_scans": 6 * trained, "octdino": "0.1.0",
        },
    )  # fmt: skip
    return out


def write_pretraining(
    root: Path, method: str, backbone: str = "resnet18", scope: str = "train_patients", **card_values: Any
) -> Path:
    """history.csv and backbone.json of one pretraining run; `card_values` are added to the card."""
    folder = root / method / backbone / "fold0-seed0"
    folder.mkdir(parents=True)
    epoch = np.arange(1, 21)
    table = pd.DataFrame(
        {"epoch": epoch, "step": 10 * epoch, "images_seen": 640 * epoch, "loss": 8 * np.exp(-epoch / 9)}
    )
    table["lr"], table["images_per_second"] = 1e-3, 410.0
    table["data_wait"], table["utilisation"] = 0.004, 0.61
    table["knn_auroc"] = np.where(epoch % 2, 0.55 + 0.01 * epoch, np.nan)
    table["feature_std"], table["rankme"] = 0.9 - 0.01 * epoch, 12 + epoch
    if method == "dino":
        table["teacher_entropy"], table["mean_entropy"] = 5.5 - 0.1 * epoch, 6.1 - 0.01 * epoch
        table["kl"], table["prototypes_used"], table["ln_k"] = 0.3 + 0.02 * epoch, 0.4 + 0.02 * epoch, np.log(512)
    table.to_csv(folder / "history.csv", index=False)
    card = {
        "name": method, "backbone": backbone, "fold": 0, "seed": 0, "scope": scope, "images_seen": 12800, "scans": 240,
        "cohort": "phantom",
        "spec": {"timm": "resnet18", "args": {}, "in_chans": 1, "size": 96}, "input": INPUT, "weights_sha256": "0" * 64,
        "patients": 30, "device": "CPU, 2 thread(s)", "octdino": "0.1.0", "torch": "2.9.0",
        "settings": {"epochs": 20, "batch_size": 64}, "method": {"method": method},
        "model": {"timm": "resnet18", "args": {}, "in_chans": 1}, **card_values,
    }  # fmt: skip
    (folder / "backbone.json").write_text(json.dumps(card))
    return folder


@contextmanager
def drawing(*functions: str) -> Iterator[None]:
    """Let the evaluate stage draw only what these of its functions draw: figures take two thirds of its time."""
    with pytest.MonkeyPatch.context() as patch:
        for name in vars(evaluation).copy():
            if name.startswith("plot_") and name not in functions:
                patch.setattr(evaluation, name, lambda *_: None)
        yield


def write_tables(root: Path, folders: list[Path], **settings: Any) -> None:
    """The tables of the evaluate stage, without its figures."""
    chosen = EvaluateSettings(**{"resamples": 100, **settings})
    with drawing():
        evaluate(chosen, root / "cohort" / "manifest.csv", folders, root / "evaluate")


def make_results(
    root: Path, arms: tuple[str, ...], fractions: tuple[float, ...] = (0.3, 1.0), figures: bool = True
) -> Path:
    """Write a results folder; equal ones are made once per process."""
    for name, content in _results(arms, fractions, figures).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


@cache
def _results(arms: tuple[str, ...], fractions: tuple[float, ...], figures: bool) -> dict[Path, bytes]:
    """Return the files of a results folder by their relative path."""
    with TemporaryDirectory() as folder:
        root = Path(folder)
        _make_results(root, arms, fractions, figures)
        return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def _make_results(root: Path, arms: tuple[str, ...], fractions: tuple[float, ...], figures: bool) -> None:
    write_store(root / "cohort", write_cohort(root / "cohort"))
    folders = [write_arm(root / "classify", root / "cohort", arm, f) for arm in arms for f in fractions]
    for method in ("dino", "simclr"):
        write_pretraining(root / "pretrain", method)
    if figures:
        evaluate(EvaluateSettings(resamples=100), root / "cohort" / "manifest.csv", folders, root / "evaluate")
    else:
        write_tables(root, folders)
    (root / "benchmarks").mkdir()
    for job, seconds in (("cohort", "12.5"), ("pretrain.dino.resnet18.fold0-seed0", "200.0"), ("evaluate", "-")):
        (root / "benchmarks" / f"{job}.tsv").write_text(f"s\th:m:s\tmax_rss\n{seconds}\t0:00:12\t512.5\n")
