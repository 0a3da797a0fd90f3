"""torchvision's data sets in their published form: the same pictures and labels as torchvision itself reads."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from torchvision import datasets
from torchvision.datasets.imagenette import Imagenette

from octdino.cohort import vision
from octdino.cohort.ingest import build_cohort
from octdino.cohort.vision import VOC_CLASSES
from octdino.config import CohortSettings
from octdino.data.csv_io import label_matrix, labels_of, read_table
from octdino.data.schemas.csv_schemas import MANIFEST, QUARANTINE
from octdino.data.store import read_header, read_images
from octdino.errors import UserError

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def build(name: str, root: Path, out: Path, size: int = 32, workers: int = 1) -> tuple[pd.DataFrame, np.ndarray]:
    """The manifest and the images of the store."""
    settings = CohortSettings.parse(
        {"name": name, "root": root, "image": {"size": [size, size], "channels": 3}, "split": {"val": 0.2}}, "test"
    )
    build_cohort(settings, out, workers)
    assert read_table(out / "quarantine.csv", QUARANTINE).empty
    store = read_header(out / "scans.h5")
    manifest = read_table(out / "manifest.csv", MANIFEST)
    assert store.scan_id == manifest["scan_id"].tolist()
    assert store.attributes["exclusive"] == (name != "voc12")
    assert manifest["scan_id"].is_unique
    assert manifest["patient"].is_unique
    assert store.attributes["patients"] == "none"
    return manifest, read_images(out / "scans.h5")


def named(manifest: pd.DataFrame) -> list[str]:
    """The one label of each scan; empty where it has none."""
    labels = labels_of(manifest)
    truth = np.nan_to_num(label_matrix(manifest, labels))
    return [labels[int(row.argmax())] if row.any() else "" for row in truth]


def write_imagenette(root: Path, folder: str = "imagenette2-160", train: int = 4, val: int = 2) -> Path:
    for index, wnid in enumerate(sorted(Imagenette._WNID_TO_CLASS)):
        for part, count in (("train", train), ("val", val)):
            (root / folder / part / wnid).mkdir(parents=True)
            for number in range(count):
                path = root / folder / part / wnid / f"{wnid}_{number}.JPEG"
                Image.fromarray(noise(40, 48, 3, seed=100 * index + number + (50 if part == "val" else 0))).save(
                    path, format="JPEG"
                )
    return root


@pytest.mark.parametrize("inside", [False, True], ids=["above", "the folder itself"])
def test_imagenette_is_torchvisions(tmp_path: Path, inside: bool) -> None:
    root = write_imagenette(tmp_path / "data")
    manifest, images = build("imagenette", root / "imagenette2-160" if inside else root, tmp_path / "out")
    assert len(manifest) == 60
    theirs = {part: Imagenette(str(root), split=part, size="160px") for part in ("train", "val")}
    expected = {}
    for part, found in theirs.items():
        for path, target in found._samples:
            expected[Path(path).name, part] = found.classes[target][0]
    sides = {"train": "train", "val": "train", "test": "val"}
    for path, split, label in zip(manifest["path"], manifest["split"], named(manifest), strict=True):
        assert expected.pop((Path(path).name, sides[split])) == label
    assert not expected
    first = Image.open((root if not inside else root / "imagenette2-160") / manifest["path"][7])
    pixels = np.asarray(first.convert("RGB").resize((32, 32), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(images[7].transpose(1, 2, 0), pixels)


def write_cifar(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The published batches, ten scans each; their checksums take the place of the published ones."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    sums = {}

    def write(name: str, content: object) -> None:
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        sums[name] = hashlib.md5(data).hexdigest()

    for number, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        write(name, {"data": noise(10, 3072, seed=number), "labels": [(3 * i + number) % 10 for i in range(10)]})
    write("batches.meta", {"label_names": CLASSES})
    for kind in ("train_list", "test_list"):
        listed = [[name, sums[name]] for name, _ in getattr(datasets.CIFAR10, kind)]
        monkeypatch.setattr(datasets.CIFAR10, kind, listed)
    meta = {**datasets.CIFAR10.meta, "md5": sums["batches.meta"]}
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta)
    vision._cifar.cache_clear()
    return root


def test_cifar10_is_torchvisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_cifar(tmp_path / "data", monkeypatch)
    manifest, images = build("cifar10", root, tmp_path / "out")
    theirs = [datasets.CIFAR10(root, train=train) for train in (True, False)]
    np.testing.assert_array_equal(images.transpose(0, 2, 3, 1), np.concatenate([found.data for found in theirs]))
    assert named(manifest) == [CLASSES[target] for found in theirs for target in found.targets]
    assert (manifest["split"] == "test").tolist() == [False] * 50 + [True] * 10


def test_cifar10_as_class_folders_has_the_same_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_cifar(tmp_path / "data", monkeypatch)
    official, images = build("cifar10", root, tmp_path / "official")
    for row, (label, split) in enumerate(zip(named(official), official["split"], strict=True)):
        folder = tmp_path / "folders" / "cifar10" / ("test" if split == "test" else "train") / label
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[row].transpose(1, 2, 0)).save(folder / f"{row:02d}.png")
    manifest, same = build("cifar10", tmp_path / "folders", tmp_path / "out")
    assert sorted(labels_of(manifest)) == CLASSES
    by_pixels = {image.tobytes(): label for image, label in zip(images, named(official), strict=True)}
    assert [by_pixels[image.tobytes()] for image in same] == named(manifest)
    assert (manifest["split"] == "test").sum() == 10


def test_a_changed_cifar_batch_is_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_cifar(tmp_path / "data", monkeypatch)

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "executed",)

    (root / "cifar-10-batches-py" / "data_batch_3").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(UserError, match="corrupted"):
        build("cifar10", root, tmp_path / "out")
    assert not (tmp_path / "executed").exists()


def write_stl(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = root / "stl10_binary"
    folder.mkdir(parents=True)
    files = {"class_names.txt": "\n".join(CLASSES).encode(), "fold_indices.txt": b"0 1 2\n" * 10}
    for part, count in (("train", 40), ("test", 20), ("unlabeled", 30)):
        files[f"{part}_X.bin"] = noise(count, 3, 96, 96, seed=count).tobytes()
        if part != "unlabeled":
            files[f"{part}_y.bin"] = bytes(1 + i % 10 for i in range(count))
    for name, content in files.items():
        (folder / name).write_bytes(content)
    for kind in ("train_list", "test_list"):
        listed = [[name, hashlib.md5(files[name]).hexdigest()] for name, _ in getattr(datasets.STL10, kind)]
        monkeypatch.setattr(datasets.STL10, kind, listed)
    vision._stl_images.cache_clear()
    return root


@pytest.mark.parametrize("workers", [1, 2])
def test_stl10_is_torchvisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    monkeypatch.setattr("octdino.scans.decode_pool.FEW", 10)  # processes read from the mapped file, too
    root = write_stl(tmp_path / "data", monkeypatch)
    manifest, images = build("stl10", root, tmp_path / "out", size=96, workers=workers)
    theirs = [datasets.STL10(root, split=part) for part in ("train", "test", "unlabeled")]
    np.testing.assert_array_equal(images, np.concatenate([found.data for found in theirs]))
    truth = [CLASSES[int(target)] if target >= 0 else "" for found in theirs for target in found.labels]
    assert named(manifest) == truth
    assert (manifest["split"][40:60] == "test").all()
    assert (manifest["split"][60:] == "train").all()
    assert label_matrix(manifest)[60:].size
    assert np.isnan(label_matrix(manifest)[60:]).all()


def write_voc(root: Path) -> dict[str, set[int]]:
    """Twelve pictures with one or two classes each and void borders; which classes each has."""
    base = root / "VOCdevkit" / "VOC2012"
    for kind in ("JPEGImages", "SegmentationClass", "SegmentationObject", "ImageSets/Segmentation"):
        (base / kind).mkdir(parents=True)
    found = {}
    for number in range(12):
        name = f"2007_{number:06d}"
        mask = np.zeros((30, 40), np.uint8)
        classes = {1 + number % 3, 20} if number % 2 else {1 + number % 3}
        for place, one in enumerate(sorted(classes)):
            mask[4:12, 15 * place : 15 * place + 10] = 255
            mask[5:11, 15 * place + 1 : 15 * place + 9] = one
        palette = Image.fromarray(mask, mode="P")
        palette.putpalette(noise(768).tolist())
        palette.save(base / "SegmentationClass" / f"{name}.png")
        palette.save(base / "SegmentationObject" / f"{name}.png")
        Image.fromarray(noise(30, 40, 3, seed=number)).save(base / "JPEGImages" / f"{name}.jpg")
        found[name] = classes
    names = sorted(found)
    (base / "ImageSets/Segmentation/train.txt").write_text("\n".join(names[:8]) + "\n")
    (base / "ImageSets/Segmentation/val.txt").write_text("\n".join(names[8:]) + "\n")
    return found


def test_voc12_has_the_classes_of_its_masks(tmp_path: Path) -> None:
    expected = write_voc(tmp_path / "data")
    manifest, _ = build("voc12", tmp_path / "data", tmp_path / "out")
    truth = label_matrix(manifest, list(VOC_CLASSES))
    theirs = [datasets.VOCSegmentation(tmp_path / "data", image_set=part) for part in ("train", "val")]
    assert manifest["path"].map(lambda path: Path(path).name).tolist() == [
        Path(image).name for found in theirs for image in found.images
    ]
    for row, path in enumerate(manifest["path"]):
        assert set(np.flatnonzero(truth[row]) + 1) == expected[Path(path).stem]
    assert (manifest["split"][8:] == "test").all()
    assert all((tmp_path / "data" / mask).is_file() for mask in manifest["mask"])


def test_a_damaged_stl_file_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_stl(tmp_path / "data", monkeypatch)
    labels = root / "stl10_binary" / "train_y.bin"
    labels.write_bytes(labels.read_bytes()[:-1] + b"\x0b")
    with pytest.raises(UserError, match=r"train_y.bin: expected 40 labels from 1 to 10"):
        build("stl10", root, tmp_path / "out")
    pictures = root / "stl10_binary" / "unlabeled_X.bin"
    pictures.write_bytes(pictures.read_bytes()[:-1])
    labels.write_bytes(bytes(1 + i % 10 for i in range(40)))
    vision._stl_images.cache_clear()
    with pytest.raises(UserError, match=r"unlabeled_X.bin: \d+ bytes; expected images of 27648 bytes each"):
        build("stl10", root, tmp_path / "out")
