"""Runs whose second large view is of another visit: what the batch loader makes, whose scans it uses, two processes."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from octdino.cohort.ingest import build_cohort
from octdino.config import CohortSettings, PhantomSettings, PretrainSettings
from octdino.config.methods import SupconSettings
from octdino.data.cohort_reader import read_cohort
from octdino.models.initial_weights import Start
from octdino.phantom import write_phantom
from octdino.pretrain.eye_visits import VisitPartners, visit_partners
from octdino.pretrain.methods.supcon import NOT_MEASURED, Supcon
from octdino.pretrain.pretraining_data import held_rows, read_data
from octdino.pretrain.trainer import Trainer
from octdino.training.checkpoints import RunState
from tests.pretrain.small_runs import MODELS, metadata, run
from tests.pretrain.test_methods import tiny

SETTINGS = PretrainSettings.parse(
    {
        "methods": ["simclr", "dino"],
        "variants": {
            "simclr": {"positives": "eye"},
            "dino": {"positives": "eye", "positives_weeks": 24, "positives_visits": 6, "prototypes": 32},
        },
        "epochs": 1,
        "batch_size": 8,
        "augment": {"global_size": 32, "local_size": 16, "local_views": 2},
    },
    "test",
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("visits")
    write_phantom(PhantomSettings(patients=14, visits=3, slices=2), folder / "files", 1)
    cohort = {"name": "phantom", "root": folder / "files", "image": {"size": [48, 48], "crop": "retina"}}
    build_cohort(CohortSettings.parse(cohort, "test"), folder / "cohort", 1)
    return folder / "cohort/scans.h5"


def trainer(name: str, store: Path, folder: Path, settings: PretrainSettings = SETTINGS) -> Trainer:
    variant = settings.variant(name)
    data = read_data(store, 0, partners=partial(visit_partners, variant))
    start = Start(variant, MODELS["resnet"], "b", 0, 0)
    return Trainer(settings, name, start, data, 0, RunState(folder / "state", {}, 1e9))


@pytest.mark.parametrize("name", ["simclr", "dino"])
def test_second_large_view_is_the_partners_and_all_others_are_the_scans(name: str, store: Path, tmp_path: Path) -> None:
    plain = SETTINGS.model_copy(update={"variants": {"dino": {"prototypes": 32}}})
    paired, alone = trainer(name, store, tmp_path).batches, trainer(name, store, tmp_path, plain).batches
    step = 1
    rows = paired.rows(step)
    partners = paired._with_partners(rows, step)[len(rows) :]
    assert (partners != rows).float().mean() > 0.5, "most scans have another visit"
    batch, own = paired.load(step), alone.load(step)
    others = alone.load(step, partners)  # the views that the partners would have as scans of this step
    assert torch.equal(batch.views[0][0], own.views[0][0])
    assert torch.equal(batch.views[0][1], others.views[0][1])
    assert not torch.equal(batch.views[0][1], own.views[0][1])
    for mine, theirs in zip(batch.views[1:], own.views[1:], strict=True):
        assert torch.equal(mine, theirs)
    shown, _ = paired.views_of(step, int(rows[3]), 3)
    torch.testing.assert_close(shown[0], batch.views[0][:, 3], rtol=1e-5, atol=1e-5)


def test_partners_are_training_scans_of_the_same_eye_and_slice(store: Path, tmp_path: Path) -> None:
    batches = trainer("simclr", store, tmp_path).batches
    manifest = batches._data.manifest
    cohort = read_cohort(store)
    trained = set(cohort.manifest["scan_id"][(cohort.split_of(0) == "train").to_numpy()])
    rows = torch.arange(len(manifest))
    for step in range(5):
        partner = manifest.iloc[batches._with_partners(rows, step)[len(rows) :].numpy()].reset_index(drop=True)
        assert set(partner["scan_id"]) <= trained
        for column in ("patient", "eye"):
            assert (partner[column] == manifest[column]).all()
        assert (partner["slice"] == manifest["slice"]).mean() > 0.9, "but where that slice was refused"
        moved = partner["scan_id"] != manifest["scan_id"]
        assert moved.mean() > 0.5
        assert (partner["visit"] != manifest["visit"])[moved].all()


@pytest.mark.parametrize("world", [1, 2, 4])
def test_each_process_holds_its_scans_and_their_partners(
    world: int, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variant = SETTINGS.variant("simclr")
    monkeypatch.setattr("octdino.training.distributed.world_size", lambda: world)
    for rank in range(world):
        monkeypatch.setattr("octdino.training.distributed.rank", lambda r=rank: r)
        data = read_data(
            store, 0, needed_rows=lambda count: held_rows(8, 0, count), partners=partial(visit_partners, variant)
        )
        own = held_rows(8, 0, len(data.manifest))
        wanted = np.union1d(own, VisitPartners(data.manifest, variant).of(own))
        assert (data.rows[torch.from_numpy(wanted)] >= 0).all()
        whole = read_data(store, 0)
        assert torch.equal(data.images[data.rows[wanted]], whole.images[whole.rows[wanted]])


def test_partners_are_made_once_per_run(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    first = VisitPartners.__init__

    def counting(self: VisitPartners, *args: Any) -> None:
        made.append(args)
        first(self, *args)

    monkeypatch.setattr(VisitPartners, "__init__", counting)
    run(store, tmp_path / "run", name="simclr", settings=SETTINGS)
    assert len(made) == 1


@pytest.mark.parametrize("name", ["simclr", "dino"])
def test_run_records_its_positives(name: str, store: Path, tmp_path: Path) -> None:
    run(store, tmp_path / "run", name=name, settings=SETTINGS)
    assert metadata(tmp_path / "run")["method"]["positives"] == ["eye"]
    history = pd.read_csv(tmp_path / "run" / "history.csv")
    assert np.isfinite(history["loss"]).all()


@pytest.mark.slow
def test_real_olives_tables_have_pairs_of_visits(shared_data: Path) -> None:
    """The published tables, without pixels: W of PRIME are weeks, V of TREX are numbers."""
    table = pd.read_excel(shared_data / "olives" / "Training_Unlabeled_Clinical_Data.xlsx")
    parts = table["File_Path"].str.strip("/").str.split("/")
    manifest = pd.DataFrame(
        {
            "patient": table["Patient_ID"].astype(str), "eye": table["Eye_ID"].astype(str), "visit": parts.str[-3],
            "slice": table["File_Path"].str.extract(r"(\d+)\.\w+$")[0].astype("Int64") + 1,
        }
    )  # fmt: skip
    settings = SETTINGS.variant("simclr").model_copy(update={"positives_weeks": 12, "positives_visits": 3})
    partners = VisitPartners(manifest, settings)
    assert partners.with_partner > 0.99 * len(manifest)
    rows = torch.arange(len(manifest))
    chosen = manifest.iloc[partners.choose(rows, 0).numpy()].reset_index(drop=True)
    assert (chosen["patient"] == manifest["patient"]).all()
    assert (chosen["eye"] == manifest["eye"]).all()
    assert (chosen["slice"] - manifest["slice"]).abs().max() <= 48
    assert (chosen["slice"] == manifest["slice"]).mean() > 0.99
    moved = (chosen["visit"] != manifest["visit"]).to_numpy()
    assert moved.mean() > 0.99
    values = Supcon(SupconSettings(positives=["bcva", "cst"], soft=True).resolved(100), tiny, 4).targets(
        manifest.assign(bcva=table["BCVA"], cst=table["CST"])
    )[:, 1:]
    assert (values == NOT_MEASURED).sum(0).tolist() == [49, 49], "one volume has neither"
    prime = manifest["visit"].str.startswith("W").to_numpy()
    apart = (chosen["visit"].str[1:].astype(int) - manifest["visit"].str[1:].astype(int)).abs().to_numpy()
    assert (apart[prime & moved].max(), apart[~prime & moved].max()) == (12, 3)
