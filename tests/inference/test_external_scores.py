"""Scores of an external cohort are what the model folder of the same classifier gives for its scans."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from octdino.cli import main
from octdino.data.cohort_reader import read_cohort
from octdino.errors import UserError
from octdino.inference.external_scores import score_external
from octdino.inference.model_writer import write_model
from octdino.inference.scan_model import Network, load_scan_model
from octdino.inference.trained_runs import Wanted, choose, read_runs
from tests.small import write_small_cohort


@pytest.fixture(scope="module")
def external(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of another cohort of the same image size."""
    return write_small_cohort(tmp_path_factory.mktemp("external") / "cohort", patients=6, scans=3, seed=9)


@pytest.mark.parametrize("arm", ["dino-linear", "dino-knn", "scratch-finetune"])
@pytest.mark.parametrize("labels", ["run", "exclusive_run"])
def test_scores_are_those_of_the_model_folder(
    arm: str, labels: str, external: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    results = request.getfixturevalue(labels)
    chosen = choose(read_runs(results), Wanted(arm=arm))
    words = ["score", str(chosen.predictions.folder), "--results", str(results), "--store", str(external)]
    assert main([*words, "--out", str(tmp_path / "scores")]) == 0
    table = pd.read_csv(tmp_path / "scores/scores.csv")
    write_model(results, chosen, tmp_path / "model")
    cohort = read_cohort(external)
    outputs = load_scan_model(tmp_path / "model").outputs(cohort.images(np.arange(len(cohort))))
    assert table["scan_id"].tolist() == cohort.manifest["scan_id"].tolist()
    np.testing.assert_allclose(table[["prob:square", "prob:stripes"]], outputs.raw, atol=1e-6)
    np.testing.assert_allclose(table["out_of_distribution"], outputs.out_of_distribution, rtol=1e-4)
    card = json.loads((tmp_path / "scores/scores.json").read_text())
    model = json.loads((tmp_path / "model/model.json").read_text())
    assert card["ood_threshold"] == model["out_of_distribution"]["threshold"]
    assert card["accepted_test"] == model["out_of_distribution"]["accepted_test"]


def test_no_scan_passes_the_network_twice(
    run: Path, external: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts, features = [], Network.features

    def counted(network: Network, images: np.ndarray) -> np.ndarray:
        counts.append(len(images))
        return features(network, images)

    monkeypatch.setattr(Network, "features", counted)
    folder = choose(read_runs(run), Wanted(arm="dino-linear")).predictions.folder
    score_external(folder, run, external, tmp_path / "scores")
    assert sum(counts) == len(read_cohort(run / "cohort/scans.h5")) + len(read_cohort(external))


def test_a_store_with_other_image_settings_is_refused(run: Path, tmp_path: Path) -> None:
    other = write_small_cohort(tmp_path / "cohort", patients=3, scans=2, size=48)
    folder = choose(read_runs(run), Wanted(arm="dino-linear")).predictions.folder
    with pytest.raises(UserError, match="made with the image settings"):
        score_external(folder, run, other, tmp_path / "scores")
    assert not (tmp_path / "scores").exists()
