"""Who trains, who validates, who tests: by patient, stratified over labels, written to splits.csv."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from octdino.cohort.stratify import ENOUGH, Groups, assign, order
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


def make_splits(scans: pd.DataFrame, truth: pd.DataFrame, settings: SplitSettings) -> pd.DataFrame:
    """splits.csv: one row a fold and patient, in order of first appearance; only `crossval` has more than fold 0.

    The user's own split (`given`) is honoured, a file of an earlier run too; else the split is made. Labelled groups
    are stratified over labels and trial, groups without any label go by shares.

    Args:
        scans: columns patient, group, trial, given, path and row.
        truth: their labels, one column per label.
        settings: protocol, shares, seed, file.

    Raises:
        UserError: too few labelled groups, a patient that the file lacks, a group on two sides.
    """
    scans, labels = _published(scans, settings), list(truth.columns)
    names, groups, labelled = describe(scans, truth)
    side, rank = _fixed(scans, labels, labelled, settings)
    whose = dict(zip(scans["patient"], scans["group"], strict=True))
    folds = []
    if settings.protocol == "crossval":
        sides = [one for repeat in range(settings.repeats) for one in _folds(names, groups, labelled, settings, repeat)]
    else:
        if settings.file is None:
            _fill(side, names, groups, labelled, settings)
        sides = [side]
    for fold, side in enumerate(sides):
        learners = {name for name, has in zip(names, labelled, strict=True) if has}
        if missing := [s for s in SPLIT_NAMES if s not in {side[name] for name in learners}]:
            raise UserError(f"cohort: no patient with a label in {' or '.join(missing)}; expected one or more")
        _report(names, groups, labelled, labels, side)
        if not {name for name in learners if side[name] == "train"} <= set(rank) or settings.protocol == "crossval":
            rank = _ranks(names, groups, labelled, side, settings.seed)
        folds += [
            {"fold": fold, "patient": patient, "group": group, "split": side[group], "rank": rank.get(group)}
            for patient, group in whose.items()
        ]
    return pd.DataFrame(folds, columns=[c.name for c in SPLITS]).astype({c.name: c.dtype for c in SPLITS})


def _published(scans: pd.DataFrame, settings: SplitSettings) -> pd.DataFrame:
    """The scans with the published test patients as the user's own split; of the others some will validate."""
    if settings.protocol not in PUBLISHED:
        return scans
    tested = scans["patient"].isin([str(patient) for patient in PUBLISHED[settings.protocol]])
    return scans.assign(given_split=np.where(tested, "test", "train"))


def _folds(
    names: list[str], groups: Groups, labelled: np.ndarray, settings: SplitSettings, repeat: int
) -> list[dict[str, str]]:
    """The sides of one division into folds: every group tests once, the rest validates and trains."""
    chance = settings.seed + 7919 * repeat
    parts = [(np.flatnonzero(labelled), 2 * chance), (np.flatnonzero(~labelled), 2 * chance + 1)]
    number = np.zeros(len(names), dtype=int)
    for rows, seed in parts:
        number[rows] = _assign(groups, rows, np.full(settings.folds, 1 / settings.folds), seed)
    found = []
    for fold in range(settings.folds):
        side = np.where(number == fold, 2, 0)
        share = min(0.5, settings.val / (1 - 1 / settings.folds))
        for rows, seed in parts:
            rest = rows[number[rows] != fold]
            side[rest] = _assign(groups, rest, np.array([1 - share, share]), seed + 104729 * (fold + 1))
        found.append({name: SPLIT_NAMES[which] for name, which in zip(names, side, strict=True)})
    return found


def _assign(groups: Groups, rows: np.ndarray, shares: np.ndarray, seed: int) -> np.ndarray:
    """`assign` of some groups; one after the other where there are fewer than sides."""
    if len(rows) < len(shares):
        return np.arange(len(rows))
    return assign(groups.take(rows), shares, seed)


def describe(scans: pd.DataFrame, truth: pd.DataFrame) -> tuple[list[str], Groups, np.ndarray]:
    """Names of the groups, what each carries (labels, then trials), and which have any label: bool [G]."""
    codes, names = pd.factorize(scans["group"])
    values = label_matrix(truth, list(truth.columns))
    trials = pd.get_dummies(scans["trial"]).to_numpy(np.float32)
    known, positive = ~np.isnan(values), np.nan_to_num(values) > 0
    labelled = np.bincount(codes, known.any(axis=1), len(names)) > 0
    # A trait counts on labelled scans only: the balance of what is learned and tested is at stake.
    some = known.any(axis=1, keepdims=True)
    positive = np.concatenate([positive, (trials > 0) & some], axis=1)
    known = np.concatenate([known, np.repeat(some, trials.shape[1], axis=1)], axis=1)
    sums = [np.zeros((len(names), positive.shape[1])) for _ in range(2)]
    np.add.at(sums[0], codes, positive)
    np.add.at(sums[1], codes, known)
    return [str(name) for name in names], Groups(sums[0] > 0, sums[0], sums[1]), labelled


def check_splittable(scans: pd.DataFrame, truth: pd.DataFrame, settings: SplitSettings) -> None:
    """What can be known before the pictures are decoded, so that hours are not lost.

    Raises:
        UserError: as make_splits.
    """
    scans = _published(scans.assign(group=scans["patient"]), settings)
    _fixed(scans, list(truth.columns), describe(scans, truth)[2], settings)


def _fixed(
    scans: pd.DataFrame, labels: list[str], labelled: np.ndarray, settings: SplitSettings
) -> tuple[dict[str, str], dict[str, int]]:
    """Sides and ranks that are not ours to choose: those of a file, or the user's own, or none."""
    if not labels:
        raise UserError("cohort: no label column; expected one or more whose cells are 0, 1 or empty")
    if labelled.sum() < len(SPLIT_NAMES):
        raise UserError(
            f"cohort: {labelled.sum()} patients with a label ({len(labels)} labels); expected {len(SPLIT_NAMES)} or "
            "more, one each to train, validate and test"
        )
    if settings.protocol == "crossval":
        if labelled.sum() < settings.folds + 2:
            raise UserError(
                f"cohort: {labelled.sum()} patients with a label; expected {settings.folds + 2} or more for "
                f"{settings.folds} folds"
            )
        if (scans["given_split"] != "").any():
            raise UserError("cohort: there is a split column, and cohort.split.protocol crossval; leave one out")
        return {}, {}
    if settings.file is not None:
        return _from_file(settings.file, dict(zip(scans["patient"], scans["group"], strict=True)))
    return _given(scans), {}


def _fill(
    side: dict[str, str], names: list[str], groups: Groups, labelled: np.ndarray, settings: SplitSettings
) -> None:
    """Give every group that has no side one, in `side`.

    Where the user's split lacks val, val comes out of the labelled part of train: nothing can be chosen on the rest.
    """
    test = 0.0 if side else settings.test
    shares = np.array([1 - settings.val - settings.test, settings.val, test])
    open_sides = SPLIT_NAMES if test else SPLIT_NAMES[:2]
    shares = shares[: len(open_sides)] / shares.sum()
    if side and "val" in side.values():
        return
    chosen = np.array([side.get(name, "train") == "train" for name in names])
    parts = [(chosen & labelled, 2 * settings.seed)]
    if test:
        parts.append((chosen & ~labelled, 2 * settings.seed + 1))
    for part, seed in parts:
        rows = np.flatnonzero(part)
        if len(rows) >= len(open_sides):
            found = assign(groups.take(rows), shares, seed)
        else:
            found = np.zeros(len(rows), dtype=int)  # a group or two without labels: they can only be trained on
        side.update({names[row]: open_sides[int(s)] for row, s in zip(rows, found, strict=True)})


def _given(scans: pd.DataFrame) -> dict[str, str]:
    """The user's own side of each group; empty if the user gave none.

    Raises:
        UserError: patients who share a picture are on two sides, or train or test has nobody.
    """
    given = scans[scans["given_split"] != ""]
    if given.empty:
        return {}
    side: dict[str, str] = {}
    first: dict[str, Any] = {}
    for scan in given[["group", "patient", "given_split", "path", "row"]].itertuples(index=False):
        other = first.setdefault(str(scan.group), scan)
        if side.setdefault(str(scan.group), str(scan.given_split)) != scan.given_split:
            raise UserError(
                f"cohort: patients {other.patient} ({other.given_split}) and {scan.patient} ({scan.given_split}) share "
                f"identical scans and are in two splits, e.g. {other.path} and {scan.path}; put them in one"
            )
    if missing := {"train", "test"} - set(side.values()):
        raise UserError(f"cohort: the split column has nobody in {' or '.join(sorted(missing))}; expected both")
    if rest := scans.loc[~scans["group"].isin(list(side)), "patient"].unique().tolist():
        raise UserError(f"cohort: patient {rest[0]} and {len(rest) - 1} others have no split, some patients have one")
    return side


def _from_file(path: Path, whose: dict[str, str]) -> tuple[dict[str, str], dict[str, int]]:
    """Sides and ranks of the groups from a splits.csv.

    Raises:
        UserError: it lacks a patient of the cohort, or parts patients who share identical pictures.
    """
    table = read_table(path, SPLITS)
    table = table[table["fold"] == 0]
    sides = dict(zip(table["patient"], table["split"], strict=True))
    if missing := [patient for patient in whose if patient not in sides]:
        raise UserError(f"{path}: no patient {missing[0]}" + (f" and {len(missing) - 1} more" if missing[1:] else ""))
    ranks: dict[str, Any] = dict(zip(table["patient"], table["rank"], strict=True))
    side: dict[str, str] = {}
    rank: dict[str, int] = {}
    for patient, group in whose.items():
        if side.setdefault(group, sides[patient]) != sides[patient]:
            raise UserError(
                f"{path}: patient {patient} is in {sides[patient]} and {group} in {side[group]}, "
                "but they share identical pictures; put them on one side"
            )
        if ranks[patient] is not pd.NA:
            rank[group] = min(int(ranks[patient]), rank.get(group, int(ranks[patient])))
    return side, rank


def _ranks(names: list[str], groups: Groups, labelled: np.ndarray, side: dict[str, str], seed: int) -> dict[str, int]:
    """The place of each labelled training group in the order in which fractions grow."""
    rows = np.array([i for i, name in enumerate(names) if side[name] == "train" and labelled[i]], dtype=np.int64)
    return {names[rows[chosen]]: place for place, chosen in enumerate(order(groups.take(rows), seed))}


def _report(names: list[str], groups: Groups, labelled: np.ndarray, labels: list[str], side: dict[str, str]) -> None:
    """Log sizes, and each label that a side lacks."""
    where = np.array([side[name] for name in names])
    sizes = ", ".join(f"{s} {int((where == s).sum())}" for s in SPLIT_NAMES)
    log.info("split groups: %s; %d of %d have labels", sizes, int(labelled.sum()), len(names))
    for i, label in enumerate(labels):
        counts = {s: int(groups.positive[where == s, i].sum()) for s in SPLIT_NAMES}
        if not all(counts.values()):
            level = logging.WARNING if sum(counts.values()) >= ENOUGH else logging.INFO
            log.log(level, "%s: positive groups %s", label, ", ".join(f"{s} {n}" for s, n in counts.items()))
