"""octdino.load and octdino.results: the same numbers for paths, arrays and PIL images as for the store's scans."""

import numpy as np
import pytest
from PIL import Image

import octdino
from octdino.data.cohort_reader import read_cohort
from octdino.errors import UserError
from octdino.inference.scan_model import load_scan_model


def stored(run, count=5):
    cohort = read_cohort(run / "cohort" / "scans.h5")
    paths = [run.parent / "files" / path for path in cohort.manifest["path"].iloc[:count]]
    return paths, cohort.images(np.arange(count))


def test_paths_arrays_and_pil_images_give_the_probabilities_of_the_stored_scans(run, model):
    paths, images = stored(run)
    loaded = octdino.load(model)
    expected = load_scan_model(model).outputs(images).probabilities
    np.testing.assert_allclose(loaded.probabilities(paths), expected, atol=1e-6)
    mixed = [images[0, 0], Image.open(paths[1]), str(paths[2]), images[3, 0].astype(np.uint16) * 257, paths[4]]
    np.testing.assert_allclose(loaded.probabilities(mixed), expected, atol=1e-6)
    rgb = np.repeat(images[0, 0][:, :, None], 3, axis=2)
    np.testing.assert_allclose(loaded.probabilities(rgb), expected[:1], atol=1e-6)
    floats = images[0, 0] / 255.0
    np.testing.assert_allclose(loaded.probabilities(floats), expected[:1], atol=1e-6)


def test_preprocessing_of_a_file_gives_the_pixels_of_the_store(run, model):
    paths, images = stored(run)
    np.testing.assert_array_equal(octdino.load(model).preprocess(paths), images)


def test_predict_has_one_row_per_scan_and_label(run, model):
    paths, _ = stored(run, 3)
    table = octdino.load(model).predict(paths)
    assert table["label"].tolist() == ["square", "stripes"] * 3
    assert table["scan"].tolist() == [1, 1, 2, 2, 3, 3]
    assert table["file"].tolist() == [str(path) for path in paths for _ in range(2)]
    assert (table["call"] == (table["probability"] >= table["threshold"])).all()


def test_embeddings_and_maps_have_their_shapes(run, model):
    paths, _ = stored(run, 2)
    loaded = octdino.load(model)
    assert loaded.embed(paths).shape == (2, 16)
    maps = loaded.explain(paths)
    assert maps.shape == (2, 2, 32, 32)
    assert maps.min() == 0
    assert maps.max() == pytest.approx(1)


def test_two_models_predict_the_mean_of_their_calibrated_probabilities(run, model, tmp_path):
    from octdino.inference.model_writer import write_model
    from octdino.inference.trained_runs import Wanted, choose, read_runs

    write_model(run, choose(read_runs(run), Wanted(arm="scratch-finetune")), tmp_path / "other")
    paths, _ = stored(run)
    each = [octdino.load(folder).probabilities(paths) for folder in (model, tmp_path / "other")]
    both = octdino.load(model, tmp_path / "other").probabilities(paths)
    np.testing.assert_allclose(both, (each[0] + each[1]) / 2, atol=1e-12)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4), np.int32), r"array int32 \[4, 4\]; expected uint8"),
        (np.zeros((4, 4, 2), np.uint8), r"array uint8 \[4, 4, 2\]"),
        (np.full((32, 32), np.nan), "float pixels from nan"),
        (np.zeros((32, 32), np.uint8), "constant: every pixel is 0"),
        ("missing.png", "missing.png: no such file or folder"),
        ([], "no image"),
    ],
)
def test_what_is_no_scan_is_refused_with_its_reason(image, message, model):
    with pytest.raises(UserError, match=message):
        octdino.load(model).predict(image)


def test_results_are_tables_of_the_run(run):
    tables = octdino.results(run)
    assert len(tables.manifest) == 120
    arms = tables.predictions["arm"].unique().tolist()
    assert arms == ["dino-knn", "dino-linear", "dino-mlp", "scratch-finetune", "scratch-linear"]
    with pytest.raises(UserError, match=r"no cohort/manifest.csv"):
        octdino.results(run / "classify")
