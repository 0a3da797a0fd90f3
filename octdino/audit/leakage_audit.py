"""All checks over one cohort and its runs, written down; and the verdict on what was written."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from octdino import made_by
from octdino.audit import leakage_checks as checks
from octdino.audit.leakage_checks import Found, finding
from octdino.audit.near_duplicates import copies, textures
from octdino.config import AuditSettings
from octdino.data.cohort_reader import Cohort, read_cohort
from octdino.data.csv_io import FINDINGS, read_table, replacing, write_table
from octdino.data.predictions import read_predictions
from octdino.data.schemas.metadata import BackboneMetadata, read_metadata
from octdino.errors import UserError

log = logging.getLogger("octdino.audit")

NOT_CHECKABLE = "not checkable"

CLINICAL = "clinical"  # the arm without a network
ASKED = {
    "patient": "no patient is on two sides of a split",
    "eye": "no eye is, also not under two patients' names",
    "volume": "no volume is",
    "copy": "no picture is a copy of one on another side, resized, brightened, compressed or mirrored",
    "exposure": "no pretraining that says train_patients saw anybody else",
    "statistics": "scans are standardised with mean and standard deviation of the training {many}",
    "threshold": "thresholds were chosen on validation {many}",
    "weights": "weights are those that their card names by SHA-256, and classifiers start from those of audited runs",
}


def audit(settings: AuditSettings, store: Path, runs: list[Path], out: Path) -> None:
    """Write `out`/findings.csv and `out`/audit.json.

    A check that has nothing to compare, as that for patients where they are unknown, is a row of its own state.

    Args:
        store: scans.h5; manifest.csv and splits.csv stand beside it.
        runs: folders of pretrainings and classifiers.

    Raises:
        UserError: a file is missing or is not what it should be. A finding is none: see `verdict`.
    """
    cohort = read_cohort(store)
    found: list[Found] = []
    detail = textures(torch.from_numpy(cohort.images(np.arange(len(cohort)))))
    for fold in map(int, sorted(cohort.splits["fold"].unique())):
        found += checks.overlap(cohort, fold)
        found += checks.eyes_of_two(cohort, fold)
        found += _copies(settings, cohort, fold, detail)
    pretrained: checks.Hashes = {}
    for folder in runs:
        if (path := folder / "backbone.json").is_file():
            made = read_metadata(path, BackboneMetadata, "pretrain")
            pretrained.setdefault((made.name, made.backbone), set()).add(made.weights_sha256)
    for folder in runs:
        found += _of_run(folder, cohort, pretrained)
    unchecked = checks.not_checkable(cohort)
    rows = [one | {"state": "acknowledged" if one["check"] in settings.acknowledged else "open"} for one in found]
    rows += [finding(check, "manifest.csv", why, 0) | {"state": NOT_CHECKABLE} for check, why in unchecked.items()]
    table = pd.DataFrame(rows, columns=FINDINGS.names)
    write_table(out / "findings.csv", table, FINDINGS)
    card = {
        "asked": {check: words.format(many=cohort.unit.many) for check, words in ASKED.items()},
        "patients": cohort.unit.state,
        "not_checkable": unchecked,
        "scans": len(cohort),
        "runs": len(runs),
        "similarity": settings.similarity,
        "octdino": made_by("audit"),
    }
    with replacing(out / "audit.json") as temporary:
        temporary.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    acknowledged = int((table["state"] == "acknowledged").sum())
    log.info("%d findings, %d of them acknowledged", len(found), acknowledged)
    if line := unchecked_line(table):
        log.warning("%s", line)


def _copies(settings: AuditSettings, cohort: Cohort, fold: int, detail: torch.Tensor) -> Iterator[Found]:
    side = cohort.split_of(fold)
    codes = torch.from_numpy(side.map({"train": 0, "val": 1, "test": 2}).to_numpy("int64", copy=True))
    pairs = list(copies(detail, codes, settings.similarity))
    if pairs:
        worst = max(pairs, key=lambda pair: pair.similarity)
        names = [cohort.manifest["scan_id"].iloc[row] for row in (worst.one, worst.other)]
        how = "mirrored, " if worst.mirrored else ""
        where = f"{side.iloc[worst.one]} and {side.iloc[worst.other]}"
        text = f"{names[0]} and {names[1]} ({where}) are one picture: {how}correlation {worst.similarity:.3f}"
        yield finding("copy", f"fold {fold}", text, len(pairs))


def _of_run(folder: Path, cohort: Cohort, pretrained: checks.Hashes) -> Iterator[Found]:
    backbone, classifier = (folder / name for name in ("backbone.json", "classifier.json"))
    if not backbone.is_file() and not classifier.is_file():
        raise UserError(f"{folder}: neither backbone.json nor classifier.json; expected the folder of a run")
    if backbone.is_file():
        made = read_metadata(backbone, BackboneMetadata, "pretrain")
        yield from checks.standardisation(folder, made.input, made.fold or 0, cohort)
        yield from checks.weights(folder / "backbone.safetensors", made.weights_sha256)
        yield from checks.exposure(folder, made, cohort)
    if classifier.is_file():
        run = read_predictions(folder)
        if run.card.input:
            yield from checks.standardisation(folder, run.card.input, run.card.fold, cohort)
        elif run.card.arm != CLINICAL:
            yield finding("statistics", str(folder), "classifier.json does not say how its scans are standardised")
        if run.card.weights_sha256:
            yield from checks.weights(folder / "classifier.safetensors", run.card.weights_sha256)
        elif run.card.arm != CLINICAL:
            yield finding("weights", str(folder), "classifier.json names no weights")
        yield from checks.first_weights(folder, run.card, pretrained)
        yield from checks.thresholds(run, run.card.settings.threshold)


def unchecked_line(table: pd.DataFrame) -> str:
    """Return one line that names the checks that had nothing to compare, and why; empty if there are none.

    Args:
        table: findings.csv.
    """
    found = table[table["state"] == NOT_CHECKABLE]
    parts = [f"{', '.join(part['check'])} ({why})" for why, part in found.groupby("detail", sort=False)]
    return f"not checkable: {'; '.join(parts)}" if parts else ""


def verdict(findings: Path) -> str:
    """Return one line if no finding is open: that it passed, and which checks had nothing to compare.

    Raises:
        UserError: one is not; names the first and counts the rest.
    """
    table = read_table(findings, FINDINGS)
    open_ones = table[table["state"] == "open"]
    if len(open_ones):
        first, others = open_ones.iloc[0], len(open_ones) - 1
        raise UserError(
            f"{findings}: {first['check']}, {first['where']}: {first['detail']}"
            + (f"; and {others} more" if others else "")
            + "; mend it, or name the check in audit.acknowledged; the page shows all"
        )
    line = unchecked_line(table)
    return f"passed: no finding is open{f'; {line}' if line else ''}"
