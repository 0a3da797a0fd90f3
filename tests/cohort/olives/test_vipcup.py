"""The VIP Cup's test list: as rows of a manifest, and filled in."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from octdino.cohort.olives import read_olives
from octdino.cohort.olives.vipcup import read_vip_test, write_submission
from octdino.data.schemas.csv_schemas import MANIFEST
from octdino.errors import UserError

from ..trees import olives_tree, settings
from .forms import B, encoded

HEADER = "Path (Trial/Image Type/Subject/Visit/Eye/Image Name)"
VIP = ["B1", "B2", "B3", "B4", "B5", "B6"]
PATHS = [
    f"RECOVERY/OCT/01-0{patient}/W{visit}/OS/RECOVERY0_{slice_:06d}.tif"
    for patient in (37, 12)
    for visit in (0, 100)
    for slice_ in (0, 1, 2)
]


@pytest.fixture
def template(tmp_path: Path) -> Path:
    path = tmp_path / "test_set_submission_template.csv"
    pd.DataFrame({HEADER: PATHS, **dict.fromkeys(VIP)}).to_csv(path, index=False)
    return path


def write(root: Path) -> Path:
    for path in PATHS:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(encoded(path))
    return root


def predictions() -> pd.DataFrame:
    values = np.random.default_rng(0).integers(0, 2, (len(PATHS), 6))
    return pd.DataFrame({"path": [f"data/{path}" for path in PATHS], **dict(zip(B, values.T, strict=True))})


def test_the_test_scans_are_rows_of_a_manifest(tmp_path: Path, template: Path) -> None:
    rows = read_vip_test(write(tmp_path / "root/data").parent, template)
    assert not rows.quarantine.rows
    assert rows.labels == B
    assert set(rows.scans) >= {column.name for column in MANIFEST} - {"group"}
    assert rows.scans["path"].tolist() == [f"data/{path}" for path in PATHS]
    assert rows.truth[B].isna().all(axis=None)
    assert set(rows.scans["split"]) == {"test"}
    first = rows.scans.iloc[0]
    want = {"patient": "RECOVERY-01-037", "eye": "RECOVERY-01-037-OS", "visit": "W0", "slice": 1, "laterality": "OS"}
    assert {name: first[name] for name in want} == want
    assert rows.scans["patient"].nunique() == 2


def test_a_scan_that_is_not_there_is_refused(tmp_path: Path, template: Path) -> None:
    root = write(tmp_path / "root")
    (root / PATHS[3]).unlink()
    rows = read_vip_test(root, template)
    assert [refused["reason"] for refused in rows.quarantine.rows] == ["missing_file"]
    assert len(rows.scans) == len(PATHS) - 1


def test_the_real_template(tmp_path: Path, shared_data: Path) -> None:
    template = shared_data / "olives" / "test_set_submission_template.csv"
    table = pd.read_csv(template)
    for path in table[HEADER]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    rows = read_vip_test(tmp_path, template)
    assert not rows.quarantine.rows
    assert len(rows.scans) == 3_871
    assert rows.scans["patient"].nunique() == 40
    assert rows.scans.groupby(["eye", "visit"]).ngroups == 79
    assert rows.scans["path"].tolist() == table[HEADER].tolist()
    zeros = rows.scans[["path"]].assign(**dict.fromkeys(B, 0))
    write_submission(template, zeros[::-1], tmp_path / "out.csv")
    filled = pd.read_csv(tmp_path / "out.csv")
    assert filled.columns.tolist() == table.columns.tolist()
    assert filled[HEADER].tolist() == table[HEADER].tolist()
    assert (filled[VIP] == 0).all(axis=None)


def test_a_submission_is_the_template_filled_in(tmp_path: Path, template: Path) -> None:
    given = predictions()
    write_submission(template, given.sample(frac=1, random_state=0), tmp_path / "out.csv")
    filled = pd.read_csv(tmp_path / "out.csv")
    assert filled[HEADER].tolist() == PATHS
    np.testing.assert_array_equal(filled[VIP], given[B])
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[0] == f"{HEADER},B1,B2,B3,B4,B5,B6"
    assert set("".join(line.split(",", 1)[1] for line in lines[1:])) == {"0", "1", ","}


def test_phase_two_names_files_only(tmp_path: Path) -> None:
    template = tmp_path / "Phase2_submission_template.csv"
    pd.DataFrame({"File_Name": ["DME-1-1.jpeg", "DME-1-2.jpeg"], **dict.fromkeys(VIP)}).to_csv(template, index=False)
    given = pd.DataFrame(
        {"path": ["a/DME-1-2.jpeg", "a/DME-1-1.jpeg", "a/more.jpeg"], **{name: [1, 0, 1] for name in VIP}}
    )
    write_submission(template, given, tmp_path / "out.csv")
    assert pd.read_csv(tmp_path / "out.csv").to_numpy().tolist() == [
        ["DME-1-1.jpeg", *[0] * 6],
        ["DME-1-2.jpeg", *[1] * 6],
    ]


def test_what_cannot_be_handed_in(tmp_path: Path, template: Path) -> None:
    given, out = predictions(), tmp_path / "out.csv"
    with pytest.raises(UserError, match=rf"no row for {PATHS[4]} and 1 more; .*template.csv names 12 scans"):
        write_submission(template, given.drop(index=[4, 7]), out)
    with pytest.raises(UserError, match=r"OS/RECOVERY0_000002.tif: B3 is 0.7; expected 0 or 1"):
        write_submission(
            template, given.astype(dict.fromkeys(B, float)).replace({B[2]: {1.0: 0.7, 0.0: 0.7}})[2:3], out
        )
    with pytest.raises(UserError, match="B1 is nan"):
        write_submission(template, given.assign(**{B[0]: np.nan}), out)
    with pytest.raises(UserError, match="is there twice"):
        write_submission(template, pd.concat([given, given]), out)
    with pytest.raises(UserError, match="no column 'Vitreous debris' or 'B4'"):
        write_submission(template, given.drop(columns="Vitreous debris"), out)
    assert not out.exists()


def test_the_test_list_is_no_cohort_of_its_own(tmp_path: Path, template: Path) -> None:
    root = olives_tree().write(tmp_path / "root")
    with pytest.raises(UserError, match="test scans, which have no labels"):
        read_olives(settings(root, table=template))
