"""OCT2017 and OCTDL in their published layouts, with made-up scans: as trees and as zips."""

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from .trees import picture

CLASSES = ("CNV", "DME", "DRUSEN", "NORMAL")
# The published header, its spelling included.
HEADER = "file_name,disease,subcategory,condition,patient_id,eye,sex,year,image_width,image_hight"
DIAGNOSES = ("AMD", "DME", "ERM", "NO", "RAO", "RVO", "VID")


def jpeg(pixels: np.ndarray) -> bytes:
    """The pixels as a JPEG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def oct2017_files(patients: int = 4, base: str = "CellData/OCT/") -> dict[str, bytes]:
    """Files by path: in train two scans each of `patients` patients per class, in test one each of two per class.

    The first test patient of each class trains, too, and one DME patient of train has the number of a CNV patient.
    Beside them is what the published zip has: chest X-rays, and files of macOS.
    """
    files, number = {}, 0
    for index, name in enumerate(CLASSES):
        train = [1000 * (index + 1) + patient for patient in range(patients)]
        test = [train[0], 1000 * (index + 1) + 900]
        if name == "DME":
            train[-1] = 1001
        for split, people, each in (("train", train, 2), ("test", test, 1)):
            for patient in people:
                for scan in range(each):
                    number += 1
                    # In test other scan numbers than in train: a scan is in one of them.
                    path = f"{base}{split}/{name}/{name}-{patient}-{scan + 1 + 7 * (split == 'test')}.jpeg"
                    files[path] = jpeg(picture(number))
    return files


def junk(base: str = "CellData/OCT/") -> dict[str, bytes]:
    """What lies beside the scans in the published archives."""
    chest = "CellData/chest_xray/train"
    return {
        "__MACOSX/CellData/OCT/train/CNV/._CNV-1000-1.jpeg": b"\0\5\x16\7",
        f"{base}.DS_Store": b"\0\0\0\1Bud1",
        f"{base}train/CNV/.DS_Store": b"\0\0\0\1Bud1",
        f"{base}train/CNV/._CNV-1000-1.jpeg": b"\0\5\x16\7",
        f"{chest}/NORMAL/NORMAL-1003233-0001.jpeg": jpeg(picture(9001)),
        f"{chest}/PNEUMONIA/BACTERIA-1008087-0001.jpeg": jpeg(picture(9002)),
    }


def octdl_rows(patients: int = 3) -> list[str]:
    """Rows of OCTDL_labels.csv: two scans per patient, `patients` per diagnosis; every other one has its eye."""
    rows = []
    for index, name in enumerate(DIAGNOSES):
        for patient in range(patients):
            person = f"{100_000 * (index + 1) + patient}"
            known = "OD,F,1941" if patient % 2 else "0,0,0"
            rows += [f"{name.lower()}_{person}_{scan},{name},none,none,{person},{known},48,40" for scan in (1, 2)]
    return rows


def octdl_images(rows: list[str], base: str = "OCTDL/") -> dict[str, bytes]:
    """The images of the rows by path."""
    cells = [row.split(",") for row in rows]
    return {f"{base}{cell[1]}/{cell[0]}.jpg": jpeg(picture(number)) for number, cell in enumerate(cells)}


def octdl_table(rows: list[str]) -> bytes:
    """OCTDL_labels.csv."""
    return "\n".join([HEADER, *rows, ""]).encode()


def write_tree(root: Path, files: dict[str, bytes]) -> Path:
    """The files below `root`. Returns root."""
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    return root


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    """The files in one zip, deflated. Returns the folder of the zip."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path.parent
