"""Mutually exclusive labels: when a table's labels are classes, and which source says so."""

import logging
from pathlib import Path

import pandas as pd
import pytest

from octdino.cohort import ingest
from octdino.cohort.exclusive import check_exclusive, exclusive_labels
from octdino.cohort.scan_table import Quarantine, ScanTable
from octdino.config import CohortSettings
from octdino.errors import UserError

TABLES = {
    "classes": ([[1, 0, 0], [0, 1, 0], [0, 0, 1], [None] * 3], True),
    "a scan with two": ([[1, 0, 0], [0, 1, 1], [0, 0, 1]], False),
    "a scan with none": ([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]], False),
    "an empty cell": ([[1, 0, 0], [0, 1, None], [0, 0, 1]], False),
    "a label without a scan": ([[1, 0, 0], [0, 1, 0], [1, 0, 0]], False),
    "one label": ([[1], [1]], False),
}


def decide(values: list[list[int | None]], reader: bool | None = None, **settings: object) -> tuple[bool, str]:
    labels = ["A", "B", "C"][: len(values[0])]
    truth = pd.DataFrame(values, columns=labels).astype("Int64")
    scans = pd.DataFrame({"path": [f"{row}.png" for row in range(len(truth))]})
    rows = ScanTable(Path(), scans, truth, Quarantine(), False, exclusive=reader)
    check_exclusive(rows, CohortSettings(**settings))
    return exclusive_labels(scans, rows, CohortSettings(**settings))


@pytest.mark.parametrize("name", TABLES)
def test_labels_are_classes_where_each_labeled_row_has_exactly_one(name: str, caplog: pytest.LogCaptureFixture) -> None:
    values, expected = TABLES[name]
    caplog.set_level(logging.INFO)
    assert decide(values) == (expected, "table")
    assert f"cohort.exclusive: {'false' if expected else 'true'} treats" in caplog.text


def test_the_setting_and_a_published_cohort_come_first() -> None:
    classes, several = TABLES["classes"][0], TABLES["a scan with two"][0]
    assert decide(classes, exclusive=False) == (False, "setting")
    assert decide(classes, exclusive=True) == (True, "setting")
    assert decide(classes, reader=False) == (False, "cohort")  # as OLIVES and VOC are, whatever the rows hold
    assert decide(classes, reader=True) == (True, "cohort")
    with pytest.raises(UserError, match=r"1\.png has 2 positive labels \(1 such scans\); expected exactly one"):
        decide(several, exclusive=True)


def test_labels_that_are_not_exclusive_are_refused_before_an_image_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """cohort.exclusive: true is judged by the table, even where the images themselves are missing or damaged."""
    table = pd.DataFrame({"path": [f"{row}.png" for row in range(6)], "patient": list("abcdef"), "A": 1, "B": 0})
    table.loc[4, "B"] = 1
    table.to_csv(tmp_path / "scans.csv", index=False)
    for path in table["path"]:
        (tmp_path / path).write_bytes(b"no image")
    monkeypatch.setattr(ingest, "decode_scans", lambda *_: pytest.fail("an image was decoded"))
    settings = CohortSettings(name="folder", root=tmp_path, exclusive=True)
    with pytest.raises(UserError, match=r"cohort\.exclusive: 4\.png has 2 positive labels \(1 such scans\)"):
        ingest.build_cohort(settings, tmp_path / "out")
