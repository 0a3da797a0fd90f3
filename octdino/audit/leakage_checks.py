"""Leakage checks of a comparison, one function per question; each yields its findings."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from octdino.config import Arm
from octdino.config.names import ThresholdRule
from octdino.data.cohort_reader import Cohort
from octdino.data.file_hash import sha256_of
from octdino.data.predictions import Predictions
from octdino.data.schemas.metadata import BackboneMetadata, ClassifierMetadata, Input, Origin, PublishedLeak
from octdino.stats.thresholds import choose_threshold

Found = dict[str, Any]  # the columns of FINDINGS but state

Hashes = dict[tuple[str, str], set[str]]  # SHA-256 of the weights of pretraining runs, by name and backbone

TOLERANCE = 1e-6  # of means and thresholds, which are written with all their digits


def finding(check: str, where: str, detail: str, count: int = 1) -> Found:
    """Return a row of findings.csv."""
    return {"check": check, "where": where, "count": count, "detail": detail}


def not_checkable(cohort: Cohort) -> dict[str, str]:
    """Return why a check cannot be run, by check: without names of patients, eyes or visits."""
    manifest, unit = cohort.manifest, cohort.unit
    why = {"unknown": "patients are unknown, each image counts as its own", "none": "there are no patients"}
    if not unit.patients:
        return dict.fromkeys(("patient", "eye", "volume"), why[unit.state])
    eye, visit = (manifest[name].fillna("") != "" for name in ("eye", "visit"))
    found = {} if eye.any() else {"eye": "no eye is named"}
    return found if (eye & visit).any() else {**found, "volume": "no visit of a named eye is named"}


def overlap(cohort: Cohort, fold: int) -> Iterator[Found]:
    """Yield split groups (patients that share identical images), eyes and volumes that are in two splits."""
    manifest, split = cohort.manifest, cohort.split_of(fold)
    eye = manifest["eye"].fillna("")
    volume = eye + " " + manifest["visit"].fillna("")
    for check, name in (
        ("patient", manifest["group"]),
        ("eye", eye),
        ("volume", volume.where((eye != "") & (manifest["visit"].fillna("") != ""), "")),
    ):
        known = name != ""
        several = split[known].groupby(name[known]).nunique()
        names = several.index[several > 1].tolist()
        if names:
            where = ", ".join(sorted(split[known][name[known] == names[0]].unique()))
            yield finding(check, f"fold {fold}", f"{names[0]} is in {where}", len(names))


def published_split(leak: PublishedLeak | None) -> Iterator[Found]:
    """Yield the leak of the published split that the cohort stage found and left out of this run."""
    if leak and leak.scans:
        detail = f"the published split trains on {leak.scans:,} scans of {leak.patients:,} patients that it also tests"
        yield finding("published", "quarantine.csv", f"{detail}; left out here", leak.scans)


def eyes_of_two(cohort: Cohort, fold: int) -> Iterator[Found]:
    """Yield eyes that are in two splits under two names: same laterality, acuity and thickness per visit."""
    table = cohort.manifest.assign(split=cohort.split_of(fold))
    measured = table[table["bcva"].notna() & table["cst"].notna()]
    visits = measured.groupby(["patient", "eye", "visit"], dropna=False).agg(
        bcva=("bcva", "first"), cst=("cst", "first"), split=("split", "first"), laterality=("laterality", "first")
    )
    courses: dict[tuple[Any, ...], list[tuple[str, str]]] = {}
    for (patient, _), course in visits.groupby(level=["patient", "eye"], dropna=False):
        values = tuple(zip(course["bcva"], course["cst"], strict=True))
        if len(set(values)) > 2:  # three equal pairs of acuity and thickness are no coincidence
            courses.setdefault((course["laterality"].iloc[0], *values), []).append(
                (str(patient), course["split"].iloc[0])
            )
    for same in courses.values():
        if len({patient for patient, _ in same}) > 1 and len({where for _, where in same}) > 1:
            names = " and ".join(f"{patient} ({where})" for patient, where in same)
            yield finding(
                "eye", f"fold {fold}", f"{names} have the same acuity and thickness at every visit", len(same)
            )


def standardization(folder: Path, used: Input, fold: int, cohort: Cohort) -> Iterator[Found]:
    """Yield a mean and standard deviation that are not those of the fold's training patients."""
    expected = [value for part in cohort.statistics(fold) for value in part]
    got = [*used.mean, *used.std]
    if len(got) != len(expected) or not np.allclose(got, expected, rtol=0, atol=TOLERANCE):
        detail = f"mean {got[0]:.6f}, that of the training patients is {expected[0]:.6f}"
        yield finding("statistics", str(folder), detail)


def weights(path: Path, sha256: str) -> Iterator[Found]:
    """Yield a file of weights that is not the one that its metadata names."""
    if not path.is_file():
        yield finding("weights", str(path.parent), f"{path.name} is missing; its metadata names one")
    elif (found := sha256_of(path)) != sha256:
        detail = f"{path.name} has SHA-256 {found[:12]}…, its metadata names {sha256[:12]}…"
        yield finding("weights", str(path.parent), detail)


def first_weights(
    folder: Path, run: ClassifierMetadata, pretrained: dict[tuple[str, str], set[str]]
) -> Iterator[Found]:
    """A classifier whose backbone started from the weights of none of the audited pretraining runs of its init.

    Args:
        pretrained: SHA-256 of the weights of the audited runs, by name and backbone. Arms on frozen features have their
            hash from the attributes of the embeddings that they were trained on.
    """
    known = pretrained.get((Arm.named(run.arm).init, run.backbone), set())
    if known and run.pretrained is not None and run.pretrained not in known:
        detail = f"started from weights with SHA-256 {run.pretrained[:12]}…; no audited pretraining run has them"
        yield finding("weights", str(folder), detail)


def exposure(folder: Path, metadata: BackboneMetadata, cohort: Cohort) -> Iterator[Found]:
    """Yield a pretraining with scope train_patients that saw other patients, by the counts in its metadata."""
    start: Origin | None = metadata
    while start:  # a run may start from another, and that from another
        if start.scope == "train_patients" and (start.cohort in (None, cohort.name) or start.source == cohort.source):
            train = cohort.manifest[cohort.split_of(start.fold or 0) == "train"]
            seen, expected = (start.scans, start.patients), (len(train), train["patient"].nunique())
            if None not in seen and seen != expected:
                detail = f"scope is train_patients, but it saw {seen[0]} scans of {seen[1]} patients"
                detail += f"; there are {expected[0]} scans of {expected[1]} training patients"
                yield finding("exposure", str(folder), detail)
        start = start.start


def thresholds(run: Predictions, how: ThresholdRule) -> Iterator[Found]:
    """Yield thresholds that were not chosen on validation patients."""
    where = str(run.folder)
    if run.metadata.thresholds_from != "val":
        yield finding("threshold", where, f"thresholds are from {run.metadata.thresholds_from}", len(run.labels))
        return
    val = run.take("val")
    wrong = []
    for index, (label, stored) in enumerate(zip(run.labels, run.thresholds(), strict=True)):
        chosen = choose_threshold(val.truth()[:, index], val.probabilities()[:, index], how)
        if (stored is None) != (chosen is None) or (stored is not None and abs(stored - (chosen or 0)) > TOLERANCE):
            wrong.append((label, stored, chosen))
    if wrong:
        label, stored, chosen = wrong[0]
        given, own = ("none" if value is None else f"{value:.4g}" for value in (stored, chosen))
        yield finding("threshold", where, f"{label}: {given}; validation patients choose {own}", len(wrong))
