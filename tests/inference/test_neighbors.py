"""octdino embed MODEL INPUT and octdino neighbors."""

import shutil

import h5py
import numpy as np
import pandas as pd
import pytest

import octdino
from octdino.cli import main
from octdino.errors import UserError
from octdino.inference.model_writer import write_model
from octdino.inference.scan_embeddings import read_scan_embeddings
from octdino.inference.trained_runs import Wanted, choose, read_runs


@pytest.fixture(scope="module")
def gallery(run, model, tmp_path_factory):
    out = tmp_path_factory.mktemp("gallery")
    assert main(["embed", str(model), str(run / "cohort" / "scans.h5"), "--out", str(out)]) == 0
    return out / "embeddings.h5"


def test_embeddings_of_files_are_those_of_the_python_interface(run, model, tmp_path):
    files = sorted((run.parent / "files" / "p0").iterdir())
    assert main(["embed", str(model), str(files[0].parent), "--out", str(tmp_path), "--format", "parquet"]) == 0
    table = pd.read_parquet(tmp_path / "embeddings.parquet")
    assert table["file"].tolist() == [str(file) for file in files]
    np.testing.assert_allclose(np.stack(table["features"]), octdino.load(model).embed(files), atol=1e-6)


def test_gallery_of_a_store_has_all_scans_with_their_labels(gallery):
    found = read_scan_embeddings(gallery)
    assert found.features.shape == (120, 16)
    assert set(found.table["caption"]) == {"", "square", "stripes", "square, stripes"}


def test_neighbors_are_the_most_similar_others(run, model, gallery, tmp_path):
    query = run.parent / "files" / "p3" / "2.png"
    command = ["neighbors", str(model), str(query), "--gallery", str(gallery), "--count", "3", "--out", str(tmp_path)]
    assert main([*command, "--workers", "1"]) == 0
    table = pd.read_csv(tmp_path / "neighbors.csv")
    features = read_scan_embeddings(gallery).features.astype(np.float64)
    own = octdino.load(model).embed(query)[0].astype(np.float64)
    cosine = features @ own / np.linalg.norm(features, axis=1) / np.linalg.norm(own)
    np.testing.assert_allclose(table["similarity"], np.sort(cosine)[::-1][:3], atol=1e-5)
    assert table["neighbor"].iloc[0] == "p3/2.png"  # in the gallery it is another address: the store's
    page = (tmp_path / "neighbors.html").read_text()
    assert page.count("<img") == 4


def test_a_scan_is_no_neighbor_of_itself(run, model, tmp_path):
    folder = run.parent / "files" / "p1"
    assert main(["embed", str(model), str(folder), "--out", str(tmp_path / "g")]) == 0
    command = ["neighbors", str(model), str(folder), "--gallery", str(tmp_path / "g" / "embeddings.h5")]
    assert main([*command, "--count", "9", "--out", str(tmp_path / "n"), "--workers", "1"]) == 0
    table = pd.read_csv(tmp_path / "n" / "neighbors.csv")
    assert len(table) == 6 * 5
    assert (table["query"] != table["neighbor"]).all()


def test_bad_scans_are_refused_and_named(model, gallery, tmp_path):
    (tmp_path / "a.png").write_text("text")
    for verb in (["embed"], ["neighbors", "--gallery", str(gallery)]):
        out = tmp_path / verb[0]
        assert main([verb[0], str(model), str(tmp_path / "a.png"), *verb[1:], "--out", str(out)]) == 3
        assert pd.read_csv(out / "quarantine.csv")["reason"].tolist() == ["unreadable"]


def test_embeddings_by_another_model_are_refused(run, gallery, tmp_path):
    write_model(run, choose(read_runs(run), Wanted(arm="scratch-linear")), tmp_path / "other")
    code = main(["neighbors", str(tmp_path / "other"), str(run.parent / "files"), "--gallery", str(gallery),
                 "--out", str(tmp_path / "out")])  # fmt: skip
    assert code == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", ["cut", "features", "other"])
def test_damaged_embeddings_are_refused_with_one_line(damage, gallery, tmp_path):
    path = shutil.copy(gallery, tmp_path / "embeddings.h5")
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:3000])
    else:
        with h5py.File(path, "r+") as file:
            if damage == "features":
                file["features"][0, 0] = np.nan
            else:
                del file.attrs["format"]
    with pytest.raises(UserError, match=r"embeddings\.h5: "):
        read_scan_embeddings(path)


def test_the_stage_still_needs_its_store(capsys, tmp_path):
    with pytest.raises(SystemExit) as ended:
        main(["embed", "dino", "--out", str(tmp_path)])
    assert ended.value.code == 2
    assert "required: --store, --backbone" in capsys.readouterr().err
