"""A card alone says how a new scan becomes what its network saw in training."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from octdino.augment import resize, standardize
from octdino.classify.labeled_scans import read_labeled
from octdino.cohort.ingest import build_cohort
from octdino.config import (
    AugmentSettings,
    ClassifySettings,
    CohortSettings,
    PhantomSettings,
    PretrainSettings,
)
from octdino.data.schemas.metadata import BackboneMetadata, ClassifierMetadata, Input, read_metadata
from octdino.data.store import read_images
from octdino.models.input_batches import input_batches
from octdino.phantom import write_phantom
from octdino.pretrain import pretrain
from octdino.scans.preprocess import decode_scan  # only tests may join two stages
from tests.embedded import train_arm
from tests.small import TINY_RESNET

SIZE = 32  # px, of the network's input
IMAGE = {"size": (48, 40), "crop": "retina", "channels": 1, "percentiles": (1.0, 99.0)}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort of unusual image settings, one pretraining and one classifier on it."""
    root = tmp_path_factory.mktemp("made")
    write_phantom(PhantomSettings(patients=8, visits=2, slices=2, flaws=False), root / "files", 1)
    build_cohort(CohortSettings.model_validate({"root": root / "files", "image": IMAGE}), root / "cohort")
    augment = AugmentSettings(global_size=SIZE, local_size=16, local_views=2)
    where = {"store": root / "cohort" / "scans.h5", "backbone": "b", "model": TINY_RESNET, "fold": 0, "seed": 0}
    settings = PretrainSettings(
        epochs=1,
        batch_size=8,
        precision="float32",
        augment=augment,
        methods=["dino"],
        variants={"dino": {"prototypes": 16}},
    )
    pretrain("dino", settings, out=root / "dino", **where)
    chosen = ClassifySettings(augment=AugmentSettings(global_size=SIZE, global_scale=(0.6, 1.0)))
    train_arm("dino-linear", chosen, pretrained=root / "dino", fraction=1.0, out=root / "arm", **where)
    return root


@pytest.mark.parametrize("stage", ["pretrain", "classify"])
def test_a_file_is_preprocessed_from_the_card_alone(made: Path, stage: str) -> None:
    given: Input | None
    if stage == "pretrain":
        given = read_metadata(made / "dino" / "backbone.json", BackboneMetadata, "pretrain").input
    else:
        given = read_metadata(made / "arm" / "classifier.json", ClassifierMetadata, "classify").input
    assert given is not None
    assert given.image.model_dump() == IMAGE
    data = read_labeled(made / "cohort" / "scans.h5", 1.0, 0)
    seen = next(input_batches(data.images, data.mean, data.std, SIZE, torch.device("cpu"), data.rows("test")[:4]))
    paths = data.manifest["path"].iloc[data.rows("test")[:4]]
    stored = read_images(made / "cohort" / "scans.h5")
    manifest = pd.read_csv(made / "cohort" / "manifest.csv")
    for path, tensor in zip(paths, seen, strict=True):
        image = decode_scan(made / "files" / path, given.image).image
        assert image is not None
        assert (image == stored[manifest.index[manifest["path"] == path][0]]).all()
        mean, std = torch.tensor(given.mean), torch.tensor(given.std)
        ready = resize(standardize(torch.tensor(image)[None], mean, std), given.size)
        torch.testing.assert_close(ready[0], tensor, rtol=0, atol=1e-6)


def test_both_cards_say_the_same_in_the_same_field(made: Path) -> None:
    backbone = read_metadata(made / "dino" / "backbone.json", BackboneMetadata, "pretrain")
    classifier = read_metadata(made / "arm" / "classifier.json", ClassifierMetadata, "classify")
    assert backbone.plain()["input"] == classifier.plain()["input"]
    assert set(backbone.plain()["input"]) == {"image", "size", "mean", "std"}
