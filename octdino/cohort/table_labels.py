"""The labels of a user's table: 0/1 columns, or one text column whose values are classes."""

import logging
import re
from collections import Counter
from pathlib import Path

import pandas as pd

from octdino.cohort.natural_order import natural
from octdino.cohort.scan_table import check_labels
from octdino.cohort.spreadsheet import find_column, require_column
from octdino.cohort.table_columns import Columns, is_flag
from octdino.config.cohort import CohortSettings
from octdino.data.column_names import loose
from octdino.errors import UserError

CLASS_NAMES = (
    "diagnosis", "diagnose", "dx", "disease", "label", "labels", "class", "classes", "category", "condition",
    "pathology", "finding", "grade", "target", "ground_truth",
)  # fmt: skip
MOST_CLASSES = 50
# What a 0/1 column may say of the patient or the acquisition, and not of the scan. A label must be meant.
NO_FINDINGS = re.compile(
    r"(is|has|patients?|current|ever|history(of)?)?"
    r"(sex|gender|geschlecht|male|female|man|woman|smok(er|ing)|age|race|ethnicity|diabet(es|ic)(mellitus)?|"
    r"hypertension|pregnant|treated|deceased|right|left|righteye|lefteye|od|os|side|train|training|test|val|validation|"
    r"usable|gradable|excluded?|included?)"
    r"(m|f|mf|binary|code|male|female|baseline|status|flag|set)?"
)

log = logging.getLogger("octdino.cohort")


def find_labels(settings: CohortSettings, table: pd.DataFrame, path: Path, columns: Columns) -> None:
    """Set labels, class column and decisions of `columns` by the settings, or by what the columns hold.

    Raises:
        UserError: a named column is missing or means something else, or only the user can tell what the labels are.
    """
    known = set(columns.names.values())
    ignored = {require_column(table, path, name) for name in settings.ignore if name != "split"}
    if settings.class_column is not None:
        name = require_column(table, path, settings.class_column)
        if name in known:
            raise UserError(f"cohort.class_column: {name}: a column of this name has a meaning of its own")
        return _take_classes(settings, table, path, columns, name)
    if settings.labels is not None:
        chosen = [require_column(table, path, name) for name in settings.labels]
        if clash := sorted(set(chosen) & known):
            raise UserError(f"cohort.labels: {', '.join(clash)}: a column of this name has a meaning of its own")
        columns.labels = check_labels(chosen, "cohort.labels")
        return None
    rest = [str(name) for name in table.columns if name not in known | ignored]
    labels, others = _flag_columns(table, rest)
    if odd := [name for name in labels if NO_FINDINGS.fullmatch(loose(name))]:
        named = ", ".join(name for name in labels if name not in odd) or "…"
        raise UserError(
            f"{path}: column {', '.join(odd)}: 0 and 1, but by its name no finding in the scan; cohort.ignore: "
            f"[{', '.join(odd)}] leaves it out, cohort.labels: [{named}] names the labels"
        )
    classes = [name for name in others if _can_be_classes(table, name)]
    if classes and not (labels and _same_as_flags(table, classes, labels)):
        if len(classes) > 1 or labels:
            _ask(path, table, classes, labels)
        _take_classes(settings, table, path, columns, classes[0])
        columns.decisions.append(
            f"Classes are the values of the column {classes[0]}: {', '.join(columns.labels)} (cohort.class_column)."
        )
        del others[classes[0]]
    else:
        columns.labels = check_labels(labels, str(path))
    if others:
        ignored_columns = "; ".join(f"{name} ({why})" for name, why in others.items())
        log.warning("%s: no label, ignored: %s", path, ignored_columns)
    return None


def _flag_columns(table: pd.DataFrame, names: list[str]) -> tuple[list[str], dict[str, str]]:
    """Return the columns whose cells are all labels, and of the others why they are none."""
    labels, others = [], {}
    for name in names:
        counted = Counter(table[name].tolist())
        odd = [text for text in counted if not is_flag(text)]
        if odd:
            row = next(row for row, text in zip(table.index.tolist(), table[name].tolist(), strict=True) if text in odd)
            number = sum(counted[text] for text in odd)
            others[name] = f"{number} cells are neither 0, 1 nor empty; row {row}: {table.loc[row, name]!r}"
        elif set(counted) <= {""}:
            others[name] = "empty"
        else:
            labels.append(name)
    return labels, others


def _values(table: pd.DataFrame, name: str) -> list[str]:
    """Return the values of a column, in natural order."""
    return sorted({cell for cell in table[name].tolist() if cell}, key=natural)


def _can_be_classes(table: pd.DataFrame, name: str) -> bool:
    """Return whether a column is named like one of classes, and has few values that recur."""
    if loose(name) not in {loose(known) for known in CLASS_NAMES}:
        return False
    count = len(_values(table, name))
    return 2 <= count <= MOST_CLASSES and count <= max(2, int((table[name] != "").sum()) // 2)


def _same_as_flags(table: pd.DataFrame, classes: list[str], labels: list[str]) -> bool:
    """Return whether the 0/1 columns are the values of the only class column, so that they say the same."""
    return len(classes) == 1 and {value.casefold() for value in _values(table, classes[0])} == {
        name.casefold() for name in labels
    }


def _ask(path: Path, table: pd.DataFrame, classes: list[str], labels: list[str]) -> None:
    """Raise UserError: several columns may be the labels."""
    parts = [f"{name} ({', '.join(_values(table, name)[:3])}, …)" for name in classes]
    if labels:
        parts.append(f"the 0/1 columns {', '.join(labels)}")
    raise UserError(
        f"{path}: the labels may be {' or '.join(parts)}; write cohort.class_column: {classes[0]}"
        + (f", or cohort.labels: [{', '.join(labels)}]" if labels else f" or cohort.class_column: {classes[1]}")
    )


def _take_classes(
    settings: CohortSettings, table: pd.DataFrame, path: Path, columns: Columns, name: str
) -> None:  # fmt: skip
    """Set the values of a column as classes.

    Raises:
        UserError: fewer than two or too many, two that differ in case only, or others than `cohort.labels`.
    """
    values = _values(table, name)
    if not 2 <= len(values) <= MOST_CLASSES:
        raise UserError(f"{path}: column {name} has {len(values)} values; expected 2 to {MOST_CLASSES} classes")
    folded: dict[str, str] = {}
    for value in values:
        if (other := folded.setdefault(value.casefold(), value)) != value:
            raise UserError(f"{path}: column {name}: {other!r} and {value!r} differ only in case; write one of them")
    if settings.labels is not None and set(settings.labels) != set(values):
        raise UserError(f"cohort.labels: {', '.join(settings.labels)}; the classes in {name} are {', '.join(values)}")
    if found := find_column(table, name):
        columns.class_column = found
    columns.labels = check_labels(settings.labels or values, f"{path}: column {name}")
