"""The whole stage: on a small phantom with its lesion masks, and on real VOC pictures with their object masks."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from octdino.cohort.ingest import build_cohort  # only tests may join two stages
from octdino.config import CohortSettings, ExplainSettings, ModelSettings, PhantomSettings
from octdino.data.csv_io import labels_of, read_table, write_table
from octdino.data.schemas.csv_schemas import EMBEDDING, JACCARD, JACCARD_IMAGES, MANIFEST, OVERLAP, RETRIEVAL, SPLITS
from octdino.data.store import read_header, read_images
from octdino.data.store_writer import StoreWriter
from octdino.data.weights_file import write_weights
from octdino.errors import UserError
from octdino.explain import explain
from octdino.explain.explained_scans import read_shown
from octdino.explain.lesion_masks import read_truth
from octdino.models.backbones import create_backbone
from octdino.phantom import write_phantom
from tests.embedded import explain_network, write_embedded
from tests.small import INPUT, store_attributes, write_small_cohort

VIT = ModelSettings(timm="test_vit", args={"patch_size": 8})
CNN = ModelSettings(timm="test_resnet")
QUICK = ExplainSettings(resamples=100, scans=30, retrieval_gallery=60, neighbors=[1, 3], examples=2)
TABLES = {"overlap": OVERLAP, "jaccard": JACCARD, "jaccard_images": JACCARD_IMAGES, "retrieval": RETRIEVAL}


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Its files and its store."""
    folder = tmp_path_factory.mktemp("phantom")
    write_phantom(PhantomSettings(patients=12, visits=2, slices=3), folder / "files", 1)
    image = {"size": (48, 48), "crop": "retina"}
    settings = CohortSettings.model_validate({"root": folder / "files", "image": image})
    build_cohort(settings, folder / "cohort", 1)
    return folder / "files", folder / "cohort" / "scans.h5"


def classifier(folder: Path, arm: str, labels: list[str], dim: int, network: dict[str, Any] | None = None) -> Path:
    """What `octdino classify` leaves, with random weights."""
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    weight, bias = torch.randn(len(labels), dim), torch.zeros(len(labels))
    tensors = {"head.weight": weight.double(), "head.bias": bias.double()}
    if network:
        tensors = {**{f"0.{name}": value for name, value in network.items()}, "1.weight": weight, "1.bias": bias}
    card = {
        "arm": arm, "backbone": "tiny", "fraction": 1.0, "fold": 0, "seed": 0, "labels": labels, "exclusive": False,
        "thresholds": dict.fromkeys(labels), "input": {**INPUT, "size": 48},
        "weights_sha256": write_weights(folder / "classifier.safetensors", tensors),
    }  # fmt: skip
    (folder / "classifier.json").write_text(json.dumps(card))
    return folder


def run(
    store: Path, out: Path, model: ModelSettings, settings: ExplainSettings = QUICK, init: str = "scratch", **more: Any
) -> dict[str, pd.DataFrame]:
    named: dict[str, Any] = {"pretrained": None, "classifiers": [], "masks_root": None, "seed": 0, **more}
    explain_network(init, settings, store=store, backbone="tiny", model=model, fold=0, out=out, **named)
    return {name: read_table(out / f"{name}.csv", schema) for name, schema in TABLES.items()}


def card_of(out: Path) -> dict[str, Any]:
    card: dict[str, Any] = json.loads((out / "explain.json").read_text())
    assert {figure["file"] for figure in card["figures"]} == {path.name for path in out.glob("*.png")}
    return card


def test_a_vit_on_the_phantom(phantom: tuple[Path, Path], tmp_path: Path) -> None:
    files, store = phantom
    labels = labels_of(read_table(store.with_name("manifest.csv"), MANIFEST))
    arm = classifier(tmp_path / "arm", "scratch-linear", labels, 64)
    found = run(store, tmp_path / "out", VIT, masks_root=files, classifiers=[arm])
    card = card_of(tmp_path / "out")
    assert card["maps"] == "attention of the last block, class token"
    files = ["maps.png", "labels_scratch-linear.png", "retrieval.png", "embedding.png"]
    assert [figure["file"] for figure in card["figures"]] == files
    assert (tmp_path / "out" / "embedding.svg").read_text().count("<use") >= 3 * len(card["scan_ids"])
    maps = load_file(tmp_path / "out" / "maps.safetensors")["scratch-linear"]
    assert maps.shape[:2] == (len(card["scan_ids"]), len(labels))
    assert maps.dtype == torch.uint8
    assert maps.amax((2, 3)).unique().tolist() in ([255], [0, 255])
    places = read_table(tmp_path / "out" / "embedding.csv", EMBEDDING)
    assert places["scan_id"].tolist() == card["scan_ids"]
    overlap = found["overlap"]
    assert set(overlap["map"]) == {"attention", "projection"}
    assert set(overlap["metric"]) == {"iou@10", "iou@30", "iou@60", "pointing", "pixel_auroc"}
    assert overlap["value"].between(0, 1).all()
    assert (overlap["n_patients"] <= card["n_patients"]).all()
    assert set(overlap.loc[overlap["map"] == "projection", "arm"]) == {"scratch-linear"}
    jaccard = found["jaccard"]
    assert set(zip(jaccard["protocol"], jaccard["blobs"], strict=True)) == {
        (protocol, blobs) for protocol in ("paper", "largest", "union") for blobs in ("kept", "removed")
    }
    images = found["jaccard_images"]
    one = images[(images["protocol"] == "paper") & (images["blobs"] == "kept")]
    row = jaccard[(jaccard["protocol"] == "paper") & (jaccard["blobs"] == "kept")].iloc[0]
    assert one["value"].mean() == pytest.approx(row["value"])
    assert (len(one), one["n_objects"].sum()) == (row["n_images"], row["n_objects"])
    assert {"precision@1", "precision@3", "same_patient@1", "same_patient@3"} == set(found["retrieval"]["metric"])


def test_a_cnn_a_fine_tuned_one_and_stale_figures(phantom: tuple[Path, Path], tmp_path: Path) -> None:
    files, store = phantom
    labels = labels_of(read_table(store.with_name("manifest.csv"), MANIFEST))
    network = create_backbone(CNN, 1, 48)
    dim = int(network.num_features)
    arms = [
        classifier(tmp_path / "linear", "scratch-linear", labels, dim),
        classifier(tmp_path / "tuned", "scratch-finetune", labels, dim, dict(network.state_dict())),
    ]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "labels_old.png").write_bytes(b"")
    found = run(store, tmp_path / "out", CNN, masks_root=files, classifiers=arms)
    assert card_of(tmp_path / "out")["arms"] == ["scratch-linear", "scratch-finetune"]
    assert set(found["overlap"]["map"]) == {"activation", "cam"}
    assert set(found["overlap"]["arm"].fillna("")) == {"", "scratch-linear", "scratch-finetune"}
    first = (tmp_path / "out" / "maps.png").read_bytes()
    again = run(store, tmp_path / "again", CNN, masks_root=files, classifiers=arms)
    assert (tmp_path / "again" / "maps.png").read_bytes() == first
    for name, table in found.items():
        pd.testing.assert_frame_equal(table, again[name])


def test_masks_follow_the_crop(phantom: tuple[Path, Path]) -> None:
    """The scans themselves, read as masks are, look as the store's images do."""
    files, store = phantom
    manifest = read_table(store.with_name("manifest.csv"), MANIFEST)
    images, boxes = read_images(store), read_header(store).boxes
    tiff = [row for row, path in enumerate(manifest["path"]) if Image.open(files / path).mode == "L"][:20]
    paths = manifest["path"].iloc[tiff].tolist()
    found = read_truth(files, paths, boxes[tiff], (48, 48), ["a"]).classes.numpy()
    for one, image in zip(found, images[tiff, 0], strict=True):
        assert np.corrcoef(one.ravel(), image.ravel())[0, 1] > 0.9


def test_masks_agree_with_labels(phantom: tuple[Path, Path]) -> None:
    """Bit i is label i: fewer than a tenth of the cells differ, which are the graders' errors and what is cut away."""
    files, store = phantom
    shown = read_shown(store, ExplainSettings(split="all"), files)
    assert shown.masks is not None
    masks = shown.masks.label_masks(np.arange(len(shown.scans))).any(-1).any(-1).numpy()
    known = np.isfinite(shown.scans.truth)
    assert (masks == shown.scans.truth)[known].mean() > 0.9
    assert masks.any(0).sum() > 8


def test_a_cohort_without_masks_or_without_labels(tmp_path: Path) -> None:
    store = write_small_cohort(tmp_path / "cohort")
    found = run(store, tmp_path / "out", VIT, init="scratch", masks_root=tmp_path)
    assert found["overlap"].empty
    assert found["jaccard"].empty
    assert set(found["retrieval"]["label"].fillna("")) == {"square", "stripes", "macro", ""}
    manifest = read_table(store.with_name("manifest.csv"), MANIFEST).drop(columns=["square", "stripes"])
    write_table(store.with_name("manifest.csv"), manifest, MANIFEST)
    found = run(store, tmp_path / "bare", CNN)
    assert set(found["retrieval"]["metric"]) == {"same_patient@1", "same_patient@3"}
    assert [figure["file"] for figure in card_of(tmp_path / "bare")["figures"]] == ["maps.png", "embedding.png"]


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({"settings": ExplainSettings(split="val"), "empty": True}, "manifest.csv: no val scan"),
        ({"classifiers": [Path("nowhere")]}, "classifier.json: no such file"),
        ({"arm": "dino-linear"}, "of the arm dino-linear; expected scratch-linear or scratch-finetune"),
        ({"arm": "scratch-knn"}, "of the arm scratch-knn; expected scratch-linear"),
        ({"arm": "scratch-linear"}, "for 7 features, the backbone has 64"),
        ({"mask": "none.png"}, "none.png: no such mask, but the manifest names it; is --masks-root the cohort's root"),
        ({"mask": "bad.png"}, "bad.png: the mask cannot be read"),
        ({"mask": "small.png"}, "a mask of 8 x 8, but the store kept 32 x 32 pixels at 0, 0 of its scan"),
    ],
)
def test_mistakes(more: dict[str, Any], line: str, tmp_path: Path) -> None:
    store = write_small_cohort(tmp_path / "cohort")
    manifest = read_table(store.with_name("manifest.csv"), MANIFEST)
    if more.pop("empty", False):
        for name, schema in (("manifest.csv", MANIFEST), ("splits.csv", SPLITS)):
            table = read_table(store.with_name(name), schema)
            write_table(store.with_name(name), table.assign(split=table["split"].replace("val", "test")), schema)
    if mask := more.pop("mask", ""):
        (tmp_path / "bad.png").write_bytes(b"no picture")
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "small.png")
        write_table(store.with_name("manifest.csv"), manifest.assign(mask=mask), MANIFEST)
        more["masks_root"] = tmp_path
    if arm := more.pop("arm", ""):
        more["classifiers"] = [classifier(tmp_path / "arm", arm, ["square", "stripes"], 7)]
    with pytest.raises(UserError) as error:
        run(store, tmp_path / "out", VIT, **more)
    assert line in str(error.value)
    assert not list((tmp_path / "out").glob("*")), "nothing is written before everything is read"


def test_embeddings_of_other_weights_are_refused(tmp_path: Path) -> None:
    run: dict[str, Any] = {"store": write_small_cohort(tmp_path / "cohort"), "backbone": "tiny"}
    embeddings = write_embedded("scratch", 32, model=VIT, out=tmp_path, **run)
    torch.save(create_backbone(VIT, 1, 32).state_dict(), tmp_path / "w.pth")
    weights = VIT.model_copy(update={"weights": tmp_path / "w.pth"})
    imagenet = write_embedded("imagenet", 32, model=weights, out=tmp_path / "imagenet", **run)
    torch.manual_seed(1)
    torch.save(create_backbone(VIT, 1, 32).state_dict(), tmp_path / "w.pth")
    more: dict[str, Any] = {"pretrained": None, "classifiers": [], "masks_root": None, "seed": 0, **run}
    for init, model, path, line in (
        ("scratch", VIT, tmp_path / "none.h5", "none.h5: no such file; `octdino embed` writes it"),
        ("imagenet", weights, embeddings, "embeddings of init scratch, expected init imagenet"),
        ("imagenet", weights, imagenet, "features of other weights than those of --pretrained or --model.weights"),
    ):
        with pytest.raises(UserError, match=line):
            explain(init, QUICK, model=model, embeddings=path, out=tmp_path / "out", **more)
    assert not (tmp_path / "out").exists()


def voc_store(sample: Path, folder: Path, size: int = 64) -> Path:
    """The pictures of VOC's sample as a cohort of their own, as the cohort stage would write it."""
    folder.mkdir()
    rows = []
    with StoreWriter(folder / "scans.h5", 3, (size, size)) as writer:
        for path in sorted((sample / "JPEGImages").glob("*.jpg")):
            picture = Image.open(path)
            image = np.asarray(picture.resize((size, size))).transpose(2, 0, 1)
            writer.append(np.ascontiguousarray(image), path.stem, box=(0, 0, picture.height, picture.width))
            mask = f"SegmentationClass/{path.stem}.png"
            row = {"scan_id": path.stem, "path": f"JPEGImages/{path.name}", "patient": path.stem, "split": "train"}
            rows.append({**row, "mask": mask, "cohort": "voc12", "group": path.stem, "pixel_hash": path.stem})
        manifest = pd.DataFrame(rows)
        found = {"mean": [0.45] * 3, "std": [0.25] * 3, **store_attributes(manifest, size, channels=3)}
        writer.finish(np.arange(len(rows)), found)
    write_table(folder / "manifest.csv", manifest, MANIFEST)
    write_table(folder / "splits.csv", manifest.assign(fold=0)[["fold", "patient", "group", "split"]], SPLITS)
    return folder / "scans.h5"


def test_voc(shared_data: Path, tmp_path: Path) -> None:
    """Seven real pictures; their classes stand for their objects, as the sample has no object masks."""
    sample = shared_data / "voc2012_sample"
    if not sample.is_dir():
        pytest.skip(f"no VOC images in {shared_data}")
    store = voc_store(sample, tmp_path / "cohort")
    shown = read_shown(store, ExplainSettings(split="all"), sample)
    assert shown.masks is not None
    kept = {int(v) for v in shown.masks.classes.unique()}
    assert kept <= {0, 2, 5, 6, 7, 9, 12, 15, 17, 18, 255}
    assert {15, 255} <= kept
    settings = ExplainSettings(split="all", resamples=100)
    found = run(store, tmp_path / "out", VIT, settings, masks_root=sample)
    jaccard = found["jaccard"].set_index(["protocol", "blobs"])
    assert len(jaccard) == 10
    assert (jaccard["n_images"] == 7).all()
    assert jaccard.loc[("paper", "kept"), "n_objects"] == 13
    assert jaccard.loc[("union", "kept"), "value"] != jaccard.loc[("union_void", "kept"), "value"]
    assert jaccard["value"].between(0.02, 0.7).all()
    assert (jaccard["low"] < jaccard["value"]).all()
    assert (jaccard["value"] < jaccard["high"]).all()
    assert found["overlap"].empty
    with Image.open(tmp_path / "out" / "maps.png") as picture:
        colours = np.asarray(picture.convert("RGB")).astype(int)
    assert np.ptp(colours[40:150, 10:140], axis=2).max() > 40  # RGB is shown as RGB
