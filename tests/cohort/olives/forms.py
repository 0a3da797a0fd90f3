"""A few hundred scans of the real tables, written in each form in which OLIVES is published, with stand-in pictures."""

import hashlib
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from ..trees import BIOMARKERS, PATH

# Written out on purpose, as decoded from the two published tables.
B = ["IR HRF", "Partially attached vitreous face", "Fully attached vitreous face", "Vitreous debris", "DRT/ME",
     "Fluid (IRF)"]  # fmt: skip
HALVES = {"TREX DME": "TREX_DME.zip", "Prime_FULL": "Prime_FULL.zip"}


@dataclass
class Real:
    """The published tables: biomarkers, clinical values, and the VIP Cup's labels in the biomarkers' order."""

    labels: pd.DataFrame
    clinical: pd.DataFrame
    vip: pd.DataFrame

    def part(self) -> "Real":
        """Some scans of 18 eyes: every row with a gap, every kind of file name, two-eye patients, patient 79."""
        two_eyes = [201, 204, 213, 222, 226]
        folders = self.labels[PATH].str.split("/").str[-4]
        odd = ["01-001", "02-016", "02-018", "0206MOD", "0222MOS", "0222TOD", "0232TOS", "0247GOD", "0248MOD"]
        chosen = self.labels["Patient_ID"].isin(two_eyes) | folders.isin(odd)
        names = self.labels[PATH].str.rsplit("/", n=1).str[-1]
        name = names.str.replace(r"[0-9]+", "0", regex=True)
        few = self.labels["Scan (n/49)"] % 12 == 1
        gap = self.labels[BIOMARKERS].isna().any(axis=1)
        first = ~name.duplicated() | (folders == "02-016")
        rows = (chosen & few) | gap | first
        patients = set(self.labels.loc[rows, "Patient_ID"])
        clinical = self.clinical[self.clinical["Patient_ID"].isin(patients)]
        wanted = clinical["File_Path"].isin(self.labels.loc[rows, PATH])
        other = (~clinical["File_Path"].isin(self.labels[PATH])) & (np.arange(len(clinical)) % 60 == 0)
        other |= clinical["File_Path"].str.match("/Prime_FULL/02-016/W(0|52)/")
        gaps = clinical["BCVA"].isna() & (np.arange(len(clinical)) % 10 == 0)
        return Real(self.labels[rows], clinical[wanted | other | gaps], self.vip[rows.to_numpy()])

    @property
    def paths(self) -> list[str]:
        """Every scan of either table."""
        return list(dict.fromkeys([*self.labels[PATH], *self.clinical["File_Path"]]))

    def write_labels(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.labels.to_csv(folder / "Biomarker_Clinical_Data_Images.csv", index=False)
        self.clinical.to_excel(folder / "Clinical_Data_Images.xlsx", index=False)

    def write_vip_tables(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.vip.to_csv(folder / "Training_Biomarker_Data.csv", index=False)
        self.clinical.to_excel(folder / "Training_Unlabeled_Clinical_Data.xlsx", index=False)

    def write_tree(self, root: Path, halves: tuple[str, ...] = tuple(HALVES)) -> None:
        """The pictures as unpacking every archive where it lies puts them."""
        for path in self.paths:
            if path.split("/")[1] in halves:
                file = root / "OLIVES" / path.lstrip("/")
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(encoded(path))

    def write_archives(self, root: Path, inner: int = zipfile.ZIP_STORED, labels: bool = True) -> None:
        """OLIVES.zip, whose two inner zips are packed by method `inner`, and OLIVES_Dataset_Labels.zip."""
        root.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(root / "OLIVES.zip", "w") as outer:
            for half, name in HALVES.items():
                outer.writestr(f"OLIVES/{name}", self.half(half), compress_type=inner)
        if labels:
            self.write_labels(root / "tables")
            with zipfile.ZipFile(root / "OLIVES_Dataset_Labels.zip", "w", zipfile.ZIP_DEFLATED) as packed:
                for folder, tables in (("ml_centric_labels", ("*.csv", "*.xlsx")), ("full_labels", ("*.xlsx",))):
                    for file in [file for glob in tables for file in sorted((root / "tables").glob(glob))]:
                        packed.write(file, f"OLIVES_Dataset_Labels/{folder}/{file.name}")
            for file in (root / "tables").iterdir():
                file.unlink()
            (root / "tables").rmdir()

    def half(self, half: str) -> bytes:
        """One trial's zip, with what else lies in the real ones."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
            packed.writestr(f"{half}/", b"")
            packed.writestr(f"__MACOSX/{half}/._0.tif", b"mac")
            packed.writestr(f"{half}/.DS_Store", b"mac")
            for path in self.paths:
                if path.split("/")[1] == half:
                    packed.writestr(path.lstrip("/"), encoded(path))
            packed.writestr(f"{half}/volume_0.npy", b"derived")
        return buffer.getvalue()

    def write_shards(self, root: Path, kinds: tuple[str, ...] = ("disease", "biomarker")) -> None:
        """Both configs as Hugging Face has them: no paths, floats, copies, gaps as NaN, PNG inside."""
        merged = self.clinical.rename(columns={"File_Path": PATH}).merge(
            self.labels.drop(columns=["BCVA", "CST", "Eye_ID", "Patient_ID"]), how="left", on=PATH
        )
        lost = self.labels[~self.labels[PATH].isin(self.clinical["File_Path"])]
        table = pd.concat([merged, lost], ignore_index=True)
        table.loc[table["Patient_ID"] == 79, ["BCVA", "CST"]] = np.nan
        table["Disease Label"] = np.where(table[PATH].str.startswith("/TREX"), "DME", "DR")
        if "disease" in kinds:
            copies = table[::5].assign(**dict.fromkeys([*BIOMARKERS, "Scan (n/49)"], np.nan))
            rows = pd.concat([copies, table], ignore_index=True)  # the copy without labels comes first
            for number, start in enumerate(range(0, len(rows), 150)):
                write_shard(root / f"disease_classification/train-{number:05d}.parquet", rows[start : start + 150])
        if "biomarker" in kinds:
            labels = self.vip.rename(columns={self.vip.columns[0]: PATH}).astype(dict.fromkeys(VIP, float))
            rows = labels.merge(self.labels[[PATH, "BCVA", "CST", "Eye_ID", "Patient_ID"]], on=PATH)
            write_shard(root / "biomarker_detection/train-00000.parquet", rows)
            test = rows[:3].assign(**dict.fromkeys([*VIP, "BCVA", "CST", "Eye_ID", "Patient_ID"], np.nan))
            test[PATH] = [f"RECOVERY{number}" for number in range(3)]
            write_shard(root / "biomarker_detection/test-00000.parquet", test)


VIP = [f"B{number}" for number in range(1, 7)]


def write_shard(path: Path, rows: pd.DataFrame) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = [{"bytes": png(pixels(str(name))), "path": None} for name in rows[PATH]]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.Table.from_pandas(rows.drop(columns=PATH).astype({"Eye_ID": float}), preserve_index=False)
    pq.write_table(table.add_column(0, "Image", pa.array(pictures, kind)), path, row_group_size=40)


def pixels(path: str) -> np.ndarray:
    """What the file of this path decodes to: for .jpg not quite what was drawn."""
    return np.asarray(Image.open(io.BytesIO(encoded(path))).convert("L"))


def encoded(path: str) -> bytes:
    """A unique small picture in the format that the name says, in an extension's own format."""
    seed = int(hashlib.sha256(path.encode()).hexdigest()[:8], 16)
    drawn = np.random.default_rng(seed).integers(0, 256, (16, 20), np.uint8)
    buffer = io.BytesIO()
    kind = {"tif": "TIFF", "jpg": "JPEG"}.get(path.rsplit(".", 1)[-1], "PNG")
    Image.fromarray(drawn).save(buffer, kind)
    return buffer.getvalue()


def png(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()
