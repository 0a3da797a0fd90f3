"""The configuration to start from: what an inspection found, as commented YAML with what differs from the defaults."""

import re
import shlex
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import yaml

from octdino.cohort.inspection import Inspection
from octdino.config import Arm, Config, load_config
from octdino.config.cohort import COHORTS, CohortSettings
from octdino.config.settings_base import merged
from octdino.workflow_files import presets

LAPTOP = "folder"  # the preset for computers without a GPU
LAPTOP_IMAGE: dict[str, Any] = {"size": [128, 128], "crop": "retina"}
MANY = 10_000  # scans from which on a laptop needs fewer epochs than the default
LAPTOP_IMAGES = 1_000_000  # that pretraining then shows, about an hour on one core
USUAL_TABLES = {"scans", "labels", "table", "data", "metadata", "images", "train", "index"}  # names that say nothing
FEW_PATIENTS = 100  # with fewer, cross-validation tells more than one split
COMMENTS = {
    "title": "the {cohort} in results/",
    "labels": "the label columns; take out what is none",
    "class_column": "its values are the classes",
    "patient_pattern": "its group is the patient's id in a file name; null: patients are unknown",
    "folders": "what the folders below root are",
    "ignore": "neither labels nor anything else",
    "image": "the contact sheet shows what is kept of a scan",
}


@dataclass(frozen=True)
class Suggestion:
    """Settings to start from.

    Attributes:
        cohort: the section of that name; every decision of the inspection is written down.
        rest: other sections.
        laptop: whether LAPTOP is to be laid below it.
    """

    cohort: dict[str, Any]
    rest: dict[str, Any]
    laptop: bool


def has_gpu() -> bool:
    """Return whether this computer has a GPU that torch could use; torch is not imported, which takes seconds."""
    return any(Path("/dev", device).exists() for device in ("nvidia0", "kfd"))


def with_suggested_image(settings: CohortSettings, laptop: bool) -> CohortSettings:
    """Return the settings with the suggested crop and size, as far as they set none."""
    given = settings.model_dump(exclude_unset=True)
    image = LAPTOP_IMAGE if laptop else {"crop": "retina"}
    return CohortSettings.parse(merged({"image": image}, given), "settings")


def suggest(found: Inspection, laptop: bool) -> Suggestion:
    """Return the settings to start from: those of the inspection, with every decision written down."""
    table, settings = found.table, found.settings
    given = settings.model_dump(mode="json", exclude_unset=True, exclude_defaults=True)
    cohort: dict[str, Any] = {
        "name": settings.name,
        "title": settings.title or title_of(table.root, settings.table),
        "root": str(table.root.absolute()),
    }
    if table.table_file:
        cohort["table"] = str(table.table_file.absolute())
        if "classes" in table.columns:
            cohort["class_column"] = table.columns["classes"]
        elif table.labels:
            cohort["labels"] = table.labels
    elif table.layout:
        cohort["folders"] = table.layout
    if table.pattern:
        cohort["patient_pattern"] = table.pattern
    cohort = merged(cohort, {key: value for key, value in given.items() if key not in cohort})
    rest: dict[str, Any] = {}
    if laptop and len(table.scans) > MANY:
        rest["pretrain"] = {"epochs": max(1, round(LAPTOP_IMAGES / len(table.scans)))}
    if not laptop and table.scans["cst"].isna().all():
        rest |= _without_thickness()
    if table.unlabeled or not table.labels:
        rest["classify"] = {"arms": []}
    return Suggestion(cohort, rest, laptop)


def _without_thickness() -> dict[str, Any]:
    """Return the default methods and arms but for those that need retinal thickness."""
    defaults = Config()
    variants = defaults.pretrain.variants
    needing = {name for name, variant in variants.items() if "cst" in variant.get("positives", ())}
    return {
        "pretrain": {"methods": [name for name in defaults.pretrain.methods if name not in needing]},
        "classify": {"arms": [arm for arm in defaults.classify.arms if Arm.parse(arm).init not in needing]},
    }


def title_of(root: Path, table: Path | None = None) -> str:
    """Return a title from the name of a table, or of the folder where that says nothing: no kind of cohort."""
    name = table.stem if table and table.stem.casefold() not in USUAL_TABLES else root.absolute().name
    title = re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip("._-")[:80] or "mine"
    return f"{title}-scans" if title in get_args(COHORTS) else title


def starting_yaml(found: Inspection, suggestion: Suggestion, file: str) -> str:
    """Return the text of the file, which loads as a configuration; `file` is its name, for the command in it.

    Raises:
        UserError: the settings do not fit together, which the settings classes decide.
    """
    patients = f"{found.patients:,} patients" if found.patients is not None else "patients unknown"
    lines = [
        f"# Written by octdino inspect: {len(found.table.scans):,} scans, {patients}. Only what differs from the",
        "# built-in defaults; config/default.yaml has every key with its meaning.",
        f"#   {run_command(suggestion, file)}",
    ]
    if suggestion.laptop:
        lines.append(
            "# For a computer without a GPU: this file is laid over the preset, a narrow network on small views."
        )
    for decision in found.table.decisions:
        lines += textwrap.wrap(decision, 118, initial_indent="# ", subsequent_indent="#   ", break_long_words=False)
    lines += ["", "cohort:"]
    for key, value in suggestion.cohort.items():
        lines += _commented(f"  {key}: {_flow(value)}", COMMENTS.get(key, ""))
    few = found.patients is not None and found.patients < FEW_PATIENTS
    if few and found.splits and found.table.labels and "split" not in suggestion.cohort:
        lines.append("  # split: {protocol: crossval}   # few patients: each is tested once, at five times the cost")
    for section, values in suggestion.rest.items():
        lines += ["", f"{section}:", *(f"  {key}: {_flow(value)}" for key, value in values.items())]
    text = "\n".join(lines) + "\n"
    _check(text, suggestion.laptop)
    return text


def run_command(suggestion: Suggestion, file: str) -> str:
    """Return the command that runs the configuration in `file`, in any folder."""
    preset = f"{LAPTOP} " if suggestion.laptop else ""
    return f"octdino run --cores all --configfile {preset}{shlex.quote(file)}"


def _check(text: str, laptop: bool) -> Config:
    """Return the configuration that the text makes, over the preset."""
    values = yaml.safe_load(text)
    if laptop:
        values = merged(yaml.safe_load(presets()[LAPTOP].read_text(encoding="utf-8")), values)
    return load_config(values, "the suggested configuration")


def _commented(line: str, comment: str) -> list[str]:
    if not comment:
        return [line]
    return [f"{line}  # {comment}"] if len(line) + len(comment) < 110 else [f"  # {comment}:", line]


def _flow(value: Any) -> str:
    """Return a value as YAML on one line."""
    if isinstance(value, str) and "\\" in value:
        return "'" + value.replace("'", "''") + "'"
    text = yaml.safe_dump(value, default_flow_style=True, width=100_000, allow_unicode=True, sort_keys=False)
    return text.removesuffix("...\n").strip()
