"""What a cohort would be, before anything runs: all rows and folders, but only a sample of the images."""

import hashlib
import logging
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from octdino.cohort.file_index import FileIndex
from octdino.cohort.registry import READERS
from octdino.cohort.scan_table import ScanTable
from octdino.cohort.split import check_splittable, make_splits
from octdino.config.cohort import CohortSettings
from octdino.config.evaluate import EvaluateSettings
from octdino.data.csv_io import label_matrix
from octdino.data.schemas.csv_schemas import SPLIT_NAMES
from octdino.errors import UserError
from octdino.progress import progress
from octdino.scans.decode_pool import decode_scans
from octdino.scans.image_files import describe_image
from octdino.scans.preprocess import DecodedScan
from octdino.scans.sources import DAMAGED, ImageSource

SAMPLE = 200  # images that are decoded by default
PER_GROUP = 6  # scans per label that are shown
MOST_GROUPS = 24
MOST_HASHED, MOST_BYTES = 4_000, 400_000_000  # files of equal size that are compared byte by byte
MOST_DIVIDED = 20_000  # patients up to which the split is made and not estimated
LEAST = ("min_positive_patients", "primary_positive_patients")  # settings of evaluate

log = logging.getLogger("octdino.cohort")


@dataclass(frozen=True, eq=False)
class Sampled:
    """A decoded scan of the sample: its row in the table of scans, and format and pixels of its file."""

    row: int
    kind: str
    scan: DecodedScan


@dataclass
class Inspection:
    """What would be read.

    Attributes:
        settings: of the cohort, as they were used.
        table: every scan, no image decoded.
        files: number of files below root by suffix.
        sample: decoded scans, in order of the table.
        groups: rows of the sample to be shown, by label; `no label` for scans without any.
        copies: files that are byte by byte another one, of `compared` files.
        splits: patients and scans per split; empty where none can be made.
        estimated: whether `splits` are shares and no split that was made.
        problems: what ends a run, or should be known before one.
    """

    settings: CohortSettings
    table: ScanTable
    files: Counter[str]
    sample: list[Sampled] = field(default_factory=list)
    groups: dict[str, list[Sampled]] = field(default_factory=dict)
    copies: int = 0
    compared: int = 0
    splits: dict[str, tuple[int, int]] = field(default_factory=dict)
    estimated: bool = False
    problems: list[str] = field(default_factory=list)

    @property
    def truth(self) -> np.ndarray:
        """Labels, float32 [N, L], NaN where unknown."""
        return label_matrix(self.table.truth, self.table.labels)

    @property
    def patients(self) -> int | None:
        """The number of patients; None where they are unknown."""
        return int(self.table.scans["patient"].nunique()) if self.table.patients == "known" else None


def inspect_cohort(settings: CohortSettings, sample: int = SAMPLE, workers: int = 1) -> Inspection:
    """Read tables and folders as the cohort stage does, decode `sample` images, and try the split.

    Raises:
        UserError: as the reader of the cohort; or nothing is left.
    """
    log.info("reading tables and folders below %s", settings.root)
    table = READERS[settings.name](settings)
    if table.scans.empty:
        first = table.quarantine.rows[0]["detail"] if table.quarantine.rows else "there is no file"
        raise UserError(f"{table.root}: no scan can be read; {first}")
    found = Inspection(settings, table, _suffixes(table.root))
    rows = _sample_rows(found.truth, sample)
    paths = table.scans["path"].iloc[rows].tolist()
    source = table.image_source()
    decoded = progress(decode_scans(paths, source, settings.image, workers), len(paths), "reading a sample", "scan")
    for row, path, scan in zip(rows, paths, decoded, strict=True):
        found.sample.append(Sampled(int(row), _kind(source, path), scan))
    found.groups = _groups(found)
    found.copies, found.compared = _identical(table)
    _divide(found)
    _find_problems(found)
    return found


def _suffixes(root: Path) -> Counter[str]:
    suffixes = (os.path.splitext(name)[1].lower() for name in FileIndex(root).files)  # noqa: PTH122  of every file
    return Counter(suffix or "no suffix" for suffix in suffixes)


def _kind(source: ImageSource, path: str) -> str:
    """Return format and pixels of a scan's file; of a clinical one its suffix."""
    if "#" in path:
        return Path(path.rpartition("#")[0]).suffix.lower()
    try:
        encoded = source(path)
    except DAMAGED:
        return ""
    return describe_image(encoded) if isinstance(encoded, Path | bytes) else "decoded"


def _sample_rows(truth: np.ndarray, count: int) -> np.ndarray:
    """Return rows to decode, ascending: some with each label, the rest evenly over the table."""
    chosen = set(np.unique(np.linspace(0, len(truth) - 1, min(count, len(truth))).round().astype(int)).tolist())
    for label in range(min(truth.shape[1], MOST_GROUPS)):
        positive = np.flatnonzero(truth[:, label] == 1)
        places = np.linspace(0, len(positive) - 1, min(2 * PER_GROUP, len(positive))).round().astype(int)
        chosen |= set(positive[np.unique(places)].tolist())
    return np.array(sorted(chosen), dtype=np.int64)


def _groups(found: Inspection) -> dict[str, list[Sampled]]:
    """Return up to PER_GROUP readable scans of the sample per label, of different patients where there are enough."""
    truth, patients = found.truth, found.table.scans["patient"].tolist()
    good = [one for one in found.sample if one.scan.image is not None]
    groups: dict[str, list[Sampled]] = {}
    for index, label in enumerate(found.table.labels[:MOST_GROUPS]):
        groups[label] = _different([one for one in good if truth[one.row, index] == 1], patients)
    unlabeled = [one for one in good if not truth.shape[1] or np.isnan(truth[one.row]).all()]
    groups["no label"] = _different(unlabeled, patients)
    if truth.shape[1] and not found.table.exclusive:
        groups["none of the labels"] = _different([one for one in good if (truth[one.row] == 0).all()], patients)
    return {name: some for name, some in groups.items() if some}


def _different(some: list[Sampled], patients: list[str]) -> list[Sampled]:
    """Return PER_GROUP scans, each of another patient as long as there are others."""
    first: dict[str, Sampled] = {}
    for one in some:
        first.setdefault(patients[one.row], one)
    chosen = list(first.values())
    chosen += [one for one in some if one not in chosen]
    return chosen[:PER_GROUP]


def _identical(table: ScanTable) -> tuple[int, int]:
    """Return how many files are byte by byte another one, and how many files that was asked of.

    Only files of equal size are read, up to MOST_HASHED of them.
    """
    by_size: dict[int, list[Path]] = {}
    for path in table.scans["path"].tolist():
        try:
            size = os.stat(file := table.root / path).st_size  # noqa: PTH116  called for every file
        except OSError:  # in an archive, or a B-scan of a clinical file
            continue
        by_size.setdefault(size, []).append(file)
    compared = sum(len(files) for files in by_size.values() if len(files) == 1)
    alike = [(size, files) for size, files in sorted(by_size.items()) if len(files) > 1]
    copies = hashed = read = 0
    for size, files in alike:
        if hashed + len(files) > MOST_HASHED or read + size * len(files) > MOST_BYTES:
            continue
        hashed, read = hashed + len(files), read + size * len(files)
        digests = {hashlib.blake2b(file.read_bytes(), digest_size=16).digest() for file in files if file.is_file()}
        copies += len(files) - len(digests)
    return copies, compared + hashed


def _divide(found: Inspection) -> None:
    """Set the sizes of the splits, or the reason why there is none; duplicates are not joined yet."""
    table, split = found.table, found.settings.split
    scans = table.scans.assign(group=table.scans["patient"])
    level = log.level
    log.setLevel(logging.ERROR)  # the numbers are shown, and the cohort stage logs them
    try:
        check_splittable(scans, table.truth, split, table.unlabeled)
        if scans["patient"].nunique() > MOST_DIVIDED and not (scans["given_split"] != "").any():
            shares = {"train": 1 - split.val - split.test, "val": split.val, "test": split.test}
            counts = scans["patient"].nunique(), len(scans)
            found.splits = {
                name: (round(share * counts[0]), round(share * counts[1])) for name, share in shares.items()
            }
            found.estimated = True
            return
        made = make_splits(scans, table.truth, split, table.unlabeled)
    except UserError as why:
        found.problems.append(f"The split cannot be made: {why}")
        return
    finally:
        log.setLevel(level)
    first = made[made["fold"] == 0]
    own = scans["patient"].map(dict(zip(first["patient"], first["split"], strict=True)))
    found.splits = {
        name: (int((first["split"] == name).sum()), int((own == name).sum())) for name in SPLIT_NAMES
    }  # fmt: skip


def _find_problems(found: Inspection) -> None:
    """Append what should be known before a run."""
    table = found.table
    if table.patients == "unknown":
        found.problems.append(
            "Patients are unknown: scans of one patient may be in training and in test, so scores may be too high; a "
            "patient column, cohort.patient_pattern or cohort.folders names them."
        )
    _find_rare_labels(found)
    if bad := [one for one in found.sample if one.scan.image is None]:
        found.problems.append(f"{len(bad)} of {len(found.sample)} sampled images would be refused.")
    sizes = Counter(one.scan.size for one in found.sample if one.scan.image is not None)
    usual = max(sizes, key=lambda size: sizes[size], default=(0, 0))
    square = {size: count for size, count in sizes.items() if size[0] == size[1] != usual[0]}
    if square and sizes[usual] > len(found.sample) // 2 and usual[0] != usual[1]:
        found.problems.append(
            f"{sum(square.values())} of {len(found.sample)} sampled images are square and others are not: fundus "
            "photographs do not belong among scans."
        )


def _find_rare_labels(found: Inspection) -> None:
    """Append the labels of too few patients to be split, evaluated, or more than exploratory."""
    least, enough = (EvaluateSettings.model_fields[name].default for name in LEAST)
    what = "patients" if found.table.patients == "known" else "scans"
    counts = {label: positive_patients(found, index) for index, label in enumerate(found.table.labels)}
    for label, count in counts.items():
        if count < 3:
            found.problems.append(f"{label}: {count} {what} with it; a split needs three, one each.")
    if rare := [f"{label} ({count})" for label, count in counts.items() if 3 <= count < least]:
        found.problems.append(f"Not evaluated with fewer than {least} {what} (evaluate.{LEAST[0]}): {', '.join(rare)}.")
    if few := [f"{label} ({count})" for label, count in counts.items() if least <= count < enough]:
        found.problems.append(
            f"At most exploratory, with fewer than {enough} {what} (evaluate.{LEAST[1]}): {', '.join(few)}."
        )


def positive_patients(found: Inspection, label: int) -> int:
    """Return how many patients have a scan with a label, by the label's position."""
    positive: pd.Series = found.table.scans["patient"][found.truth[:, label] == 1]
    return int(positive.nunique())
