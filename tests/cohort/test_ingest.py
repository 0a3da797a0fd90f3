"""The whole stage on small trees: what comes out, and that it always comes out the same."""

import json
import logging
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from octdino.cohort.ingest import OUTPUTS, build_cohort
from octdino.data.cohort_reader import read_cohort
from octdino.data.csv_io import labels_of, read_table
from octdino.data.schemas.csv_schemas import MANIFEST, QUARANTINE, SPLITS
from octdino.data.store import read_header, read_images
from octdino.errors import UserError

from .trees import BIOMARKERS, PATH, OlivesTree, olives_tree, picture, settings


def build(tree: OlivesTree, folder: Path, **changes: object) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Manifest, quarantine and splits of a small tree."""
    build_cohort(settings(tree.write(folder / "root"), **changes), folder / "out")
    return (
        read_table(folder / "out" / "manifest.csv", MANIFEST),
        read_table(folder / "out" / "quarantine.csv", QUARANTINE),
        read_table(folder / "out" / "splits.csv", SPLITS),
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def test_outputs_agree_with_each_other(tmp_path: Path) -> None:
    manifest, quarantine, splits = build(olives_tree(), tmp_path)
    store = read_header(tmp_path / "out" / "scans.h5")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(OUTPUTS)
    assert labels_of(manifest) == BIOMARKERS
    assert store.scan_id == manifest["scan_id"].tolist()
    assert store.shape == (72, 1, 32, 32)
    assert len(quarantine) == 0
    assert set(splits["patient"]) == set(manifest["patient"])
    sides = dict(zip(splits["patient"], splits["split"], strict=True))
    assert manifest["split"].tolist() == [sides[patient] for patient in manifest["patient"]]


def test_manifest_keeps_table_order_and_pixels_follow(tmp_path: Path) -> None:
    tree = olives_tree()
    manifest, _, _ = build(tree, tmp_path)
    order = list(dict.fromkeys([row[PATH] for row in tree.labels] + [row["File_Path"] for row in tree.clinical]))
    assert ["/" + path for path in manifest["path"]] == order
    images = read_images(tmp_path / "out" / "scans.h5")
    for row in (0, 40, 71):
        expected = Image.fromarray(tree.pictures[order[row]]).resize((32, 32), Image.Resampling.BILINEAR)
        assert np.array_equal(images[row, 0], np.asarray(expected))


def test_statistics_are_of_training_patients(tmp_path: Path) -> None:
    manifest, _, _ = build(olives_tree(), tmp_path)
    store = read_header(tmp_path / "out" / "scans.h5")
    values = read_images(tmp_path / "out" / "scans.h5")[(manifest["split"] == "train").to_numpy()] / 255
    assert store.attributes["mean"] == pytest.approx([values.mean()])
    assert store.attributes["std"] == pytest.approx([values.std()])


@pytest.mark.parametrize(
    ("content", "reason", "detail"),
    [
        (b"", "unreadable", "the file is empty"),
        (b"II*\x00nothing", "unreadable", ""),
        (np.full((40, 48), 9, np.uint8), "constant", "every pixel is 9"),
        (picture(0, (50, 50)), "wrong_size", "50 x 50 pixels, the cohort's scans have 48 x 40; a square image"),
        (picture(0, (50, 40)), "wrong_size", "50 x 40 pixels, the cohort's scans have 48 x 40"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, content: bytes | np.ndarray, reason: str, detail: str) -> None:
    tree = olives_tree()
    tree.pictures[tree.labels[4][PATH]] = content
    manifest, quarantine, _ = build(tree, tmp_path)
    assert quarantine["reason"].tolist() == [reason]
    assert quarantine["row"].tolist() == [6]
    assert quarantine["path"].tolist() == [tree.labels[4][PATH]]
    assert detail in quarantine["detail"].iloc[0]
    assert len(manifest) == 71
    store = read_header(tmp_path / "out" / "scans.h5")
    assert store.scan_id == manifest["scan_id"].tolist()


def test_truncated_files_are_refused(tmp_path: Path) -> None:
    tree = olives_tree()
    root = tree.write(tmp_path / "root")
    file = root / tree.labels[0][PATH].lstrip("/")
    file.write_bytes(file.read_bytes()[:900])
    build_cohort(settings(root), tmp_path / "out")
    assert read_table(tmp_path / "out" / "quarantine.csv", QUARANTINE)["reason"].tolist() == ["unreadable"]


def test_duplicates_within_and_across_patients(tmp_path: Path) -> None:
    tree = olives_tree()
    paths = [row["File_Path"] for row in tree.clinical]  # 9 a patient, the last 3 without labels
    tree.pictures[paths[1]] = tree.pictures[paths[0]]  # one patient, both labeled
    tree.pictures[paths[2]] = tree.pictures[paths[8]]  # one patient, one labeled
    tree.pictures[paths[30]] = tree.pictures[paths[12]]  # patients 204 and 202
    manifest, quarantine, splits = build(tree, tmp_path)
    assert quarantine["reason"].tolist() == ["duplicate_pixels"] * 2
    assert set(quarantine["path"]) == {paths[1], paths[8]}
    assert paths[0].lstrip("/") in quarantine.set_index("path").loc[paths[1], "detail"]
    shared = manifest[manifest["flags"] == "shared_pixels"]
    assert set(shared["patient"]) == {"202", "204"}
    assert len(shared) == 2
    groups = splits.set_index("patient")["group"]
    assert groups["204"] == groups["202"] == "202"
    assert splits[splits["group"] == "202"]["split"].unique().size == 1


def test_a_volume_of_another_length_is_kept(tmp_path: Path) -> None:
    tree = olives_tree(slices=3)
    extra = dict(tree.clinical[-1], File_Path=tree.clinical[-1]["File_Path"].replace("2.tif", "96.tif"))
    tree.clinical.append(extra)
    tree.pictures[extra["File_Path"]] = picture(999)
    manifest, quarantine, _ = build(tree, tmp_path)
    assert manifest["slice"].iloc[-1] == 97
    assert not len(quarantine)


def test_nothing_left_is_one_line(tmp_path: Path) -> None:
    tree = olives_tree()
    tree.pictures = dict.fromkeys(tree.pictures, b"")
    with pytest.raises(UserError, match=r"no scan is left; 72 rows refused: 72 unreadable; first: .*the file is empty"):
        build(tree, tmp_path)
    assert not list((tmp_path / "out").iterdir())


def test_too_few_patients_are_refused_before_an_image_is_decoded(tmp_path: Path) -> None:
    tree = olives_tree(patients=2)
    tree.pictures = dict.fromkeys(tree.pictures, b"")
    with pytest.raises(UserError, match="2 patients with a label"):
        build(tree, tmp_path)


def test_folder_cohort_takes_any_size(tmp_path: Path) -> None:
    for number in range(12):
        path = tmp_path / "root" / "AB"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(number, (20 + number, 30))).save(path)
    Image.fromarray(picture(3, (23, 30))).save(tmp_path / "root" / "B" / "copy.png")
    build_cohort(settings(tmp_path / "root", "folder"), tmp_path / "out")
    manifest = read_table(tmp_path / "out" / "manifest.csv", MANIFEST)
    quarantine = read_table(tmp_path / "out" / "quarantine.csv", QUARANTINE)
    assert len(manifest) == 12
    assert quarantine["path"].tolist() == ["B/copy.png"]
    assert quarantine["row"].isna().all()
    assert set(manifest["split"]) == {"train", "val", "test"}


def test_outputs_are_independent_of_workers_and_folders(tmp_path: Path) -> None:
    """Two processes, another folder, a nested tree, other clock: the same bytes."""
    tree = olives_tree(patients=18)
    build_cohort(settings(tree.write(tmp_path / "a")), tmp_path / "one", workers=1)
    time.sleep(1.1)  # HDF5 counts whole seconds where it keeps times
    build_cohort(settings(tree.write(tmp_path / "b")), tmp_path / "two", workers=2)
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    origins = [json.loads(each.pop("origin.json")) for each in (one, two)]  # says where the files were
    assert one == two
    assert origins[0]["root"] == str(tmp_path / "a")
    assert origins[0]["files"] == origins[1]["files"]
    assert len(origins[0]["files"]) == 64


def test_other_settings_or_pixels_change_the_attributes(tmp_path: Path) -> None:
    tree = olives_tree()
    build(tree, tmp_path / "a")
    tree.pictures[tree.labels[0][PATH]] = picture(12345)
    build(tree, tmp_path / "b", image={"size": (32, 32), "crop": "retina"})
    one, two = (read_header(tmp_path / x / "out" / "scans.h5").attributes for x in "ab")
    assert one["source"] != two["source"]
    assert json.loads(one["settings"])["image"]["crop"] == "none"
    assert json.loads(two["settings"])["image"]["crop"] == "retina"
    assert "root" not in json.loads(one["settings"])


def test_old_results_go_with_the_first_new_one(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in OUTPUTS:
        (out / name).write_text("old")
    (out / ".partial").mkdir()
    (out / ".partial" / "scans.h5").write_text("left by a killed run")
    manifest, _, _ = build(olives_tree(), tmp_path)
    assert len(manifest) == 72
    assert sorted(path.name for path in out.iterdir()) == sorted(OUTPUTS)


def test_a_failed_run_leaves_earlier_results_alone(tmp_path: Path) -> None:
    build(olives_tree(), tmp_path)
    before = contents(tmp_path / "out")
    tree = olives_tree()
    tree.pictures = dict.fromkeys(tree.pictures, b"")
    with pytest.raises(UserError):
        build(tree, tmp_path)
    assert contents(tmp_path / "out") == before


RUN = """
import sys
from pathlib import Path
from octdino.cohort.ingest import build_cohort
from octdino.config import CohortSettings
if __name__ == "__main__":
    settings = CohortSettings(name="olives", root=Path(sys.argv[1]), image={"size": (32, 32)})
    build_cohort(settings, Path(sys.argv[2]), workers=2)
"""


def test_killed_at_any_time_and_run_again(tmp_path: Path) -> None:
    root = olives_tree(patients=24, slices=6).write(tmp_path / "root")
    build_cohort(settings(root), tmp_path / "undisturbed", workers=2)
    (tmp_path / "run.py").write_text(RUN)
    chance = random.Random(0)
    for number in range(2):
        command = [sys.executable, str(tmp_path / "run.py"), str(root), str(tmp_path / "out")]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            deadline = time.monotonic() + 60
            while not list((tmp_path / "out").glob(".partial/*")) and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(chance.random() * 0.4)
            assert process.poll() is None, "finished before it could be killed"
            os.kill(process.pid, signal.SIGKILL)
        assert not [name for name in OUTPUTS if (tmp_path / "out" / name).exists()], number
    build_cohort(settings(root), tmp_path / "out", workers=2)
    assert contents(tmp_path / "out") == contents(tmp_path / "undisturbed")


def test_summary_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    tree = olives_tree()
    tree.labels[0]["DRIL"] = 7
    build(tree, tmp_path)
    assert "71 scans of 8 patients, 47 labeled" in caplog.text
    assert "1 rows refused: 1 bad_label" in caplog.text


@pytest.mark.parametrize(
    ("form", "state", "line"),
    [
        ("patients", "known", "20 scans of 10 patients, 20 labeled"),
        ("table", "unknown", "20 scans of unknown patients, 20 labeled"),
        ("classes", "unknown", "20 scans of unknown patients, 20 labeled"),
    ],
)
def test_the_store_and_the_log_say_whether_patients_are_known(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, form: str, state: str, line: str
) -> None:
    caplog.set_level(logging.INFO)
    rows = [{"path": f"{'AB'[i % 2]}/{i}.png", "A": i % 2, "patient": f"p{i // 2}"} for i in range(20)]
    for number, row in enumerate(rows):
        (tmp_path / "root" / row["path"]).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(number)).save(tmp_path / "root" / row["path"])
    if form != "classes":
        table = pd.DataFrame(rows)
        table.drop(columns=[] if form == "patients" else ["patient"]).to_csv(tmp_path / "root/scans.csv", index=False)
    build_cohort(settings(tmp_path / "root", "folder"), tmp_path / "out")
    store = tmp_path / "out" / "scans.h5"
    assert read_cohort(store).unit.state == state
    assert line in caplog.text
    last = caplog.records[-1]
    assert ("Patients are unknown." in last.getMessage()) == (state == "unknown")
    assert (last.levelname == "WARNING") == (state == "unknown")


def test_store_is_chunked_and_plain(tmp_path: Path) -> None:
    build(olives_tree(), tmp_path)
    with h5py.File(tmp_path / "out" / "scans.h5") as file:
        assert file["images"].dtype == np.uint8
        assert file["images"].compression is None
        assert file["boxes"][0].tolist() == [0, 0, 40, 48]
