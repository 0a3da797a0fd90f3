"""Checks of external cohorts before a run."""

import json
from pathlib import Path
from typing import Any

import pytest

from octdino.config import load_config
from octdino.config.external_checks import check_label_maps, known_labels
from octdino.data.cohort_origin import origin_text
from octdino.data.olives_names import BIOMARKERS
from octdino.errors import UserError


def configured(tmp_path: Path, *external: tuple[str, str], **labels: Any) -> dict[str, Any]:
    """Return a configuration of the phantom with external cohorts, as (name, folder of files)."""
    for _, folder in external:
        (tmp_path / folder).mkdir(exist_ok=True)
    sites = [
        {"name": name, "cohort": {"name": "folder", "root": str(tmp_path / folder)}, "labels": labels}
        for name, folder in external
    ]
    return {"evaluate": {"external": sites}}


def test_the_same_files_under_two_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"evaluate.external: b and c are the same cohort; expected each of them once"):
        load_config(configured(tmp_path, ("b", "files"), ("c", "files")))
    load_config(configured(tmp_path, ("b", "files"), ("c", "others")))


def test_labels_of_a_manifest_that_was_made_from_other_files_are_not_used(tmp_path: Path) -> None:
    """evaluate.external.0.cohort.root was changed under the same name: the new files may have other labels."""
    settings = load_config(configured(tmp_path, ("b", "files"), AMD=["VMT"]))
    cohort = settings.evaluate.external[0].cohort
    (tmp_path / "files" / "1.png").write_bytes(b"1")
    folder = tmp_path / "results" / "external" / "b" / "cohort"
    folder.mkdir(parents=True)
    (folder / "manifest.csv").write_text("scan_id,patient,Scar\n")
    (folder / "origin.json").write_text(origin_text(cohort, ["1.png"]))
    assert known_labels(cohort, folder / "manifest.csv") == ["Scar"]
    with pytest.raises(UserError, match="'AMD' is no label of the external cohort b; it has Scar"):
        check_label_maps(settings, tmp_path / "results")
    origin = json.loads((folder / "origin.json").read_text())
    (folder / "origin.json").write_text(json.dumps({**origin, "root": str(tmp_path / "old"), "files": {"2.png": 7}}))
    assert known_labels(cohort, folder / "manifest.csv") is None
    check_label_maps(settings, tmp_path / "results")


def test_a_map_to_labels_that_are_not_compared_is_refused_before_the_run(tmp_path: Path) -> None:
    maps = dict.fromkeys(BIOMARKERS, None) | {"DRIL": ["DRIL", "SHRM"]}
    site = {"name": "b", "cohort": {"name": "phantom", "phantom": {"seed": 9}}, "labels": maps}
    check_label_maps(load_config({"evaluate": {"external": [site], "labels": ["DRIL", "SHRM"]}}), tmp_path)
    with pytest.raises(UserError, match=r"among evaluate\.labels \(DRIL\), and none is mapped"):
        check_label_maps(load_config({"evaluate": {"external": [site], "labels": ["DRIL"]}}), tmp_path)
