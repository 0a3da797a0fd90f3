"""The Python code of README.md and docs/predict.md runs as it is printed."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def run_blocks(text: str) -> dict[str, Any]:
    """The variables after all blocks of Python in a Markdown text."""
    found: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "document", "exec"), found)
    return found


@pytest.mark.parametrize("name", ["README.md", "docs/predict.md"])
def test_python_of_a_document_runs_as_printed(name, run, model, tmp_path, monkeypatch):
    shutil.copytree(run, tmp_path / "results" / "phantom")
    shutil.copytree(model, tmp_path / "results" / "phantom" / "model")
    shutil.copytree(run.parent / "files" / "p0", tmp_path / "scans")
    monkeypatch.chdir(tmp_path)
    found = run_blocks((ROOT / name).read_text())
    assert len(found["table"]) == 2 * 6
    if name == "README.md":
        assert found["backbone"].num_features == 16
    else:
        assert found["features"].shape == (6, 16)
        assert found["maps"].shape == (6, 2, 32, 32)
