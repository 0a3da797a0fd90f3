"""Settings of the cohort stage: where the scans are, how they become the store, who is in which split."""

import os
import re
from pathlib import Path
from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from octdino.config.names import LARGEST_SEED
from octdino.config.settings_base import Settings

COHORTS = Literal["phantom", "olives", "folder", "imagenette", "cifar10", "stl10", "voc12"]
UNPUBLISHED = ("phantom", "folder")  # two cohorts of such a kind need not hold the same patients
TITLE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")  # one folder name, safe on every file system


class PhantomSettings(Settings):
    """The synthetic cohort. Defaults are the real cohort's size and statistics; `config.yaml` makes it laptop-sized."""

    seed: int = Field(0, ge=0, le=LARGEST_SEED, description="every random choice of the cohort descends from it")
    patients: int = Field(87, ge=8, description="patients; about one in ten with both eyes in the study, as in OLIVES")
    visits: int = Field(4, ge=2, description="mean visits per eye; labels exist for the first and the last only")
    slices: int = Field(7, ge=1, le=49, description="B-scans per visit, spread evenly over the 49-slice volume")
    difficulty: float = Field(
        0.5, ge=0, le=1, description="0: large, contrasty lesions and little speckle; 1: as hard as it gets"
    )
    label_noise: float = Field(0.04, ge=0, le=0.2, description="share of label cells flipped, as graders err")
    flaws: bool = Field(
        True, description="write the real cohort's kinds of flaws: duplicates, missing cells, bad files"
    )


class ImageSettings(Settings):
    """How a file becomes a row of the store."""

    size: tuple[int, int] = Field((224, 224), description="height, width of the stored image in pixels")
    crop: Literal["none", "retina"] = Field(
        "none",
        description="retina: a window around the retina that keeps the vitreous above it; three biomarkers live there",
    )
    channels: Literal[1, 3] = Field(1, description="1: grey from file to first convolution; 3: RGB")
    percentiles: tuple[float, float] | None = Field(
        None, description="stretch grey levels between these percentiles of each image; null keeps absolute grey"
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if min(self.size) < 16:
            raise ValueError("size: at least 16 pixels each way")
        if self.percentiles and not 0 <= self.percentiles[0] < self.percentiles[1] <= 100:
            raise ValueError("percentiles: 0 <= low < high <= 100")
        return self


class SplitSettings(Settings):
    """Who trains, who validates, who tests: by patient, stratified over the labels."""

    protocol: Literal["holdout", "crossval", "published2", "published3"] = Field(
        "holdout",
        description="holdout: one division; crossval: each patient is tested once a repeat, predictions are pooled; "
        "published2, published3: the OLIVES papers' second and third list of test patients",
    )
    folds: int = Field(5, ge=2, le=20, description="crossval: parts of the patients, each tested once")
    repeats: int = Field(1, ge=1, le=20, description="crossval: divisions into folds; scores are their mean")
    val: float = Field(0.15, gt=0, lt=0.5, description="share of patients that choose epochs and thresholds")
    test: float = Field(0.25, gt=0, lt=0.5, description="share of patients that are read once, at the end")
    seed: int = Field(0, ge=0, le=LARGEST_SEED)
    file: Path | None = Field(None, description="reuse this splits.csv of an earlier run in place of making one")

    @property
    def count(self) -> int:
        """How many folds there are to train and test, numbered from 0 through all repeats."""
        return self.folds * self.repeats if self.protocol == "crossval" else 1

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if self.file is not None and self.protocol != "holdout":
            raise ValueError(f"file: holds one division; leave it out, or protocol {self.protocol}")
        return self


class CohortSettings(Settings):
    """Which cohort, and how it becomes manifest, splits and store."""

    name: COHORTS = Field("phantom", description="which kind of cohort: it decides how the files are read")
    title: str | None = Field(
        None,
        description="the {cohort} in results/ and in the manifest, so that two cohorts of one kind keep apart; "
        "letters, digits, _, - and .; null: the name",
    )
    root: Path | None = Field(
        None,
        description="where the files are (not for phantom); imagenette, cifar10, stl10 and voc12 are downloaded to it "
        "if they are not there, null: to the user's cache",
    )
    table: Path | None = Field(
        None, description="folder: CSV with a path column; olives: the biomarker table, if not below root"
    )
    clinical: Path | None = Field(None, description="olives: the clinical table, if not below root")
    labels: list[str] | None = Field(
        None, description="folder: the label columns; null: every column that is not one of the known others"
    )
    exclusive: bool | None = Field(
        None,
        description="each scan has exactly one label: one softmax over all; null: as the cohort is published; of a "
        "folder's table: whether each labelled row has exactly one 1",
    )
    imagenette: Literal["160px", "320px", "full"] = Field("160px", description="which of the published sizes")
    phantom: PhantomSettings = PhantomSettings()
    image: ImageSettings = ImageSettings()
    split: SplitSettings = SplitSettings()

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.split.protocol.startswith("published") and self.name != "olives":
            raise ValueError(f"split.protocol: {self.split.protocol} lists patients of olives, not of {self.name}")
        if self.name in ("olives", "folder") and self.root is None:
            raise ValueError(f"root: missing; say where the files of the cohort {self.name!r} are")
        if self.title is not None:
            if not TITLE.fullmatch(self.title):
                raise ValueError(
                    f"title: {self.title!r} is no folder name; expected 1 to 100 letters, digits, _, - and ., the "
                    "first one a letter, a digit or _"
                )
            if self.title in set(get_args(COHORTS)) - {self.name}:
                raise ValueError(f"title: {self.title!r} is the name of another kind of cohort; expected another title")
        return self

    @property
    def results_name(self) -> str:
        """The {cohort} in results/ and the manifest's column `cohort`: the title, or the name where there is none."""
        return self.title or self.name

    @property
    def files(self) -> Path:
        """Where the files are: root, or for what can be downloaded the user's cache."""
        cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        return self.root or cache / "octdino" / self.name

    @property
    def clinical_values(self) -> bool:
        """Whether scans are of patients, whom a clinical control may describe."""
        return self.name in ("phantom", "olives", "folder")
