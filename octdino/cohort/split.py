"""Train, validation and test splits by patient, stratified over labels; the content of splits.csv."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from octdino.cohort.stratify import ENOUGH, Groups, nested_order, stratify
from octdino.config.cohort import SplitSettings
from octdino.data.csv_io import label_matrix, read_table
from octdino.data.schemas.csv_schemas import SPLIT_NAMES, SPLITS
from octdino.errors import UserError

# The OLIVES papers' test patients, 10 of PRIME and 10 of TREX-DME each (complete_biomarker_test.csv of final_csvs_2 and
# _3 in olivesgatech/Severity_Contrastive_Learning). Their first list is not here: four of its patients train, too.
PUBLISHED = {
    "published2": (*range(57, 67), 207, 210, 219, 220, 224, 234, 237, 241, 247, 253),
    "published3": (*range(67, 77), 201, 203, 206, 208, 213, 217, 225, 229, 239, 254),
}

log = logging.getLogger("octdino.cohort")


def make_splits(
    scans: pd.DataFrame, truth: pd.DataFrame, settings: SplitSettings, unlabeled: bool = False
) -> pd.DataFrame:
    """Return splits.csv: one row per fold and patient, in order of first appearance; only `crossval` has several folds.

    The user's own split (`given_split`) is kept, and the file of an earlier run; otherwise groups are assigned at
    random: labeled groups stratified over labels and trial, groups without any label by shares.

    Args:
        scans: columns patient, group, trial, given_split, path and row.
        truth: their labels, one column per label.
        settings: protocol, shares, seed, file.
        unlabeled: the cohort has no labels on purpose; groups are assigned by shares, one or two train.

    Raises:
        UserError: too few labeled groups, a patient that the file lacks, or a group in two splits.
    """
    scans, labels = _with_published_test(scans, settings), list(truth.columns)
    names, groups, labeled = describe_groups(scans, truth)
    split_of, rank = _given_partition(scans, labels, labeled, settings, unlabeled)
    group_of_patient = dict(zip(scans["patient"], scans["group"], strict=True))
    folds = []
    if settings.protocol == "crossval":
        partitions = [
            one
            for repeat in range(settings.repeats)
            for one in _crossval_partitions(names, groups, labeled, settings, repeat)
        ]
    else:
        if settings.file is None:
            _assign_rest(split_of, names, groups, labeled, settings)
        partitions = [split_of]
    for fold, split_of in enumerate(partitions):
        labeled_groups = {name for name, has in zip(names, labeled, strict=True) if has}
        missing = [s for s in SPLIT_NAMES if s not in {split_of[name] for name in labeled_groups}]
        if missing and not unlabeled:
            raise UserError(f"cohort: no patient with a label in {' or '.join(missing)}; expected one or more")
        _log_partition(names, groups, labeled, labels, split_of)
        if (
            not {name for name in labeled_groups if split_of[name] == "train"} <= set(rank)
            or settings.protocol == "crossval"
        ):
            rank = _rank_groups(names, groups, labeled, split_of, settings.seed)
        folds += [
            {"fold": fold, "patient": patient, "group": group, "split": split_of[group], "rank": rank.get(group)}
            for patient, group in group_of_patient.items()
        ]
    return pd.DataFrame(folds, columns=[c.name for c in SPLITS]).astype({c.name: c.dtype for c in SPLITS})


def external_splits(scans: pd.DataFrame) -> pd.DataFrame:
    """Return splits.csv of an external cohort: one fold in which every patient is test, whatever its tables say.

    Args:
        scans: columns patient and group.
    """
    own = scans[["patient", "group"]].drop_duplicates()
    return own.assign(fold=0, split="test", rank=None)[SPLITS.names].astype({c.name: c.dtype for c in SPLITS})


def _with_published_test(scans: pd.DataFrame, settings: SplitSettings) -> pd.DataFrame:
    """Set the given split of the published test patients to test, of all others to train."""
    if settings.protocol not in PUBLISHED:
        return scans
    tested = scans["patient"].isin([str(patient) for patient in PUBLISHED[settings.protocol]])
    return scans.assign(given_split=np.where(tested, "test", "train"))


def _crossval_partitions(
    names: list[str], groups: Groups, labeled: np.ndarray, settings: SplitSettings, repeat: int
) -> list[dict[str, str]]:
    """Return the split of each group per fold of one partition: each group is in test once, else in val or train."""
    repeat_seed = settings.seed + 7919 * repeat
    parts = [(np.flatnonzero(labeled), 2 * repeat_seed), (np.flatnonzero(~labeled), 2 * repeat_seed + 1)]
    number = np.zeros(len(names), dtype=int)
    for rows, seed in parts:
        number[rows] = _stratify_rows(groups, rows, np.full(settings.folds, 1 / settings.folds), seed)
    found = []
    for fold in range(settings.folds):
        split_of = np.where(number == fold, 2, 0)
        share = min(0.5, settings.val / (1 - 1 / settings.folds))
        for rows, seed in parts:
            rest = rows[number[rows] != fold]
            split_of[rest] = _stratify_rows(groups, rest, np.array([1 - share, share]), seed + 104729 * (fold + 1))
        found.append({name: SPLIT_NAMES[which] for name, which in zip(names, split_of, strict=True)})
    return found


def _stratify_rows(groups: Groups, rows: np.ndarray, shares: np.ndarray, seed: int) -> np.ndarray:
    """`stratify` of the groups `rows`; one per split in order where there are fewer groups than splits."""
    if len(rows) < len(shares):
        return np.arange(len(rows))
    return stratify(groups.take(rows), shares, seed)


def describe_groups(scans: pd.DataFrame, truth: pd.DataFrame) -> tuple[list[str], Groups, np.ndarray]:
    """Return the groups' names, their counts per label and trial, and which have any label: bool [G]."""
    codes, names = pd.factorize(scans["group"])
    values = label_matrix(truth, list(truth.columns))
    trials = pd.get_dummies(scans["trial"]).to_numpy(np.float32)
    known, positive = ~np.isnan(values), np.nan_to_num(values) > 0
    labeled = np.bincount(codes, known.any(axis=1), len(names)) > 0
    # Trials count on labeled scans only: what is trained on and tested should be balanced.
    some = known.any(axis=1, keepdims=True)
    positive = np.concatenate([positive, (trials > 0) & some], axis=1)
    known = np.concatenate([known, np.repeat(some, trials.shape[1], axis=1)], axis=1)
    sums = [np.zeros((len(names), positive.shape[1])) for _ in range(2)]
    np.add.at(sums[0], codes, positive)
    np.add.at(sums[1], codes, known)
    return [str(name) for name in names], Groups(sums[0] > 0, sums[0], sums[1]), labeled


def check_splittable(
    scans: pd.DataFrame, truth: pd.DataFrame, settings: SplitSettings, unlabeled: bool = False
) -> None:
    """Check before any image is decoded that the split is possible, so that no hours are lost.

    Raises:
        UserError: as make_splits.
    """
    scans = _with_published_test(scans.assign(group=scans["patient"]), settings)
    _given_partition(scans, list(truth.columns), describe_groups(scans, truth)[2], settings, unlabeled)


def _given_partition(
    scans: pd.DataFrame, labels: list[str], labeled: np.ndarray, settings: SplitSettings, unlabeled: bool
) -> tuple[dict[str, str], dict[str, int]]:
    """Return the splits and ranks of groups that are given: by a file, by the table, or none."""
    if unlabeled:
        if settings.protocol == "crossval":
            raise UserError("cohort.split.protocol: crossval of scans without labels; expected holdout")
        if settings.file is not None:
            return _partition_from_file(settings.file, dict(zip(scans["patient"], scans["group"], strict=True)))
        return _partition_from_table(scans), {}
    if not labels:
        raise UserError("cohort: no label column; expected one or more whose cells are 0, 1 or empty")
    if labeled.sum() < len(SPLIT_NAMES):
        raise UserError(
            f"cohort: {labeled.sum()} patients with a label ({len(labels)} labels); expected {len(SPLIT_NAMES)} or "
            "more, one each to train, validate and test"
        )
    if settings.protocol == "crossval":
        if labeled.sum() < settings.folds + 2:
            raise UserError(
                f"cohort: {labeled.sum()} patients with a label; expected {settings.folds + 2} or more for "
                f"{settings.folds} folds"
            )
        if (scans["given_split"] != "").any():
            raise UserError("cohort: there is a split column, and cohort.split.protocol crossval; leave one out")
        return {}, {}
    if settings.file is not None:
        return _partition_from_file(settings.file, dict(zip(scans["patient"], scans["group"], strict=True)))
    return _partition_from_table(scans), {}


def _assign_rest(
    split_of: dict[str, str], names: list[str], groups: Groups, labeled: np.ndarray, settings: SplitSettings
) -> None:
    """Assign every group without a split, in place.

    Where the given split lacks val, val is taken from the labeled part of train, since thresholds need labels.
    """
    test = 0.0 if split_of else settings.test
    shares = np.array([1 - settings.val - settings.test, settings.val, test])
    open_splits = SPLIT_NAMES if test else SPLIT_NAMES[:2]
    shares = shares[: len(open_splits)] / shares.sum()
    if split_of and "val" in split_of.values():
        return
    chosen = np.array([split_of.get(name, "train") == "train" for name in names])
    parts = [(chosen & labeled, 2 * settings.seed)]
    if test:
        parts.append((chosen & ~labeled, 2 * settings.seed + 1))
    for part, seed in parts:
        rows = np.flatnonzero(part)
        if len(rows) >= len(open_splits):
            found = stratify(groups.take(rows), shares, seed)
        else:
            found = np.zeros(len(rows), dtype=int)  # one or two groups without labels: train only
        split_of.update({names[row]: open_splits[int(s)] for row, s in zip(rows, found, strict=True)})


def _partition_from_table(scans: pd.DataFrame) -> dict[str, str]:
    """Return the split of each group as the user's table has it; empty if it has none.

    Raises:
        UserError: patients with identical scans are in two splits, or train or test is empty.
    """
    given = scans[scans["given_split"] != ""]
    if given.empty:
        return {}
    split_of: dict[str, str] = {}
    first: dict[str, Any] = {}
    for scan in given[["group", "patient", "given_split", "path", "row"]].itertuples(index=False):
        other = first.setdefault(str(scan.group), scan)
        if split_of.setdefault(str(scan.group), str(scan.given_split)) != scan.given_split:
            raise UserError(
                f"cohort: patients {other.patient} ({other.given_split}) and {scan.patient} ({scan.given_split}) share "
                f"identical scans and are in two splits, e.g. {other.path} and {scan.path}; put them in one"
            )
    if missing := {"train", "test"} - set(split_of.values()):
        raise UserError(f"cohort: the split column has no patient in {' or '.join(sorted(missing))}; expected both")
    if rest := scans.loc[~scans["group"].isin(list(split_of)), "patient"].unique().tolist():
        raise UserError(f"cohort: patient {rest[0]} and {len(rest) - 1} others have no split, some patients have one")
    return split_of


def _partition_from_file(path: Path, group_of_patient: dict[str, str]) -> tuple[dict[str, str], dict[str, int]]:
    """Return the splits and ranks of the groups from a splits.csv.

    Raises:
        UserError: it lacks a patient of the cohort, or separates patients with identical scans.
    """
    table = read_table(path, SPLITS)
    table = table[table["fold"] == 0]
    partitions = dict(zip(table["patient"], table["split"], strict=True))
    if missing := [patient for patient in group_of_patient if patient not in partitions]:
        raise UserError(f"{path}: no patient {missing[0]}" + (f" and {len(missing) - 1} more" if missing[1:] else ""))
    ranks: dict[str, Any] = dict(zip(table["patient"], table["rank"], strict=True))
    split_of: dict[str, str] = {}
    rank: dict[str, int] = {}
    for patient, group in group_of_patient.items():
        if split_of.setdefault(group, partitions[patient]) != partitions[patient]:
            raise UserError(
                f"{path}: patient {patient} is in {partitions[patient]} and {group} in {split_of[group]}, "
                "but they share identical scans; put them in one split"
            )
        if ranks[patient] is not pd.NA:
            rank[group] = min(int(ranks[patient]), rank.get(group, int(ranks[patient])))
    return split_of, rank


def _rank_groups(
    names: list[str], groups: Groups, labeled: np.ndarray, split_of: dict[str, str], seed: int
) -> dict[str, int]:
    """Return the rank of each labeled training group: label fractions take groups in this order."""
    rows = np.array([i for i, name in enumerate(names) if split_of[name] == "train" and labeled[i]], dtype=np.int64)
    return {names[rows[chosen]]: place for place, chosen in enumerate(nested_order(groups.take(rows), seed))}


def _log_partition(
    names: list[str], groups: Groups, labeled: np.ndarray, labels: list[str], split_of: dict[str, str]
) -> None:
    """Log the number of groups per split, and each label that has no positive group in one of them."""
    where = np.array([split_of[name] for name in names])
    sizes = ", ".join(f"{s} {int((where == s).sum())}" for s in SPLIT_NAMES)
    log.info("split groups: %s; %d of %d have labels", sizes, int(labeled.sum()), len(names))
    for i, label in enumerate(labels):
        counts = {s: int(groups.positive[where == s, i].sum()) for s in SPLIT_NAMES}
        if not all(counts.values()):
            level = logging.WARNING if sum(counts.values()) >= ENOUGH else logging.INFO
            log.log(level, "%s: positive groups %s", label, ", ".join(f"{s} {n}" for s, n in counts.items()))
