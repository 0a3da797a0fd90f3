"""The questions of `octdino init`, each with what an inspection of tables and folders found as its default."""

import logging
from dataclasses import dataclass
from typing import Any

from octdino.cohort.registry import READERS
from octdino.cohort.starting_config import has_gpu, title_of
from octdino.config import CohortSettings
from octdino.config.patterns import compile_patient_pattern
from octdino.errors import UserError

log = logging.getLogger("octdino.cohort")


@dataclass(frozen=True)
class Answers:
    """What was answered: settings of the cohort, and laptop or gpu."""

    settings: CohortSettings
    size: str


def ask(question: str, default: str) -> str:
    """Return the answer to a question; an empty one is the default.

    Raises:
        EOFError: the input ended.
    """
    shown = f" [{default}]" if default else ""
    return input(f"{question}{shown}: ").strip() or default


def ask_settings(settings: CohortSettings, size: str) -> Answers:
    """Return the settings after the questions: labels, patients, title and size of the run.

    Raises:
        UserError: what was answered cannot be read; the question before it is not asked again.
        EOFError: the input ended.
    """
    values = settings.model_dump(exclude_unset=True)
    table = _read(settings, values)
    settings = CohortSettings.parse(values, "settings")
    if table.table_file and "classes" not in table.columns and table.labels:
        chosen = ask("Label columns, separated by commas", ", ".join(table.labels))
        values["labels"] = [name.strip() for name in chosen.split(",") if name.strip()]
    if "patient" not in table.columns and table.layout not in ("patients", "classes-patients"):
        print(f"For example the file name {table.scans['path'].iloc[0].rsplit('/', 1)[-1]}" if len(table.scans) else "")
        values["patient_pattern"] = _pattern(table.pattern)
    values["title"] = ask(
        "Title, the name of the folder in results/", settings.title or title_of(table.root, settings.table)
    )
    if size == "auto":
        size = _one_of("Size of the run: laptop or gpu", ("laptop", "gpu"), "gpu" if has_gpu() else "laptop")
    return Answers(CohortSettings.parse(values, "settings"), size)


def _read(settings: CohortSettings, values: dict[str, Any]) -> Any:
    """Return the cohort's table of scans; asks where only the user can tell what its labels are."""
    try:
        return READERS[settings.name](settings)
    except UserError as why:
        print(f"{why}")
    key = _one_of(
        "Setting to answer with: class_column, labels, ignore, folders, table, sheet; or stop",
        ("class_column", "labels", "ignore", "folders", "table", "sheet", "stop"), "stop",
    )  # fmt: skip
    if key == "stop":
        raise UserError("stopped; nothing is written")
    answer = ask(f"cohort.{key}", "")
    values[key] = [name.strip() for name in answer.split(",")] if key in ("labels", "ignore") else answer
    return _read(CohortSettings.parse(values, "settings"), values)


def _pattern(default: str) -> str | None:
    """Return a pattern for patients' ids, asked for until it is valid; None where names name none."""
    while True:
        answer = ask("Pattern of the patient's id in it, as -(\\d+)- ; none if there is none", default or "none")
        if answer == "none":
            return None
        try:
            compile_patient_pattern(answer)
        except ValueError as why:
            print(why)
            continue
        return answer


def _one_of(question: str, choices: tuple[str, ...], default: str) -> str:
    while (answer := ask(question, default)) not in choices:
        print(f"expected one of {', '.join(choices)}")
    return answer
