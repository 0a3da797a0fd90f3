"""The model folder gives the probabilities of the run that it was made of, and refuses what is not whole."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import octdino
from octdino.data.cohort_reader import read_cohort
from octdino.data.schemas.csv_schemas import METRICS
from octdino.errors import UserError
from octdino.inference.model_list import list_models
from octdino.inference.model_writer import write_model
from octdino.inference.scan_model import load_scan_model
from octdino.inference.trained_runs import Wanted, choose, read_runs
from octdino.stats.calibration import at_temperature
from tests.embedded import train_arm
from tests.small import write_small_backbone, write_small_cohort

from .conftest import ARMS, MODEL, SETTINGS
from .model_folders import VIT


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("labels", ["run", "exclusive_run"])
def test_folder_alone_reproduces_the_predictions_of_each_mode(arm, labels, request, tmp_path):
    results = request.getfixturevalue(labels)
    chosen = choose(read_runs(results), Wanted(arm=arm))
    write_model(results, chosen, tmp_path / "model")
    model = load_scan_model(tmp_path / "model")
    cohort = read_cohort(results / "cohort" / "scans.h5")
    table = chosen.predictions.table
    rows = np.flatnonzero(cohort.manifest["scan_id"].isin(table["scan_id"]))
    outputs = model.outputs(cohort.images(rows))
    assert cohort.manifest["scan_id"].iloc[rows].tolist() == table["scan_id"].tolist()
    np.testing.assert_allclose(outputs.raw, chosen.predictions.probabilities(), atol=1e-6)
    metadata = chosen.predictions.metadata
    temperature = chosen.predictions.temperature()
    expected = at_temperature(chosen.predictions.probabilities(), temperature, metadata.exclusive)
    np.testing.assert_allclose(outputs.probabilities, expected, atol=1e-5)
    if metadata.exclusive:
        np.testing.assert_array_equal(outputs.calls.sum(1), 1)
        np.testing.assert_array_equal(outputs.calls.argmax(1), expected.argmax(1))
    else:
        raw = chosen.predictions.probabilities()
        thresholds = [metadata.thresholds[label] for label in metadata.labels]
        np.testing.assert_array_equal(outputs.calls, raw >= np.array(thresholds))
        np.testing.assert_array_equal(outputs.probabilities >= model.thresholds(), outputs.calls)


def test_density_accepts_the_promised_share_of_validation_patients(run, model):
    loaded = load_scan_model(model)
    cohort = read_cohort(run / "cohort" / "scans.h5")
    val = np.flatnonzero(cohort.split_of(0) == "val")
    distances = loaded.outputs(cohort.images(val)).out_of_distribution
    patients = cohort.manifest["patient"].iloc[val].to_numpy()
    share = np.mean([(distances[patients == patient] <= 1 + 1e-9).mean() for patient in sorted(set(patients))])
    assert 0.95 <= share < 1
    noise = np.random.default_rng(0).integers(0, 256, (20, 1, 32, 32)).astype(np.uint8)
    assert (loaded.outputs(noise).out_of_distribution > 1).all()


def test_winner_is_the_best_arm_on_validation_patients(run):
    runs = read_runs(run)
    best = choose(runs, Wanted())
    assert best.score == max(each.score for each in runs)
    assert f"*  {best.arm}".replace(" ", "") in list_models(run, runs).replace(" ", "")


def test_arm_that_the_last_evaluation_lacks_is_chosen_by_name_only(run, tmp_path):
    """Folders of arms that were taken out of the configuration stay beside the others."""
    copied = tmp_path / "results"
    shutil.copytree(run, copied)
    best = choose(read_runs(copied), Wanted())
    rows = [
        {"arm": each.arm, "backbone": each.key[1], "fraction": each.key[2], "fold": "0", "seed": 0, "label": "macro",
         "metric": "auroc", "value": 0.7, "n_resamples": 10}
        for each in read_runs(copied)
        if each.arm != best.arm
    ]  # fmt: skip
    (copied / "evaluate").mkdir()
    columns = [column.name for column in METRICS]
    pd.DataFrame(rows, columns=columns).to_csv(copied / "evaluate" / "metrics.csv", index=False)
    runs = read_runs(copied)
    second = max((each for each in runs if each.arm != best.arm), key=lambda each: each.score)
    assert choose(runs, Wanted()).score == second.score
    assert choose(runs, Wanted(arm=best.arm)).arm == best.arm


def renamed_run(results, run, seed):
    """Copy a classifier's folder as if it had been trained with another seed; its validation predictions are inverted.

    Returns the folder of the copy.
    """
    folder = results / run.predictions.folder.relative_to(run.predictions.folder.parents[4])
    copied = Path(shutil.copytree(folder, folder.with_name(f"fold0-seed{seed}")))
    path = copied / "classifier.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "seed": seed}))
    table = pd.read_csv(copied / "predictions.csv")
    columns = [name for name in table if name.startswith("prob:")]
    table.loc[table["split"] == "val", columns] = 1 - table.loc[table["split"] == "val", columns]
    table.to_csv(copied / "predictions.csv", index=False)
    return copied


def test_stale_seed_is_neither_listed_as_current_nor_chosen(run, tmp_path):
    """classify.seeds [0] -> [1]: metrics.csv has seed 1, the folders of seed 0 stay."""
    results = tmp_path / "results"
    shutil.copytree(run, results)
    linear = choose(read_runs(run), Wanted(arm="dino-linear"))
    renamed_run(results, linear, seed=1)
    arm, backbone, fraction = linear.key
    row = {
        "arm": arm, "backbone": backbone, "fraction": fraction, "fold": "0", "seed": 1, "label": "macro",
        "metric": "auroc", "value": 0.625, "low": 0.5, "high": 0.75, "n_resamples": 10,
    }  # fmt: skip
    (results / "evaluate").mkdir()
    table = pd.DataFrame([row], columns=[column.name for column in METRICS])
    table.to_csv(results / "evaluate" / "metrics.csv", index=False)
    runs = read_runs(results)
    assert [each.name for each in runs if each.compared] == ["dino-linear/b/f1/fold0-seed1"]
    for wanted in (Wanted(), Wanted(arm="dino-linear")):
        assert choose(runs, wanted).predictions.metadata.seed == 1
    assert choose(runs, Wanted(arm="dino-linear", seed=0)).name == "dino-linear/b/f1/fold0-seed0"
    lines = list_models(results, runs).splitlines()
    new = next(each.score for each in runs if each.compared)
    assert new != pytest.approx(linear.score)
    assert lines[1].split() == ["*", "dino-linear", "b", "1", f"{new:.3f}", "0.625", "(0.500", "to", "0.750)", "1"]
    (old,) = [line.split() for line in lines if line.split()[:2] == ["old", "dino-linear"]]
    assert old == ["old", "dino-linear", "b", "1", f"{linear.score:.3f}", "1"], "no test score of another seed"
    assert lines[-1].startswith("old: classifiers of an earlier configuration")
    predictions = octdino.results(results).predictions
    assert predictions[["arm", "seed"]].drop_duplicates().to_numpy().tolist() == [["dino-linear", 1]]


def test_model_of_a_stale_seed_has_no_scores_of_another_seed(run, tmp_path):
    results = tmp_path / "results"
    shutil.copytree(run, results)
    row = {"arm": "dino-linear", "backbone": "b", "fraction": 1.0, "fold": "0", "label": "macro", "metric": "auroc"}
    (results / "evaluate").mkdir()
    for seed, scores in ((1, 0), (0, 1)):
        table = pd.DataFrame([{**row, "seed": seed, "value": 0.6}], columns=[column.name for column in METRICS])
        table.to_csv(results / "evaluate" / "metrics.csv", index=False)
        chosen = choose(read_runs(results), Wanted(arm="dino-linear"))
        assert len(write_model(results, chosen, tmp_path / f"model{seed}").metrics) == scores


def test_choice_names_what_there_is(run):
    with pytest.raises(UserError, match="--arm: byol-linear: no such classifier; expected dino-knn, dino-linear"):
        choose(read_runs(run), Wanted(arm="byol-linear"))
    with pytest.raises(UserError, match="--fold: 3: no such classifier; expected 0"):
        choose(read_runs(run), Wanted(fold=3))


@pytest.mark.parametrize("name", ["backbone.safetensors", "head.safetensors", "density.safetensors"])
def test_weights_of_another_model_are_refused(name, run, model, tmp_path):
    other = write_model(run, choose(read_runs(run), Wanted(arm="scratch-finetune")), tmp_path / "other")
    assert other.sha256 != json.loads((model / "model.json").read_text())["sha256"]
    mixed = shutil.copytree(model, tmp_path / "mixed")
    shutil.copy(tmp_path / "other" / name, mixed / name)
    with pytest.raises(UserError, match=f"{name}: has SHA-256"):
        load_scan_model(mixed)


def test_weights_that_no_longer_give_the_predictions_make_no_folder(run, tmp_path):
    copied = shutil.copytree(run, tmp_path / "results")
    path = copied / "classify" / "dino-linear" / "b" / "f1" / "fold0-seed0" / "predictions.csv"
    lines = path.read_text().splitlines()
    cells = lines[1].split(",")
    lines[1] = ",".join([*cells[:-1], "0.123456"])
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=f"scan {cells[0]}: the weights give another probability"):
        write_model(copied, choose(read_runs(copied), Wanted(arm="dino-linear")), tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("arm", ["dino-linear", "dino-finetune"])
@pytest.mark.parametrize(("size", "built"), [(48, 48), (44, 32)], ids=["divided", "padded"])
def test_a_transformer_that_was_pretrained_at_another_size_makes_a_folder(arm, size, built, tmp_path):
    """Positions are resampled once for the classifier's input: by the folder, or by timm for a padded image."""
    vit = VIT.model_copy(update={"args": {**VIT.args, "dynamic_img_pad": True}})
    results = tmp_path / "results"
    store = write_small_cohort(results / "cohort")
    pretrained = write_small_backbone(results / "pretrain" / "dino" / "b" / "fold0-seed0", vit)  # for 32 px
    augment = SETTINGS.augment.model_copy(update={"global_size": size})
    train_arm(
        arm, SETTINGS.model_copy(update={"augment": augment}), store=store, backbone="b", model=vit, fraction=1.0,
        pretrained=pretrained, fold=0, seed=0, out=results / "classify" / arm / "b" / "f1" / "fold0-seed0",
    )  # fmt: skip
    shutil.rmtree(results / "classify" / arm / "b" / "f1" / "fold0-seed0-embed", ignore_errors=True)
    chosen = choose(read_runs(results), Wanted())
    write_model(results, chosen, tmp_path / "model")
    model = load_scan_model(tmp_path / "model")
    assert model.metadata.spec.size == built
    cohort = read_cohort(store)
    rows = np.flatnonzero(cohort.manifest["scan_id"].isin(chosen.predictions.table["scan_id"]))
    found = model.outputs(cohort.images(rows)).raw
    np.testing.assert_allclose(found, chosen.predictions.probabilities(), atol=1e-5)


def test_neighbors_with_missing_labels_make_a_folder(tmp_path):
    """A scan with one label unknown votes on the other one only: NaN among the labels is no damage."""
    results = tmp_path / "results"
    store = write_small_cohort(results / "cohort")
    manifest = store.with_name("manifest.csv")
    table = pd.read_csv(manifest)
    known = table[table["square"].notna() & (table["split"] == "train")].index
    table.loc[known[::2], "stripes"] = np.nan
    table.to_csv(manifest, index=False)
    pretrained = write_small_backbone(results / "pretrain" / "dino" / "b" / "fold0-seed0", MODEL)
    train_arm(
        "dino-knn", SETTINGS, store=store, backbone="b", model=MODEL, pretrained=pretrained, fraction=1.0, fold=0,
        seed=0, out=results / "classify" / "dino-knn" / "b" / "f1" / "fold0-seed0",
    )  # fmt: skip
    shutil.rmtree(results / "classify" / "dino-knn" / "b" / "f1" / "fold0-seed0-embed")
    chosen = choose(read_runs(results), Wanted())
    write_model(results, chosen, tmp_path / "model")
    model = load_scan_model(tmp_path / "model")
    assert model.tensors["labels"].isnan().any()
    cohort = read_cohort(store)
    rows = np.flatnonzero(cohort.manifest["scan_id"].isin(chosen.predictions.table["scan_id"]))
    found = model.outputs(cohort.images(rows)).raw
    np.testing.assert_allclose(found, chosen.predictions.probabilities(), atol=1e-6)
