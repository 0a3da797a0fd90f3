"""Settings reach a command as a file named by its content; Snakemake sees their text."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from octdino.snakemake_settings import FOLDER, settings_file
from tests.workflow.conftest import Workflow


def workflow(runs: bool = True, dryrun: bool = False) -> SimpleNamespace:
    """A workflow that runs jobs, or does not."""
    return SimpleNamespace(scheduler=object() if runs else None, dryrun=dryrun)


def test_the_file_is_written_when_jobs_run_and_only_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = '{"epochs": 3, "title": "Größe"}'
    names = {settings_file(flow, "pretrain", text) for flow in (workflow(runs=False), workflow(dryrun=True))}
    assert not list(tmp_path.iterdir())
    names.add(settings_file(workflow(), "pretrain", text))
    (name,) = names
    assert Path(name).read_text(encoding="utf-8") == text
    assert settings_file(workflow(), "pretrain", text + " ") not in names
    assert len(list(FOLDER.iterdir())) == 2, "a temporary file is left"


def test_a_file_that_is_there_is_not_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another job may be reading it."""
    monkeypatch.chdir(tmp_path)
    path = Path(settings_file(workflow(), "a", "{}"))
    os.utime(path, (1, 1))
    settings_file(workflow(), "a", "{}")
    assert path.stat().st_mtime == 1


def test_commands_get_files_and_a_dry_run_writes_none(stubbed: Workflow) -> None:
    folder = stubbed.folder / FOLDER
    stubbed.rules()
    assert not folder.exists()
    assert stubbed.run("--cores", "1", "results/phantom/cohort/scans.h5").returncode == 0
    (cohort,) = folder.glob("cohort-*.json")
    assert json.loads(cohort.read_text())["image"]["size"]
    shutil.rmtree(folder)  # it is written again for the next job
    assert stubbed.run("--cores", "1", "results/phantom/cohort/scans.h5", "--forcerun", "cohort").returncode == 0
    assert cohort.is_file()
