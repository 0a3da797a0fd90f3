"""A folder that looks as a reader's copy of the repository does after the first run, and programs that start warm."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from tests.documents.blocks import ROOT, Block, read_blocks

ROOTS = ("data/OLIVES", "data/OCT2017", "data/OCTDL")  # of the presets of published cohorts
LINKED = ("Snakefile", "workflow", "config", "config.yaml", "profiles", "envs", "replication", "Makefile", "octdino")
SHORT = """\
cohort: {phantom: {patients: 20, visits: 2, slices: 2}}
pretrain: {epochs: 1}
classify: {fractions: [1.0], epochs: 1, min_steps: [5], lr: [0.001], arms: [scratch-finetune, dino-linear]}
evaluate: {resamples: 100}
explain: {inits: []}
"""


class Reader:
    """Runs the blocks of a page in a folder, as somebody who types them does."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder = folder
        self.env = {
            **os.environ,
            "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": "",
        }
        folder.mkdir(exist_ok=True)
        for name in LINKED:
            (folder / name).symlink_to(ROOT / name)
        (folder / "short.yaml").write_text(SHORT)
        for root in ROOTS:  # with a file, as after `octdino fetch`; plans and dry runs read no scans
            (folder / root).mkdir(parents=True, exist_ok=True)
            (folder / root / "README.txt").touch()

    def run(self, block: Block) -> None:
        """Write the file that a block is, or run it; fails with the output of the first command that fails."""
        if block.file:
            (self.folder / block.file).write_text(block.text)
        if block.language not in ("sh", "python") or not block.runs:
            return
        text = block.text
        if block.decision == "run shortened":
            text = "\n".join(f"{line} short.yaml" if "--configfile" in line else line for line in text.splitlines())
        command = ["bash", "-euo", "pipefail", "-c", text] if block.language == "sh" else ["warm-python", "-c", text]
        done = subprocess.run(
            command, cwd=self.folder, env=self.env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, timeout=900,
        )  # fmt: skip
        assert done.returncode == 0, f"{block}: exit code {done.returncode}\n{text}\n{done.stdout[-4000:]}"


@pytest.fixture(scope="session")
def first_run(tmp_path_factory: pytest.TempPathFactory, programs: Path) -> Path:
    """The folder after all blocks of docs/getting_started.md: results/first, and scans/."""
    reader = Reader(tmp_path_factory.mktemp("first") / "copy", programs)
    for block in read_blocks(ROOT / "docs/getting_started.md"):
        reader.run(block)
    return reader.folder


@pytest.fixture
def reader(first_run: Path, programs: Path, tmp_path: Path) -> Reader:
    """A reader who has results/phantom of an earlier run, and scans of their own in the forms that pages name."""
    reader = Reader(tmp_path / "copy", programs)
    shutil.copytree(first_run / "results/first", reader.folder / "results/phantom")
    _write_own_scans(first_run / "results/first/cohort", reader.folder)
    return reader


def _write_own_scans(cohort: Path, folder: Path) -> None:
    """Write scans/ with scans.csv, the same as class folders classes/{DME,NORMAL}, and scan.png."""
    manifest = pd.read_csv(cohort / "manifest.csv", dtype={"patient": "string"})
    rows = []
    for number, scan in enumerate(manifest.dropna(subset=["DRT/ME"]).itertuples(index=False)):
        image = Image.open(cohort / "files" / scan.path).convert("L")
        edema = int(scan[manifest.columns.get_loc("DRT/ME")])
        name = f"{number:04}.png"
        for path in (folder / "scans" / name, folder / "classes" / ("DME" if edema else "NORMAL") / name):
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)
        rows.append({"path": name, "patient": scan.patient, "edema": edema, "atrophy": number % 2})
    pd.DataFrame(rows).to_csv(folder / "scans.csv", index=False)
    image.save(folder / "scan.png")
