"""What can be wrong with a comparison, a function a question; each yields what it finds."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from octdino.files import read_json
from octdino.predictions import Predictions
from octdino.store import statistics
from octdino.thresholds import choose_threshold

Found = dict[str, Any]  # the columns of FINDINGS but acknowledged

TOLERANCE = 1e-6  # of means and thresholds, which are written with all their digits


def finding(check: str, where: str, detail: str, count: int = 1) -> Found:
    """A row of findings.csv."""
    return {"check": check, "where": where, "count": count, "detail": detail}


def sides(manifest: pd.DataFrame, splits: pd.DataFrame, fold: int) -> pd.Series:
    """The side of each scan in a fold, by its patient; the user's own column where the split is theirs, fold 0."""
    chosen = splits[splits["fold"] == fold].drop_duplicates("patient").set_index("patient")["split"]
    found = manifest["patient"].map(chosen)
    return manifest["split"].where(manifest["split"].notna(), found) if fold == 0 else found


def overlap(manifest: pd.DataFrame, splits: pd.DataFrame, fold: int) -> Iterator[Found]:
    """Patients, eyes, volumes on two sides of the split."""
    side = sides(manifest, splits, fold)
    eye = manifest["eye"].fillna("")
    volume = eye + " " + manifest["visit"].fillna("")
    for check, whose in (
        ("patient", manifest["patient"]),
        ("eye", eye),
        ("volume", volume.where((eye != "") & (manifest["visit"].fillna("") != ""), "")),
    ):
        known = (whose != "") & side.notna()
        several = side[known].groupby(whose[known]).nunique()
        names = several.index[several > 1].tolist()
        if names:
            where = ", ".join(sorted(side[known][whose[known] == names[0]].unique()))
            yield finding(check, f"fold {fold}", f"{names[0]} is in {where}", len(names))
    twice = splits[splits["fold"] == fold].groupby("patient")["split"].nunique()
    if (twice > 1).any():
        yield finding("patient", f"splits.csv, fold {fold}", f"{twice.idxmax()} has two sides", int((twice > 1).sum()))


def eyes_of_two(manifest: pd.DataFrame, splits: pd.DataFrame, fold: int) -> Iterator[Found]:
    """One eye under two patients' names on two sides: the same side, visit dates and measurements, slice by slice."""
    side = sides(manifest, splits, fold)
    table = manifest.assign(side=side)
    measured = table[table["bcva"].notna() & table["cst"].notna()]
    visits = measured.groupby(["patient", "eye", "visit"], dropna=False).agg(
        bcva=("bcva", "first"), cst=("cst", "first"), side=("side", "first"), laterality=("laterality", "first")
    )
    courses: dict[tuple[Any, ...], list[tuple[str, str]]] = {}
    for (patient, _), course in visits.groupby(level=["patient", "eye"], dropna=False):
        values = tuple(zip(course["bcva"], course["cst"], strict=True))
        if len(set(values)) > 2:  # three equal pairs of acuity and thickness are no chance
            courses.setdefault((course["laterality"].iloc[0], *values), []).append(
                (str(patient), course["side"].iloc[0])
            )
    for same in courses.values():
        if len({patient for patient, _ in same}) > 1 and len({where for _, where in same}) > 1:
            names = " and ".join(f"{patient} ({where})" for patient, where in same)
            yield finding(
                "eye", f"fold {fold}", f"{names} have the same acuity and thickness at every visit", len(same)
            )


def standardisation(card: Path, moments: np.ndarray, manifest: pd.DataFrame, splits: pd.DataFrame) -> Iterator[Found]:
    """Mean and standard deviation that are not those of the fold's training patients."""
    told = read_json(card, "pretrain")
    used = told.get("input") or told.get("spec") or {}
    if not used.get("mean"):  # no picture, or a backbone from elsewhere
        return
    train = (sides(manifest, splits, told.get("fold") or 0) == "train").to_numpy()
    expected = [value for part in statistics(moments[train]) for value in part]
    got = [*used["mean"], *used["std"]]
    if not np.allclose(got, expected, rtol=0, atol=TOLERANCE):
        detail = f"mean {got[0]:.6f}, that of the training patients is {expected[0]:.6f}"
        yield finding("statistics", str(card.parent), detail)


def exposure(card: Path, manifest: pd.DataFrame, splits: pd.DataFrame) -> Iterator[Found]:
    """A pretraining that says train_patients and saw others, by the counts and names in its card."""
    start: dict[str, Any] | None = read_json(card, "pretrain")
    while start:  # a run may go on from another, and that from another
        if start.get("scope") == "train_patients" and start.get("cohort") in (None, manifest["cohort"].iloc[0]):
            train = manifest[sides(manifest, splits, start.get("fold") or 0) == "train"]
            seen = start.get("scans"), start.get("patients")
            expected = len(train), train["patient"].nunique()
            if None not in seen and seen != expected:
                detail = f"says train_patients and saw {seen[0]} scans of {seen[1]} patients; there are {expected[0]} "
                yield finding("exposure", str(card.parent), detail + f"scans of {expected[1]} training patients")
        start = start.get("start")


def thresholds(run: Predictions, how: str) -> Iterator[Found]:
    """Operating points that validation patients did not choose."""
    where = str(run.folder)
    if run.metadata.get("thresholds_from", "val") != "val":
        yield finding("threshold", where, f"thresholds are from {run.metadata['thresholds_from']}", len(run.labels))
        return
    val = run.take("val")
    wrong = []
    for index, (label, told) in enumerate(zip(run.labels, run.thresholds(), strict=True)):
        chosen = choose_threshold(val.truth()[:, index], val.probabilities()[:, index], how)  # type: ignore[arg-type]
        if (told is None) != (chosen is None) or (told is not None and abs(told - (chosen or 0)) > TOLERANCE):
            wrong.append((label, told, chosen))
    if wrong:
        label, told, chosen = wrong[0]
        given, own = ("none" if value is None else f"{value:.4g}" for value in (told, chosen))
        yield finding("threshold", where, f"{label}: {given}; validation patients choose {own}", len(wrong))
