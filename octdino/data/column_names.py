"""Names of columns with a meaning in tables that users have, and how names are compared."""

import re

PATH_NAMES = (
    "path", "filename", "file", "image", "img", "image_path", "img_path", "file_path", "scan_path", "image_file",
    "image_name", "image_id", "img_name", "scan", "bscan",
)  # fmt: skip
# Columns with a fixed meaning, and the names that are taken for them whatever their cells hold.
KNOWN = {
    "patient": ("patient", "patient_id", "subject", "subject_id"),
    "eye": ("eye", "eye_id"),
    "visit": ("visit", "visit_id"),
    "slice": ("slice",),
    "laterality": ("laterality",),
    "trial": ("trial", "site", "device"),
    "bcva": ("bcva",),
    "cst": ("cst",),
    "mask": ("mask",),
    "split": ("split",),
}
# Further names, taken only where the cells look so.
ALSO = {
    "patient": ("pat", "pat_id", "pid", "patient_no", "patient_number", "patient_nr", "participant", "participant_id"),
    "visit": ("visit_no", "visit_number", "timepoint"),
    "slice": ("slice_no", "slice_number", "slice_index", "bscan_no", "bscan_index"),
    "laterality": ("side", "eye_side", "eye_laterality"),
    "trial": ("center", "centre", "scanner"),
    "cst": ("central_subfield_thickness",),
    "mask": ("mask_path",),
    "split": ("subset", "partition", "set"),
}


def loose(name: str) -> str:
    """Return a column's name without case, blanks and punctuation: `Patient ID` is `patient_id`."""
    return re.sub(r"[\W_]+", "", name.casefold())


def names_of(meaning: str) -> set[str]:
    """Return all names of a column with this meaning, as `loose` writes them."""
    return {loose(name) for name in (*KNOWN[meaning], *ALSO.get(meaning, ()))}
