"""A small OLIVES-shaped tree with tables, for tests: readable tables of rows that a test changes before writing."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from octdino.config import CohortSettings

PATH = "Path (Trial/Arm/Folder/Visit/Eye/Image Name)"
# Written out on purpose: the published header, not the code's idea of it.
BIOMARKERS = [
    "Atrophy / thinning of retinal layers", "Disruption of EZ", "DRIL", "IR hemorrhages", "IR HRF",
    "Partially attached vitreous face", "Fully attached vitreous face", "Preretinal tissue/hemorrhage",
    "Vitreous debris", "VMT", "DRT/ME", "Fluid (IRF)", "Fluid (SRF)", "Disruption of RPE", "PED (serous)", "SHRM",
]  # fmt: skip
WIDTH, HEIGHT = 48, 40


@dataclass
class OlivesTree:
    """Rows of both tables and the pictures by path; `write` puts them on disk."""

    labels: list[dict[str, Any]] = field(default_factory=list)
    clinical: list[dict[str, Any]] = field(default_factory=list)
    pictures: dict[str, np.ndarray | bytes] = field(default_factory=dict)

    def write(self, root: Path, nested: str = "") -> Path:
        """Files below `root`, the tree below `nested` in it. Returns root."""
        root.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(self.labels).to_csv(root / "Biomarker_Clinical_Data_Images.csv", index=False)
        pd.DataFrame(self.clinical).to_excel(root / "Clinical_Data_Images.xlsx", index=False)
        for path, picture in self.pictures.items():
            file = root / nested / path.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(picture, bytes):
                file.write_bytes(picture)
            else:
                Image.fromarray(picture).save(file)
        return root


def picture(number: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> np.ndarray:
    """A unique grey picture, uint8 [H, W]."""
    return np.random.default_rng(number).integers(0, 200, (size[1], size[0])).astype(np.uint8)


def olives_tree(patients: int = 8, slices: int = 3) -> OlivesTree:
    """Half TREX, half PRIME; visits 1 and 2 labeled, 3 not; patient i is positive for label i % 3 and the fourth."""
    tree = OlivesTree()
    for patient in range(patients):
        number, prime = 201 + patient, patient % 2
        top = f"/Prime_FULL/02-{patient:03d}" if prime else f"/TREX DME/GILA/{number:04d}GOD"
        for visit in (1, 2, 3):
            for index in range(slices):
                name = f"{index}.tif" if prime else f"TREXJ_{index:06d}.tif"
                path = f"{top}/{'W' if prime else 'V'}{visit}/OD/{name}"
                tree.pictures[path] = picture(len(tree.pictures))
                values = {"Eye_ID": patient + 1, "BCVA": 60 + visit, "CST": 300 + patient, "Patient_ID": number}
                tree.clinical.append({"File_Path": path, **values})
                if visit < 3:
                    marks = {
                        name: int(i == patient % 3 or (i == 3 and index == 0)) for i, name in enumerate(BIOMARKERS)
                    }
                    tree.labels.append({PATH: path, "Scan (n/49)": index + 1, **marks, **values})
    return tree


def settings(root: Path, name: str = "olives", **changes: Any) -> CohortSettings:
    """Small pictures, everything else as it comes."""
    return CohortSettings.model_validate({"name": name, "root": root, "image": {"size": (32, 32)}, **changes})
