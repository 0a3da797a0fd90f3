"""The phantom on disk: the tree and the tables of the real release, its flaws, and bytes that return."""

import csv
import hashlib
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import openpyxl
import pytest
from PIL import Image

from octdino.cohort.olives import BIOMARKERS
from octdino.errors import UserError
from octdino.phantom import PhantomSettings, write_phantom
from octdino.phantom.patients import enroll_patients, slice_numbers
from octdino.phantom.study_plan import volumes_of

SMALL = PhantomSettings(seed=5, patients=10, visits=2, slices=3)
# Byte for byte the first line of the published file
HEADER = (
    "Path (Trial/Arm/Folder/Visit/Eye/Image Name),Scan (n/49),Atrophy / thinning of retinal layers,Disruption of EZ,"
    "DRIL,IR hemorrhages,IR HRF,Partially attached vitreous face,Fully attached vitreous face,"
    "Preretinal tissue/hemorrhage,Vitreous debris,VMT,DRT/ME,Fluid (IRF),Fluid (SRF),Disruption of RPE,PED (serous),"
    "SHRM,Eye_ID,BCVA,CST,Patient_ID"
)
TREX = re.compile(r"/TREX DME/(GILA|TREX|Monthly)/(\d{4})([GTM])(O[DS])/V\d+/(O[DS])/TREX\w+_\d{6}\.(tif|jpg)")
PRIME = re.compile(r"/Prime_FULL/0[12]-\d{3}/W\d+/(O[DS])/\d+\.(tif|png)")


def digest(root: Path) -> dict[str, str]:
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("phantom") / "cohort"
    write_phantom(SMALL, root)
    return root


def biomarkers(root: Path) -> list[dict[str, str]]:
    with (root / "OLIVES_Dataset_Labels/ml_centric_labels/Biomarker_Clinical_Data_Images.csv").open() as file:
        return list(csv.DictReader(file))


def clinical(root: Path) -> list[tuple[object, ...]]:
    book = openpyxl.load_workbook(root / "OLIVES_Dataset_Labels/ml_centric_labels/Clinical_Data_Images.xlsx")
    return list(book.worksheets[0].iter_rows(values_only=True))


def test_tables_have_the_real_form(root: Path) -> None:
    table = root / "OLIVES_Dataset_Labels/ml_centric_labels/Biomarker_Clinical_Data_Images.csv"
    assert table.read_text().splitlines()[0] == HEADER
    rows = biomarkers(root)
    for row in rows:
        path = row[HEADER.split(",")[0]]
        assert TREX.fullmatch(path) or PRIME.fullmatch(path), path
        assert int(row["Scan (n/49)"]) == int(re.findall(r"\d+", Path(path).stem)[-1]) + 1
        assert {row[name] for name in BIOMARKERS} <= {"0", "1", ""}
    header, *entries = clinical(root)
    assert header == ("File_Path", "BCVA", "CST", "Eye_ID", "Patient_ID")
    assert len({entry[0] for entry in entries}) == len(entries)
    visits = Counter((row["Eye_ID"], Path(row[HEADER.split(",")[0]]).parent) for row in rows)
    assert len(visits) == 2 * len({eye for eye, _ in visits})  # first and last visit of every eye
    assert len({row["Patient_ID"] for row in rows}) == SMALL.patients


def test_tabled_files_are_there_but_for_the_flaws(root: Path) -> None:
    paths = {row[HEADER.split(",")[0]] for row in biomarkers(root)} | {str(e[0]) for e in clinical(root)[1:]}
    kinds: Counter[str] = Counter()
    for path in paths:
        file = root / path.lstrip("/")
        assert (root / "masks" / path.lstrip("/")).with_suffix(".png").is_file()
        if not file.exists():
            kinds["missing"] += 1
        elif file.stat().st_size == 0:
            kinds["empty"] += 1
        else:
            kinds[_kind(file)] += 1
    for kind in ("missing", "empty", "truncated", "wrong size", "16 bit", "rgb"):
        assert 1 <= kinds[kind] <= 3, kinds
    assert kinds["good"] > 0.85 * len(paths), kinds


def _kind(file: Path) -> str:
    with Image.open(file) as image:
        try:
            image.load()
        except (OSError, ValueError):
            return "truncated"
        if image.size != (504, 496):
            return "wrong size"
        return {"L": "good", "RGB": "rgb"}.get(image.mode, "16 bit")


def test_other_flaws(root: Path) -> None:
    rows, entries = biomarkers(root), clinical(root)[1:]
    blank = [row for row in rows if "" in (row[name] for name in BIOMARKERS)]
    assert blank
    assert all(row[name] for row in rows for name in (*BIOMARKERS[:5], *BIOMARKERS[9:]))
    assert any(entry[1] is None and entry[2] is None for entry in entries)
    graded = {row[HEADER.split(",")[0]] for row in rows}
    charted = {str(entry[0]) for entry in entries}
    clash = graded - charted
    assert len({Path(path).parent.parent.parent for path in clash}) == 1
    assert all(_other_side(path) in charted for path in clash)
    per_visit = Counter(Path(path).parent for path in charted)
    assert max(per_visit.values()) == 2 * SMALL.slices
    assert min(per_visit.values()) < SMALL.slices
    assert list(root.glob("[TP]*/**/fundus_*.tif"))
    assert list(root.glob("[TP]*/**/*.npy"))
    scans = {"/" + str(p.relative_to(root)) for p in root.glob("[TP]*/**/*_0*.tif")}
    assert scans - charted - graded  # fellow eyes that no table names


def _other_side(path: str) -> str:
    return path.replace("/OD/", "/?/").replace("/OS/", "/OD/").replace("/?/", "/OS/")


def test_identical_pixels_within_and_across_patients(root: Path) -> None:
    patient_of_eye: dict[str, list[str]] = {}
    for entry in clinical(root)[1:]:
        file = root / str(entry[0]).lstrip("/")
        if file.is_file() and file.stat().st_size:
            patient_of_eye.setdefault(hashlib.sha256(file.read_bytes()).hexdigest(), []).append(str(entry[4]))
    copies = [patients for patients in patient_of_eye.values() if len(patients) > 1]
    assert any(len(set(patients)) == 1 for patients in copies)
    assert any(len(set(patients)) > 1 for patients in copies)


def test_same_bytes_for_any_number_of_workers_and_others_for_another_seed(root: Path, tmp_path: Path) -> None:
    write_phantom(SMALL, tmp_path / "two", workers=2)
    assert digest(tmp_path / "two") == digest(root)
    few = PhantomSettings(seed=6, patients=8, visits=2, slices=1)
    write_phantom(few, tmp_path / "other")
    ours, theirs = set(digest(root).values()), set(digest(tmp_path / "other").values())
    assert len(ours & theirs) <= 1  # the zero-byte file


def test_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("disk full")

    monkeypatch.setattr("octdino.phantom.phantom_files.write_clinical", fail)
    with pytest.raises(RuntimeError, match="disk full"):
        write_phantom(PhantomSettings(patients=8, visits=2, slices=1), tmp_path / "cohort")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").touch()
    with pytest.raises(UserError, match="not empty"):
        write_phantom(SMALL, tmp_path / "mine")


def test_note_says_what_it_is(root: Path) -> None:
    note = json.loads((root / "phantom.json").read_text())
    assert "not clinical evidence" in note["note"]
    assert note["settings"] == SMALL.model_dump(mode="json")
    assert note["mask_bits"]["11"] == "Fluid (IRF)"


def test_masks_are_16_bit_fields(root: Path) -> None:
    masks = [np.asarray(Image.open(path)) for path in sorted((root / "masks").rglob("*.png"))[:12]]
    assert {mask.shape for mask in masks} == {(496, 504)}
    assert all(mask.max() < 2**16 for mask in masks)
    assert any(mask.any() for mask in masks)


@pytest.mark.parametrize("patients", [8, 9, 12, 40, 87, 300])
@pytest.mark.parametrize("visits", [2, 3, 5])
def test_every_size_of_cohort_has_every_flaw(patients: int, visits: int) -> None:
    for slices in (1, 2, 7, 49):
        settings = PhantomSettings(seed=patients, patients=patients, visits=visits, slices=slices)
        eyes = enroll_patients(settings)
        volumes = volumes_of(settings, eyes)
        kinds = {kind for volume in volumes for _, kind in volume.defects}
        assert kinds == {"truncated", "empty", "wrong size", "missing", "16 bit", "rgb"}, (settings, kinds)
        assert any(v.chart_missing for v in volumes)
        assert any(v.blank_labels for v in volumes)
        assert any(v.seen.patient != v.eye.patient for v in volumes)
        assert any(v.seen is v.eye and v.seen_visit is not v.visit for v in volumes)
        assert len({v.eye.patient_id for v in volumes}) == patients
        assert len({eye.eye_id for eye in eyes}) == len(eyes)


def test_slices_are_spread_over_the_volume() -> None:
    assert slice_numbers(49) == list(range(49))
    assert slice_numbers(1) == [24]
    assert slice_numbers(7) == sorted(set(slice_numbers(7)))
    assert slice_numbers(7)[3] == 24
