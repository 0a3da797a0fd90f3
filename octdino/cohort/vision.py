"""Readers of torchvision's datasets imagenette, cifar10, stl10 and voc12, from a local folder or a download.

The published test set is the test split (Imagenette's and VOC's validation set); each image is its own patient.
URLs, checksums and class names are torchvision's. Nothing is downloaded if the files exist.
"""

import functools
import logging
import shutil
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torchvision import datasets
from torchvision.datasets.imagenette import Imagenette
from torchvision.datasets.voc import DATASET_YEAR_DICT

from octdino.cohort.fetch import fetch
from octdino.cohort.scan_table import Quarantine, ScanTable, build_scan_tables, check_labels
from octdino.config.cohort import CohortSettings
from octdino.data.atomic_files import read_text
from octdino.errors import UserError
from octdino.scans.image_files import read_image
from octdino.scans.preprocess import SUFFIXES
from octdino.scans.sources import ImageSource

VOC = DATASET_YEAR_DICT["2012"]
VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
STL_SIDE = 96  # px
Record = dict[str, Any]

log = logging.getLogger("octdino.cohort")


@dataclass(frozen=True)
class Archive:
    """A dataset's archive as torchvision defines it: the folder in it, its URL and its MD5 checksum."""

    folder: str
    url: str
    md5: str


def archive_of(settings: CohortSettings) -> Archive:
    """Return the archive of a cohort."""
    if settings.name == "imagenette":
        url, md5 = Imagenette._ARCHIVES[settings.imagenette]
        return Archive(url.rsplit("/", 1)[-1].removesuffix(".tgz"), url, md5)
    if settings.name == "voc12":
        return Archive("VOCdevkit", VOC["url"], VOC["md5"])
    kind = datasets.CIFAR10 if settings.name == "cifar10" else datasets.STL10
    return Archive(kind.base_folder, kind.url, kind.tgz_md5)


def read_vision(settings: CohortSettings) -> ScanTable:
    """Read the images of the cohort, after downloading them if they are missing.

    Raises:
        UserError: the files are missing and cannot be downloaded, or are damaged.
    """
    root = settings.files
    archive = archive_of(settings)
    plain = _class_folders(root, settings.name) if settings.name == "cifar10" else None
    if plain is None and _place(root, archive) is None:
        fetch_vision(settings, root)
    if plain is not None:
        labels, records, source = *plain, None
    else:
        place = _place(root, archive)
        assert place is not None, "it was fetched"
        labels, records, source = READERS[settings.name](root, place)
    prefix = settings.name + "/"
    for record in records:
        record |= {"table_path": record["path"], "known": False, "patient": record["path"]}
        record.setdefault("id_path", record["path"].removeprefix(prefix))
    tables = build_scan_tables(records, settings.results_name, check_labels(labels, f"{root}: classes"))
    exclusive = settings.name != "voc12"
    return ScanTable(root, *tables, Quarantine(), False, exclusive=exclusive, patients="none", source=source)


def fetch_vision(settings: CohortSettings, root: Path) -> None:
    """Download and unpack the cohort below `root`, unless it exists.

    Raises:
        UserError: no network, a wrong checksum or too little disk; the message says where files may be put by hand.
    """
    archive = archive_of(settings)
    if _place(root, archive) is not None:
        log.info("%s: %s is there already", root, archive.folder)
        return
    name = archive.url.rsplit("/", 1)[-1]
    try:
        path = fetch(archive.url, root / name, f"md5:{archive.md5}")
    except UserError as error:
        raise UserError(f"{settings.name}: no folder {archive.folder} in {root.absolute()}, and {error}") from None
    _unpack(path, root, archive.folder)
    path.unlink()


def _unpack(path: Path, root: Path, folder: str) -> None:
    """Unpack an archive to a temporary folder and rename it when complete; nothing is written outside."""
    partial = root / f".{folder}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with tarfile.open(path) as archive:
            archive.extractall(partial, filter="data")
        (partial / folder).replace(root / folder)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UserError(f"{path}: cannot be unpacked: {error}; expected an archive with the folder {folder}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _place(root: Path, archive: Archive) -> str | None:
    """Return the prefix of the published folder below root, empty if root is that folder; None if it is missing."""
    if (root / archive.folder).is_dir():
        return f"{archive.folder}/"
    return "" if root.name == archive.folder and root.is_dir() else None


def _one_hot(classes: Iterable[str], name: str) -> Record:
    return {"truth": {other: int(other == name) for other in classes}}


def _imagenette(root: Path, place: str) -> tuple[list[str], list[Record], None]:
    """{train,val}/{WordNet id}/*.JPEG."""
    classes = {wnid: str(names[0]) for wnid, names in Imagenette._WNID_TO_CLASS.items()}
    records = []
    for part, given in (("train", "train"), ("val", "test")):
        for wnid, name in sorted(classes.items()):
            files = sorted(path.name for path in _listed(root / place / part / wnid))
            truth = {"given_split": given, **_one_hot(classes.values(), name)}
            records += [
                {"path": f"{place}{part}/{wnid}/{file}", "id_path": f"{part}/{file}", **truth} for file in files
            ]
    return list(classes.values()), records, None


def _class_folders(root: Path, name: str) -> tuple[list[str], list[Record]] | None:
    """{train,test}/{class}/ below root or a folder of the cohort's name; None where there is no such thing."""
    for place in ("", f"{name}/"):
        if all((root / place / part).is_dir() for part in ("train", "test")):
            classes = sorted(path.name for path in (root / place / "train").iterdir() if path.is_dir())
            return classes, [
                {"path": f"{place}{part}/{one}/{file.name}", "given_split": part, **_one_hot(classes, one)}
                for part in ("train", "test")
                for one in classes
                for file in sorted(_listed(root / place / part / one))
            ]
    return None


def _listed(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected one with the images of a class")
    return [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")]


@functools.lru_cache(maxsize=2)
def _cifar(parent: Path, train: bool) -> datasets.CIFAR10:
    """Return torchvision's dataset, which checks the checksum of each batch before reading it."""
    try:
        return datasets.CIFAR10(parent, train=train, download=False)
    except RuntimeError as error:
        raise UserError(f"{parent / datasets.CIFAR10.base_folder}: {error}; expected the published batches") from None


@dataclass(frozen=True)
class CifarSource:
    """Image source: `{train|test}/{number}`; each process reads the batches once."""

    parent: Path

    def __call__(self, path: str) -> np.ndarray:
        """uint8 [32, 32, 3]."""
        part, number = path.split("/")[-2:]
        found: np.ndarray = _cifar(self.parent, part == "train").data[int(number)]
        return found


def _cifar10(root: Path, place: str) -> tuple[list[str], list[Record], ImageSource]:
    parent = root if place else root.parent
    records = []
    for part in ("train", "test"):
        data = _cifar(parent, part == "train")
        classes = list(data.classes)
        records += [
            {"path": f"{place}{part}/{number:05d}", "id_path": f"{part}/{number:05d}", "given_split": part}
            | _one_hot(classes, classes[target])
            for number, target in enumerate(data.targets)
        ]
    return classes, records, CifarSource(parent)


@dataclass(frozen=True)
class StlSource:
    """Image source: `{train|test|unlabeled}/{number}` of the memory-mapped binaries in `folder`."""

    folder: Path

    def __call__(self, path: str) -> np.ndarray:
        """uint8 [96, 96, 3]."""
        part, number = path.split("/")[-2:]
        return np.ascontiguousarray(_stl_images(self.folder / f"{part}_X.bin")[int(number)].transpose(2, 1, 0))


@functools.lru_cache(maxsize=3)
def _stl_images(path: Path) -> np.ndarray:
    """uint8 [N, 3, columns, rows]: the published order."""
    size, each = path.stat().st_size if path.is_file() else 0, 3 * STL_SIDE**2
    if not size or size % each:
        raise UserError(f"{path}: {size} bytes; expected images of {each} bytes each")
    return np.memmap(path, np.uint8, "r").reshape(-1, 3, STL_SIDE, STL_SIDE)


def _stl10(root: Path, place: str) -> tuple[list[str], list[Record], ImageSource]:
    """Read the labeled parts and, for pretraining, the 100,000 images without a label."""
    folder = root / place
    names = folder / datasets.STL10.class_names_file
    if not names.is_file():
        raise UserError(f"{names}: no such file; expected the names of the classes")
    classes = read_text(names, "fetch stl10").split()
    records: list[Record] = []
    for part, given in (("train", "train"), ("test", "test"), ("unlabeled", "train")):
        count = len(_stl_images(folder / f"{part}_X.bin"))
        truth: list[Record] = [{}] * count
        if part != "unlabeled":
            told = folder / f"{part}_y.bin"
            targets = list(told.read_bytes()) if told.is_file() else []
            if len(targets) != count or not set(targets) <= set(range(1, len(classes) + 1)):
                raise UserError(f"{told}: expected {count} labels from 1 to {len(classes)}, one per image")
            truth = [_one_hot(classes, classes[target - 1]) for target in targets]
        records += [
            {"path": f"{place}{part}/{number:06d}", "id_path": f"{part}/{number:06d}", "given_split": given, **one}
            for number, one in enumerate(truth)
        ]
    return classes, records, StlSource(folder)


def _voc12(root: Path, place: str) -> tuple[list[str], list[Record], None]:
    """Read the images with segmentations; a label is positive if its class has a pixel in the mask; void is 255."""
    base = place + VOC["base_dir"].removeprefix("VOCdevkit/").strip("/") + "/"
    classes = list(VOC_CLASSES)
    records = []
    for part, given in (("train", "train"), ("val", "test")):
        listed = root / base / "ImageSets" / "Segmentation" / f"{part}.txt"
        if not listed.is_file():
            raise UserError(f"{listed}: no such list; expected VOC 2012's names of images, one per line")
        for name in read_text(listed, "fetch voc12").split():
            mask = f"{base}SegmentationClass/{name}.png"
            try:
                there = set(np.unique(np.asarray(read_image(root / mask))).tolist())
            except (OSError, ValueError) as error:
                raise UserError(f"{root / mask}: {error}; {listed.name} names it") from None
            truth = {label: int(number in there) for number, label in enumerate(classes, 1)}
            records.append(
                {
                    "path": f"{base}JPEGImages/{name}.jpg",
                    "id_path": name,
                    "mask": mask,
                    "given_split": given,
                    "truth": truth,
                }
            )
    return classes, records, None


READERS = {"imagenette": _imagenette, "cifar10": _cifar10, "stl10": _stl10, "voc12": _voc12}
