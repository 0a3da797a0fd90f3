"""Leakage audit: all checks over one cohort and its runs, written to findings.csv and audit.json."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import torch

from octdino import made_by
from octdino.audit import leakage_checks as checks
from octdino.audit.audit_verdict import NOT_CHECKABLE, unchecked_line
from octdino.audit.external_overlap import external_overlap
from octdino.audit.leakage_checks import Found, finding
from octdino.audit.near_duplicates import copies, textures_of
from octdino.config import AuditSettings
from octdino.data.cohort_reader import Cohort, read_cohort
from octdino.data.csv_io import write_table
from octdino.data.predictions import read_predictions
from octdino.data.schemas.csv_schemas import FINDINGS
from octdino.data.schemas.metadata import AuditMetadata, BackboneMetadata, read_metadata, write_metadata
from octdino.errors import UserError

log = logging.getLogger("octdino.audit")

CLINICAL = "clinical"  # the arm without a network
LEFT_OUT = "left out"  # state of a leak of the published split, whose scans the cohort stage left out
CHECKS = {
    "patient": "no patient is in two splits",
    "eye": "no eye is, not even under two patients' names",
    "volume": "no volume is",
    "published": "no scan of a test patient is among the training scans of the published split",
    "copy": "no scan is a near-duplicate of one in another split, resized, brightened, compressed or mirrored",
    "exposure": "no pretraining with scope train_patients saw other patients",
    "statistics": "scans are standardized with mean and standard deviation of the training {many}",
    "threshold": "thresholds were chosen on validation {many}",
    "weights": "weights have the SHA-256 in their metadata, and classifiers start from those of audited runs",
    "external": "no scan of an external cohort is in this one, or a near-duplicate of one",
}


def audit(settings: AuditSettings, store: Path, runs: list[Path], out: Path, externals: Sequence[Path] = ()) -> None:
    """Write `out`/findings.csv and `out`/audit.json.

    A check that cannot be run, such as that for patients where they are unknown, is a row with a state of its own.

    Args:
        store: scans.h5; manifest.csv and splits.csv are beside it.
        runs: folders of pretraining runs and classifiers.
        externals: results/{cohort}/external/{name} of each external cohort.

    Raises:
        UserError: a file is missing or invalid. A finding is no error here: see `audit_verdict.verdict`.
    """
    cohort = read_cohort(store)
    found: list[Found] = []
    detail = textures_of(cohort)
    for fold in map(int, sorted(cohort.splits["fold"].unique())):
        found += checks.overlap(cohort, fold)
        found += checks.eyes_of_two(cohort, fold)
        found += _near_duplicates(settings, cohort, fold, detail)
    for folder in externals:
        found += external_overlap(settings, cohort, detail, folder)
    pretrained: checks.Hashes = {}
    for folder in runs:
        if (path := folder / "backbone.json").is_file():
            made = read_metadata(path, BackboneMetadata, "pretrain")
            pretrained.setdefault((made.name, made.backbone), set()).add(made.weights_sha256)
    for folder in runs:
        found += _of_run(folder, cohort, pretrained)
    unchecked = checks.not_checkable(cohort)
    leak = cohort.attributes.published_leak
    rows = [one | {"state": "acknowledged" if one["check"] in settings.acknowledged else "open"} for one in found]
    rows += [finding(check, "manifest.csv", why, 0) | {"state": NOT_CHECKABLE} for check, why in unchecked.items()]
    rows += [one | {"state": LEFT_OUT} for one in checks.published_split(leak)]
    table = pd.DataFrame(rows, columns=FINDINGS.names)
    write_table(out / "findings.csv", table, FINDINGS)
    asked = {check: words.format(many=cohort.unit.many) for check, words in CHECKS.items()}
    if leak is None:
        del asked["published"]
    if not externals:
        del asked["external"]
    metadata = {
        "asked": asked,
        "patients": cohort.unit.state,
        "not_checkable": unchecked,
        "scans": len(cohort),
        "runs": len(runs),
        "similarity": settings.similarity,
        "octdino": made_by("audit"),
    }
    write_metadata(out / "audit.json", AuditMetadata.parse(metadata, f"{out}/audit.json"))
    acknowledged = int((table["state"] == "acknowledged").sum())
    log.info("%d findings, %d of them acknowledged", len(found), acknowledged)
    if line := unchecked_line(table):
        log.warning("%s", line)


def _near_duplicates(settings: AuditSettings, cohort: Cohort, fold: int, detail: torch.Tensor) -> Iterator[Found]:
    split = cohort.split_of(fold)
    codes = torch.from_numpy(split.map({"train": 0, "val": 1, "test": 2}).to_numpy("int64", copy=True))
    pairs = list(copies(detail, codes, settings.similarity))
    if pairs:
        worst = max(pairs, key=lambda pair: pair.similarity)
        names = [cohort.manifest["scan_id"].iloc[row] for row in (worst.one, worst.other)]
        how = "mirrored, " if worst.mirrored else ""
        where = f"{split.iloc[worst.one]} and {split.iloc[worst.other]}"
        text = f"{names[0]} and {names[1]} ({where}) are near-duplicates: {how}correlation {worst.similarity:.3f}"
        yield finding("copy", f"fold {fold}", text, len(pairs))


def _of_run(folder: Path, cohort: Cohort, pretrained: checks.Hashes) -> Iterator[Found]:
    backbone, classifier = (folder / name for name in ("backbone.json", "classifier.json"))
    if not backbone.is_file() and not classifier.is_file():
        raise UserError(f"{folder}: neither backbone.json nor classifier.json; expected the folder of a run")
    if backbone.is_file():
        made = read_metadata(backbone, BackboneMetadata, "pretrain")
        yield from checks.standardization(folder, made.input, made.fold or 0, cohort)
        yield from checks.weights(folder / "backbone.safetensors", made.weights_sha256)
        yield from checks.exposure(folder, made, cohort)
    if classifier.is_file():
        run = read_predictions(folder)
        if run.metadata.published and run.metadata.published.standardized_by == "published":
            pass  # of the published network: it saw no scan of this cohort
        elif run.metadata.input:
            yield from checks.standardization(folder, run.metadata.input, run.metadata.fold, cohort)
        elif run.metadata.arm != CLINICAL:
            yield finding("statistics", str(folder), "classifier.json does not hold how its scans are standardized")
        if run.metadata.weights_sha256:
            yield from checks.weights(folder / "classifier.safetensors", run.metadata.weights_sha256)
        elif run.metadata.arm != CLINICAL:
            yield finding("weights", str(folder), "classifier.json names no weights")
        yield from checks.first_weights(folder, run.metadata, pretrained)
        yield from checks.thresholds(run, run.metadata.settings.threshold)
