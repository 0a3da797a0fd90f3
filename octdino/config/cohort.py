"""Settings of the cohort stage: location and kind of the files, image preprocessing, train/val/test splits."""

import os
import re
from pathlib import Path
from typing import Any, Literal, Self, get_args

from pydantic import Field, model_validator

from octdino.config.names import LARGEST_SEED
from octdino.config.patterns import compile_patient_pattern
from octdino.config.settings_base import Settings, checked

COHORTS = Literal[
    "phantom", "olives", "oct2017", "octdl", "folder", "imagenette", "cifar10", "stl10", "voc12"
]  # fmt: skip
NEWER = ("folders", "header_ids", "sheet", "class_column", "ignore", "patient_pattern")  # than existing results
UNPUBLISHED = ("phantom", "folder")  # two cohorts of such a kind need not hold the same patients
TITLE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")  # one folder name, valid on every file system


class PhantomSettings(Settings):
    """The synthetic cohort, written as files in the published form of OLIVES, by default as large."""

    seed: int = Field(0, ge=0, le=LARGEST_SEED, description="seed of every random choice of the cohort")
    patients: int = Field(87, ge=8, description="number of patients (OLIVES: 87); about one in ten with both eyes")
    visits: int = Field(4, ge=2, description="mean visits per eye; only the first and the last have labels")
    slices: int = Field(7, ge=1, le=49, description="B-scans per visit, spread evenly over the 49-slice volume")
    difficulty: float = Field(
        0.5,
        ge=0,
        le=1,
        description="0: large lesions of high contrast, little speckle; 1: small, faint lesions, strong speckle",
    )
    label_noise: float = Field(0.04, ge=0, le=0.2, description="share of label cells flipped, as graders err")
    flaws: bool = Field(True, description="write the flaws of the real cohort: duplicates, missing cells, bad files")


class ImageSettings(Settings):
    """Image preprocessing: how a file becomes a row of the store."""

    size: tuple[int, int] = Field((224, 224), description="height, width of the stored image in pixels")
    crop: Literal["none", "retina"] = Field(
        "none",
        description="retina: a window around the retina with the vitreous above it, where three biomarkers are",
    )
    channels: Literal[1, 3] = Field(1, description="1: gray from file to first convolution; 3: RGB")
    percentiles: tuple[float, float] | None = Field(
        None,
        description="[low, high]: stretch gray levels between these percentiles per image; null: absolute gray",
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if min(self.size) < 16:
            raise ValueError("size: at least 16 pixels each way")
        if self.percentiles and not 0 <= self.percentiles[0] < self.percentiles[1] <= 100:
            raise ValueError("percentiles: 0 <= low < high <= 100")
        return self


class SplitSettings(Settings):
    """Training, validation and test patients: split by patient, stratified over the labels."""

    protocol: Literal["holdout", "crossval", "published", "published2", "published3"] = Field(
        "holdout",
        description="holdout: one split; crossval: each patient is tested once per repeat, predictions are pooled; "
        "published: the published test patients of oct2017, whose training scans are left out; published2, published3: "
        "the OLIVES papers' second and third list of test patients",
    )
    folds: int = Field(
        5, ge=2, le=20, description="crossval: number of folds; each is tested once by models that trained on others"
    )
    repeats: int = Field(
        1, ge=1, le=20, description="crossval: number of repeated partitions into folds; scores are their mean"
    )
    val: float = Field(0.15, gt=0, lt=0.5, description="share of patients that choose epochs, penalties and thresholds")
    test: float = Field(0.25, gt=0, lt=0.5, description="holdout: share of patients that are read once, at the end")
    seed: int = Field(0, ge=0, le=LARGEST_SEED, description="seed of the split")
    file: Path | None = Field(None, description="reuse this splits.csv of an earlier run instead of a new split")

    @property
    def count(self) -> int:
        """Return the number of folds to train and test, numbered from 0 through all repeats."""
        return self.folds * self.repeats if self.protocol == "crossval" else 1

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if self.file is not None and self.protocol != "holdout":
            raise ValueError(f"file: holds one split; leave it out, or protocol {self.protocol}")
        return self


class CohortSettings(Settings):
    """Which cohort, and how its files become manifest, splits and store."""

    name: COHORTS = Field("phantom", description="kind of cohort, which decides how the files are read")
    title: str | None = Field(
        None,
        description="the {cohort} in results/ and in the manifest, different for two cohorts of one kind; letters, "
        "digits, _, - and .; null: the name",
    )
    root: Path | None = Field(
        None,
        description="folder of the files (not for phantom); imagenette, cifar10, stl10 and voc12 are downloaded to it "
        "if missing; null: to the user's cache",
    )
    table: Path | None = Field(
        None,
        description="folder: CSV, TSV or Excel with a path column; olives: the biomarker table, octdl: "
        "OCTDL_labels.csv, if not below root",
    )
    sheet: str | None = Field(None, description="folder: sheet of an Excel table; null: the one that has a path column")
    clinical: Path | None = Field(None, description="olives: the clinical table, if not below root")
    labels: list[str] | None = Field(
        None, description="folder: the label columns; null: every column but the known others"
    )
    class_column: str | None = Field(
        None,
        description="folder: text column whose values are the classes; null: a column such as diagnosis, if it is the "
        "only one",
    )
    ignore: list[str] = Field(
        [],
        description="folder: columns that are neither labels nor anything else, such as [Sex]; split among them: a new "
        "split, whatever a column or train and test folders say",
    )
    patient_pattern: str | None = Field(
        "auto",
        description="folder: regular expression whose one group is the patient's id in a file name, such as "
        "'-(\\d+)-'; auto: of names such as CNV-1016042-1.jpeg and amd_1101816_1.jpg, if all are; null: names name no "
        "patients",
    )
    folders: Literal["auto", "classes", "classes-patients", "patients", "none"] = Field(
        "auto",
        description="folder: what the folders below root are, a table there is then not read; classes: the labels; "
        "classes-patients: labels, and in each one folder per patient; patients: one folder per patient, scans without "
        "labels; none: nothing, scans without labels, patients as the headers of clinical files have them; auto: a "
        "table if there is one, else classes that do not look like patients, visits or dates, with patients below them "
        "if these folders look so",
    )
    header_ids: bool = Field(
        False,
        description="folder: patients of clinical files keep the id of their header; false: running pseudonyms",
    )
    exclusive: bool | None = Field(
        None,
        description="true: each scan has exactly one label, one softmax over all; null: as the cohort is published; "
        "folder: true if each labeled row of the table has exactly one 1",
    )
    imagenette: Literal["160px", "320px", "full"] = Field("160px", description="published image size")
    phantom: PhantomSettings = PhantomSettings()
    image: ImageSettings = ImageSettings()
    split: SplitSettings = SplitSettings()

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.split.protocol.startswith("published"):
            owner = "oct2017" if self.split.protocol == "published" else "olives"
            if self.name != owner:
                raise ValueError(f"split.protocol: {self.split.protocol} lists patients of {owner}, not of {self.name}")
        if self.local and self.root is None:
            raise ValueError(f"root: missing; write the folder of the files of the cohort {self.name!r}")
        self._consistent()
        if self.title is not None:
            if not TITLE.fullmatch(self.title):
                raise ValueError(
                    f"title: {self.title!r} is no folder name; expected 1 to 100 letters, digits, _, - and ., the "
                    "first one a letter, a digit or _"
                )
            if self.title in set(get_args(COHORTS)) - {self.name}:
                raise ValueError(f"title: {self.title!r} is the name of another kind of cohort; expected another title")
        return self

    def _consistent(self) -> None:
        """Raise ValueError where two keys of the folder cohort contradict each other."""
        for key in ("table", "sheet", "class_column") if self.folders != "auto" else ():
            if getattr(self, key) is not None:
                raise ValueError(f"folders: {self.folders} is about files without a table; leave it out, or {key}")
        if both := sorted({*(self.labels or []), self.class_column or ""} & set(self.ignore)):
            raise ValueError(f"ignore: {both[0]!r} is a label, too; leave one out")
        if self.patient_pattern not in (None, "auto"):
            checked("patient_pattern", compile_patient_pattern, self.patient_pattern)
            if self.folders.endswith("patients"):
                raise ValueError(f"patient_pattern: folders: {self.folders} names the patients, too; leave one out")

    @property
    def table_file(self) -> Path | None:
        """Return the path of the table; that of the cohort `folder` may be relative to the root."""
        if self.name != "folder" or self.table is None or self.root is None or self.table.is_file():
            return self.table
        inside = self.root / self.table
        return inside if inside.is_file() else self.table

    def plain(self, **exclude: Any) -> dict[str, Any]:
        """Return the settings as JSON values without the keys `exclude`, as pydantic takes them.

        Keys that are newer than existing results are left out at their default, so that nothing is made again.
        """
        same = {name for name in NEWER if getattr(self, name) == type(self).model_fields[name].default}
        return self.model_dump(mode="json", exclude={**dict.fromkeys(same, True), **exclude})

    @property
    def results_name(self) -> str:
        """Return the {cohort} in results/ and the manifest's column `cohort`: the title, or else the name."""
        return self.title or self.name

    @property
    def files(self) -> Path:
        """Return the folder of the files: root, or the user's cache for cohorts that can be downloaded."""
        cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        return self.root or cache / "octdino" / self.name

    @property
    def local(self) -> bool:
        """Whether the files must be below root before a run: a run generates or downloads those of other cohorts."""
        return self.name in ("olives", "oct2017", "octdl", "folder")

    @property
    def comparable(self) -> set[str]:
        """Return the values by which the cohort's scans may be comparable: clinical ones, eyes and visits."""
        if self.clinical_values:
            return {"bcva", "cst", "eye", "visit"}
        return {"eye"} if self.name == "octdl" else set()

    @property
    def clinical_values(self) -> bool:
        """Whether the cohort may have acuity, thickness or other values of patients for a clinical baseline."""
        return self.name in ("phantom", "olives", "folder")
