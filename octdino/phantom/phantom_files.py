"""Writing of the phantom's image files and tables; the same input gives the same bytes."""

import csv
import io
import re
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from octdino.data.olives_names import BIOMARKERS

LABELS = Path("OLIVES_Dataset_Labels/ml_centric_labels")
BIOMARKER_TABLE = LABELS / "Biomarker_Clinical_Data_Images.csv"
CLINICAL_TABLE = LABELS / "Clinical_Data_Images.xlsx"
BIOMARKER_HEADER = (
    "Path (Trial/Arm/Folder/Visit/Eye/Image Name)",
    "Scan (n/49)",
    *BIOMARKERS,
    "Eye_ID",
    "BCVA",
    "CST",
    "Patient_ID",
)
CLINICAL_HEADER = ("File_Path", "BCVA", "CST", "Eye_ID", "Patient_ID")
Row = tuple[str | int | None, ...]


def save_scan(image: NDArray[np.uint8], path: Path, defect: str = "") -> None:
    """Write a scan; `defect` is one of study_plan.UNREADABLE or study_plan.ODD_BUT_READABLE."""
    if defect == "missing":
        return
    if defect == "empty":
        path.write_bytes(b"")
    elif defect == "truncated":
        data = io.BytesIO()
        Image.fromarray(image).save(data, "TIFF")
        path.write_bytes(data.getvalue()[: data.tell() // 3])
    elif defect == "wrong size":
        Image.fromarray(image[:256, :256]).save(path)
    elif defect == "16 bit":
        Image.fromarray(image.astype(np.uint16) * 257).save(path)
    elif defect == "rgb":
        Image.fromarray(np.repeat(image[..., None], 3, axis=2)).save(path)
    elif path.suffix == ".jpg":
        Image.fromarray(image).save(path, quality=92)
    elif path.suffix == ".png":
        Image.fromarray(image).save(path, compress_level=1)
    else:
        Image.fromarray(image).save(path)


def save_mask(mask: NDArray[np.uint16], path: Path) -> None:
    """Write a lesion mask as 16-bit PNG; bit i is set where BIOMARKERS[i] is visible."""
    # Run lengths suit a mask: smaller than the usual strategy at this level, and faster
    Image.fromarray(mask).save(path, compress_level=1, compress_type=3)


def save_fundus_image(rng: np.random.Generator, path: Path) -> None:
    """Write a square infrared fundus image, which is not a B-scan."""
    side = 384
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    image = 120 - 45 * (x**2 + y**2) - 40 * np.exp(-(x**2 + y**2) / 0.04)
    image += 90 * np.exp(-((x - 0.8) ** 2 + y**2) / 0.02)
    for sign in (-1, 1):
        for bend in rng.uniform(0.3, 1.2, 4):
            image -= 35 * np.exp(-(((y - sign * bend * np.sqrt(np.maximum(0.9 - x, 0))) / 0.015) ** 2))
    image += rng.normal(0, 6, image.shape)
    gray = np.clip(image, 0, 255).astype(np.uint8)
    Image.fromarray(gray).save(path)


def write_biomarkers(rows: list[Row], root: Path) -> None:
    """Write the biomarker table as OLIVES publishes it."""
    path = root / BIOMARKER_TABLE
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(BIOMARKER_HEADER)
        writer.writerows(["" if cell is None else cell for cell in row] for row in rows)


def write_clinical(rows: list[Row], root: Path) -> None:
    """Write the clinical table as XLSX; its timestamps are set to a fixed day, so that the bytes are reproducible."""
    table = pd.DataFrame(rows, columns=list(CLINICAL_HEADER), dtype=object)
    data = io.BytesIO()
    table.to_excel(data, sheet_name="clinical_data_images", index=False, engine="openpyxl")
    path = root / CLINICAL_TABLE
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(data) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name in sorted(source.namelist()):
            content = source.read(name)
            if name == "docProps/core.xml":
                content = re.sub(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", b"2000-01-01T00:00:00Z", content)
            info = zipfile.ZipInfo(name, (2000, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            target.writestr(info, content)
