"""Scans without a table: class folders, folders of patients, or clinical files whose headers name the patients."""

import logging
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from octdino.cohort.clinical_rows import ClinicalFiles, identities, log_volumes, name_patients
from octdino.cohort.file_index import MASKS, FileIndex
from octdino.cohort.folder_layout import Layout, below_classes, below_patients
from octdino.cohort.folder_names import unlike_classes
from octdino.cohort.natural_order import natural
from octdino.cohort.patient_names import PatientNames, patient_names
from octdino.cohort.scan_table import Quarantine, RowRefused, ScanTable, build_scan_tables, check_labels
from octdino.cohort.table_columns import SIDES, SPLIT_WORDS
from octdino.config.cohort import CohortSettings
from octdino.errors import UserError
from octdino.scans.preprocess import SUFFIXES
from octdino.scans.volumes.volume import Volume

log = logging.getLogger("octdino.cohort")


@dataclass
class _Tree:
    """The scans below a root.

    Attributes:
        files: clinical files and images that belong to none, in natural order.
        volumes: the clinical files that can be read.
        clinical: whether there is any clinical file, readable or not.
        split: whether the outermost folders are train, val and test.
        folders: the folders of each file, outermost first, without those of the split.
    """

    files: list[str]
    volumes: dict[str, Volume]
    clinical: bool
    split: bool
    folders: list[list[str]]

    @property
    def tops(self) -> list[str]:
        """The outermost folders, which may be classes."""
        return sorted({steps[0] for steps in self.folders if steps}, key=natural)


def read_tree(settings: CohortSettings, file_index: FileIndex, clinical: ClinicalFiles) -> ScanTable:
    """Read all scans below the root; `cohort.folders` says what the folders are.

    Raises:
        UserError: no scan, folders that may be patients as well as classes, or labels that are not the classes.
    """
    quarantine = Quarantine()
    tree = _tree(file_index, clinical, quarantine)
    if odd := [name for name in settings.ignore if name != "split"]:
        raise UserError(f"cohort.ignore: {odd[0]}: no table below {file_index.root} is read; expected split or nothing")
    meaning = settings.folders if settings.folders != "auto" else _guess(settings, file_index.root, tree)
    classes = _classes(settings, file_index.root, tree) if meaning.startswith("classes") else []
    if not classes and settings.labels:
        raise UserError(f"cohort.labels: {', '.join(settings.labels)}; these folders are no classes")
    layout = _layout(settings, file_index.root, tree, meaning)
    pattern = PatientNames()
    if layout.patient is None and (not tree.clinical or settings.patient_pattern != "auto"):
        pattern = patient_names(settings, tree.files)
    records: list[dict[str, Any]] = []
    for file, steps in zip(tree.files, tree.folders, strict=True):
        try:
            given = _of_folders(file, steps, tree, layout, pattern)
            given["truth"] = {name: int(name == steps[0]) for name in classes} if steps else {}
            if "split" in settings.ignore:
                given["given_split"] = ""
            records += _of_file(file, given, file_index, clinical, tree, needs_patient=not classes)
        except RowRefused as why:
            quarantine.add(file, None, why.reason, why.detail)
    name_patients(records, settings.header_ids)
    known = bool(records) and all(record["known"] for record in records)
    if not known:
        log.warning("%s: no table with a patient column, so patients are unknown", file_index.root)
    else:
        _check_split(file_index.root, records)
    tables = build_scan_tables(records, settings.results_name, classes)
    if meaning == "classes" and layout.patient is not None:
        meaning = "classes-patients"
    return ScanTable(
        file_index.root, *tables, quarantine, False, bool(classes), patients="known" if known else "unknown",
        unlabeled=not classes, layout=meaning, pattern=pattern.text,
        decisions=[text for text in (_said(layout, meaning, settings), pattern.decision) if text],
    )  # fmt: skip


def _of_folders(
    file: str, steps: list[str], tree: "_Tree", layout: Layout, pattern: PatientNames
) -> dict[str, Any]:  # fmt: skip
    """Return what the folders and the name of a file say: split, patient, eye and visit.

    Raises:
        RowRefused: its folders name no patient although those of others do, or its name does not match the pattern.
    """
    given: dict[str, Any] = {
        "given_split": SPLIT_WORDS[file.split("/")[0].lower()] if tree.split and "/" in file else ""
    }
    patient = pattern.patient(file)
    if layout.patient is not None and (steps or layout.patient):
        if len(steps) <= layout.patient:
            raise RowRefused("missing_patient", f"in no patient's folder; expected {layout.words}")
        patient = steps[layout.patient]
    if patient is None:
        return given
    given |= {"patient": patient, "known": True}
    if layout.eye is not None and steps:
        side = SIDES.get(steps[layout.eye].casefold(), "")
        given |= {"laterality": side, "eye": f"{patient}-{side or steps[layout.eye]}"}
    if layout.visit is not None and steps:
        given["visit"] = steps[layout.visit]
    return given


def _of_file(
    file: str, given: dict[str, Any], file_index: FileIndex, clinical: ClinicalFiles, tree: "_Tree", needs_patient: bool
) -> list[dict[str, Any]]:
    """Return the records of a file: one, or those of all B-scans of a clinical file.

    Raises:
        RowRefused: an image beside clinical files whose patient is unknown.
    """
    if file in tree.volumes:
        return [record | given for record in clinical.records(file)]
    if tree.clinical and needs_patient and "patient" not in given:
        detail = "an image beside clinical files that belongs to none of them: its patient is unknown; name it in "
        raise RowRefused("missing_patient", detail + "a table with the columns path and patient")
    image = {"path": file, "table_path": file, "id_path": file, "patient": file, "known": False}
    return [image | {"mask": file_index.mask_of(file)} | given]


def _layout(settings: CohortSettings, root: Path, tree: "_Tree", meaning: str) -> Layout:
    """Return what the folders below the classes are, or below those of patients, and log what was decided.

    Raises:
        UserError: the settings say that there are patients below the classes, and there are no such folders.
    """
    if meaning == "patients":
        return below_patients(tree.folders)
    if meaning == "classes-patients":
        layout = below_classes([steps for steps in tree.folders if len(steps) > 1], certain=True)
        if layout.patient is None:
            raise UserError(f"{root}: no folders in class folders; expected class/patient/scan as cohort.folders says")
        return layout
    given = settings.folders != "auto" or settings.patient_pattern not in (None, "auto")
    if meaning != "classes" or given or tree.clinical:
        return Layout()
    layout = below_classes(tree.folders)
    if layout.patient is not None:
        log.warning("%s: folders are %s: %s; cohort.folders: classes reads no patients", root, layout.words, layout.why)
    elif below := sorted({steps[1] for steps in tree.folders if len(steps) > 1}):
        log.info(
            "%s: folders below classes are not read, such as %s; cohort.folders: classes-patients takes them for "
            "patients", root, below[0],
        )  # fmt: skip
    return layout


def _said(layout: Layout, meaning: str, settings: CohortSettings) -> str:
    """Return the layout as a sentence, where it was decided without the user."""
    if settings.folders != "auto" or meaning == "none":
        return ""
    if layout.patient is None:
        return "The outermost folders are the classes." if meaning == "classes" else ""
    return f"Folders are {layout.words} (cohort.folders: classes-patients)."


def _check_split(root: Path, records: list[dict[str, Any]]) -> None:
    """Check that no patient is in two of the folders train, val and test.

    Raises:
        UserError: one is.
    """
    first: dict[str, dict[str, Any]] = {}
    for record in records:
        other = first.setdefault(record["patient"], record)
        if other["given_split"] != record["given_split"]:
            raise UserError(
                f"{root}: patient {record['patient']} is in two splits, e.g. {other['path']} and {record['path']}; "
                "cohort.ignore: [split] makes a new split by patient, whatever the folders say"
            )


def _tree(file_index: FileIndex, clinical: ClinicalFiles, quarantine: Quarantine) -> _Tree:
    files = sorted((f for f in file_index.files if not f.startswith(f"{MASKS}/")), key=natural)
    exports = [f for f in files if f in clinical]
    volumes = clinical.open_all(exports, quarantine)
    parts = clinical.parts(volumes.values())
    taken = parts | set(exports)
    others = Counter(Path(f).suffix.lower() or "no suffix" for f in files if f not in taken and not _is_image(f))
    if others:
        log.info("%s: no images, ignored: %s", file_index.root, ", ".join(f"{n} {s}" for s, n in others.most_common()))
    if volumes:
        log_volumes(file_index.root, volumes, parts)
    files = [f for f in files if f in volumes or (f not in taken and _is_image(f))]
    if not files and not quarantine.rows:
        raise UserError(f"{file_index.root}: neither a table with a path column nor an image; expected one of them")
    tops = {f.split("/")[0] for f in files if "/" in f}
    split = bool(tops) and all(top.lower() in SPLIT_WORDS for top in tops)
    folders = [f.split("/")[1:-1] if split else f.split("/")[:-1] for f in files]
    return _Tree(files, volumes, bool(exports), split, folders)


def _guess(settings: CohortSettings, root: Path, tree: _Tree) -> str:
    """Return what the folders are: classes if they look so, or the labels are given; else, with headers, nothing.

    Raises:
        UserError: images in folders that look like patients or visits, so that only the user can tell.
    """
    if settings.labels is not None:
        return "classes"
    why = unlike_classes(tree.folders, tree.files)
    if not tree.clinical:
        if why:
            raise UserError(
                f"{root}: the folders may be patients or visits and not classes: {why}; set cohort.folders: classes if "
                "they are classes, patients if each is a patient, none if they mean nothing"
            )
        return "classes"
    if len(tree.tops) < 2:
        return "none"
    why = why or _one_patient_each(tree)
    if why:
        log.info("%s: folders are not taken for classes: %s; cohort.folders: classes takes them for classes", root, why)
        return "none"
    log.info("%s: folders are taken for classes: %s; cohort.folders: none ignores them", root, ", ".join(tree.tops))
    return "classes"


def _one_patient_each(tree: _Tree) -> str:
    """Return that each outermost folder has one patient by the headers; empty if one has several."""
    patients: dict[str, set[str]] = {}
    for file, steps in zip(tree.files, tree.folders, strict=True):
        if steps and file in tree.volumes:
            patients.setdefault(steps[0], set()).update(identities(tree.volumes[file]))
    several = any(len(found) > 1 for found in patients.values())
    return "" if several or not any(patients.values()) else "each has the scans of one patient"


def _classes(settings: CohortSettings, root: Path, tree: _Tree) -> list[str]:
    """Return the class folders after checking that there are two or more, with allowed names.

    Raises:
        UserError: there are fewer, or others than `cohort.labels`.
    """
    classes = tree.tops
    if len(classes) < 2:
        found = ", ".join(classes) or "none"
        raise UserError(
            f"{root}: class folders: {found}; expected two or more, or a table with a path column; "
            "cohort.folders: none reads scans without labels"
        )
    check_labels(classes, f"{root}: class folders")
    if settings.labels is not None and set(settings.labels) != set(classes):
        raise UserError(f"cohort.labels: {', '.join(settings.labels)}; the class folders are {', '.join(classes)}")
    return classes


def _is_image(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in SUFFIXES  # noqa: PTH122  called for every file
