"""Checks of external cohorts before any job: their files, and the labels of their maps, as far as these are known."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING

from octdino.config.cohort import CohortSettings
from octdino.config.external import mapped_labels
from octdino.data.cohort_origin import check_origin
from octdino.data.olives_names import BIOMARKERS
from octdino.errors import UserError

if TYPE_CHECKING:
    from octdino.config import Config


def external_files(settings: "Config") -> dict[str, Path | None]:
    """Return the files that external cohorts name, by their key."""
    files = {}
    for place, external in enumerate(settings.evaluate.external):
        key = f"evaluate.external.{place}.cohort"
        files[f"{key}.table"], files[f"{key}.clinical"] = external.cohort.table_file, external.cohort.clinical
    return files


def external_roots(settings: "Config") -> dict[str, CohortSettings]:
    """Return the settings of external cohorts, by the key of their folder of files."""
    return {
        f"evaluate.external.{place}.cohort.root": external.cohort
        for place, external in enumerate(settings.evaluate.external)
    }


def check_label_maps(settings: "Config", folder: Path) -> None:
    """Check that the labels of the maps exist on both sides.

    Args:
        folder: results/{cohort}.

    Raises:
        UserError: a label is in no cohort; names the key and the labels there are.
    """
    own = known_labels(settings.cohort, folder / "cohort" / "manifest.csv")
    compared = settings.evaluate.labels
    among = "" if compared is None else f" among evaluate.labels ({', '.join(compared)})"
    for place, external in enumerate(settings.evaluate.external):
        key = f"evaluate.external.{place}.labels"
        path = folder / "external" / external.name / "cohort" / "manifest.csv"
        others = known_labels(external.cohort, path)
        for label, internal in external.labels.items():
            if others is not None and label not in others:
                raise UserError(
                    f"{key}: {label!r} is no label of the external cohort {external.name}; it has {', '.join(others)}"
                )
            if own is not None and (unknown := [name for name in internal if name not in own]):
                raise UserError(
                    f"{key}.{label}: {unknown[0]!r} is no label of {settings.cohort.results_name}; it has "
                    f"{', '.join(own)}"
                )
        if own is not None and others is not None and not mapped_labels(external.labels, others, own, compared):
            raise UserError(
                f"{key}: no label of the external cohort {external.name} ({', '.join(others)}) has the name of one of "
                f"{settings.cohort.results_name} ({', '.join(own)}){among}, and none is mapped; expected a map such as "
                f"{{{others[0]}: [{(compared or own)[0]}]}}"
            )


def known_labels(cohort: CohortSettings, manifest: Path) -> list[str] | None:
    """Return the labels of a cohort: those of its settings or of the phantom, or as it was read; None if unknown.

    A manifest that is older than the cohort's table, or was made from other files, is not used.
    """
    from octdino.data.schemas.csv_schemas import MANIFEST  # which imports names of this package

    if cohort.labels is not None:
        return cohort.labels
    if cohort.name == "phantom":
        return list(BIOMARKERS)
    table = cohort.table_file
    try:
        check_origin(manifest.parent.parent, cohort)
        if table is not None and table.stat().st_mtime > manifest.stat().st_mtime:
            return None
        with manifest.open(encoding="utf-8", newline="") as file:
            header = next(csv.reader(file), [])
    except (OSError, UnicodeDecodeError, UserError):
        return None
    return [name for name in header if name not in MANIFEST.names] or None
