"""Scans of an external cohort that are in the internal one are found: identical pixels, and near-duplicates."""

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from octdino.audit import near_duplicates
from octdino.audit.audit_verdict import verdict
from octdino.audit.leakage_audit import audit
from octdino.audit.near_duplicates import textures
from octdino.config import AuditSettings
from octdino.data.cohort_reader import read_cohort
from octdino.data.csv_io import read_table
from octdino.data.schemas.csv_schemas import FINDINGS
from octdino.data.schemas.metadata import AuditMetadata, read_metadata
from octdino.data.store import image_moments, read_images
from octdino.errors import UserError
from tests.small import store_attributes, write_small_cohort


@pytest.fixture
def stores(tmp_path: Path) -> tuple[Path, Path]:
    """The store of the internal cohort, and the folder of an external one with other scans."""
    return (
        write_small_cohort(tmp_path / "cohort", size=64, patients=10, scans=2),
        write_small_cohort(tmp_path / "external/b/cohort", size=64, patients=5, scans=2, seed=1).parents[1],
    )


def findings(stores: tuple[Path, Path], **settings: object) -> pd.DataFrame:
    out = stores[0].parents[1] / "audit"
    audit(AuditSettings.model_validate(settings), stores[0], [], out, [stores[1]])
    table = read_table(out / "findings.csv", FINDINGS)
    return table[table["check"] == "external"]


def plant(folder: Path, row: int, image: np.ndarray) -> None:
    """Another image in a row of the external store."""
    with h5py.File(folder / "cohort/scans.h5", "r+") as file:
        file["images"][row] = image
        file["moments"][row] = image_moments(image)


def test_textures_read_in_blocks_are_those_of_all_scans(
    stores: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort = read_cohort(stores[0])
    whole = textures(torch.from_numpy(cohort.images(np.arange(len(cohort)))))
    monkeypatch.setattr(near_duplicates, "BLOCK", 7)
    assert len(cohort) > 2 * 7
    torch.testing.assert_close(near_duplicates.textures_of(cohort), whole)


def test_other_scans_are_no_finding(stores: tuple[Path, Path]) -> None:
    assert findings(stores).empty
    metadata = read_metadata(stores[0].parents[1] / "audit/audit.json", AuditMetadata, "audit")
    assert metadata.asked["external"].startswith("no scan of an external cohort")


def test_without_external_cohorts_the_check_is_not_named(stores: tuple[Path, Path], tmp_path: Path) -> None:
    audit(AuditSettings(), stores[0], [], tmp_path / "audit")
    assert "external" not in read_metadata(tmp_path / "audit/audit.json", AuditMetadata, "audit").asked


def test_a_mirrored_and_brightened_copy_is_found_and_fails_the_verdict(stores: tuple[Path, Path]) -> None:
    image = read_images(stores[0], [3])[0].astype(np.float64)
    plant(stores[1], 4, np.clip(image[:, :, ::-1] * 1.1 + 5, 0, 255).astype(np.uint8))
    row = findings(stores).iloc[0]
    assert (row["where"], row["count"], row["state"]) == ("external/b", 1, "open")
    assert "p2-0 and p1-1: mirrored, correlation " in row["detail"]
    with pytest.raises(UserError, match="external/b"):
        verdict(stores[0].parents[1] / "audit/findings.csv")
    assert findings(stores, acknowledged=["external"]).iloc[0]["state"] == "acknowledged"


def test_identical_pixels_are_found_by_their_hash_whatever_the_stored_image_is(stores: tuple[Path, Path]) -> None:
    own, path = pd.read_csv(stores[0].with_name("manifest.csv")), stores[1] / "cohort/manifest.csv"
    table = pd.read_csv(path)
    for row in range(5):
        table.loc[row, "pixel_hash"] = own.loc[row + 2, "pixel_hash"]
    table.to_csv(path, index=False)
    with h5py.File(stores[1] / "cohort/scans.h5", "r+") as file:
        file.attrs["source"] = store_attributes(table, 64)["source"]
    row = findings(stores).iloc[0]
    assert row["count"] == 5
    assert row["detail"].startswith("p0-0 and p1-0: identical pixels; ")
    assert row["detail"].endswith("; and 2 more pairs")
