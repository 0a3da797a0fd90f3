"""Scans without a table: class folders, folders of patients, or clinical files whose headers name the patients."""

import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from octdino.cohort.clinical_rows import ClinicalFiles, identities, log_volumes, name_patients
from octdino.cohort.file_index import MASKS, FileIndex
from octdino.cohort.folder_names import unlike_classes
from octdino.cohort.folder_table import SPLIT_WORDS
from octdino.cohort.natural_order import natural
from octdino.cohort.scan_table import Quarantine, ScanTable, build_scan_tables, check_labels
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
    meaning = settings.folders if settings.folders != "auto" else _guess(settings, file_index.root, tree)
    classes = _classes(settings, file_index.root, tree) if meaning == "classes" else []
    if not classes and settings.labels:
        raise UserError(f"cohort.labels: {', '.join(settings.labels)}; these folders are no classes")
    records: list[dict[str, Any]] = []
    for file, steps in zip(tree.files, tree.folders, strict=True):
        given: dict[str, Any] = {
            "given_split": SPLIT_WORDS[file.split("/")[0].lower()] if tree.split and "/" in file else ""
        }
        given["truth"] = {name: int(name == steps[0]) for name in classes} if steps else {}
        if meaning == "patients" and steps:
            given |= {"patient": steps[0], "known": True}
        if file in tree.volumes:
            records += [record | given for record in clinical.records(file)]
        elif tree.clinical and not classes and "patient" not in given:
            detail = "an image beside clinical files that belongs to none of them: its patient is unknown; name it in "
            quarantine.add(file, None, "missing_patient", detail + "a table with the columns path and patient")
        else:
            image = {"path": file, "table_path": file, "id_path": file, "patient": file, "known": False}
            records.append(image | {"mask": file_index.mask_of(file)} | given)
    name_patients(records, settings.header_ids)
    known = bool(records) and all(record["known"] for record in records)
    if not known:
        log.warning("%s: no table with a patient column, so patients are unknown", file_index.root)
    tables = build_scan_tables(records, settings.results_name, classes)
    patients = "known" if known else "unknown"
    return ScanTable(
        file_index.root, *tables, quarantine, False, bool(classes), patients=patients, unlabeled=not classes
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
    return Path(path).suffix.lower() in SUFFIXES
