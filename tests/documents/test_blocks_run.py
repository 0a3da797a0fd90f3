"""Commands and Python code of the documentation run as printed, page by page, in a copy of a small first run."""

import shlex
from pathlib import Path

import pandas as pd
import pytest

from tests.documents.blocks import PAGES, ROOT, Block, blocks, name_of, read_blocks
from tests.documents.conftest import Reader
from tests.documents.shell_lines import simple_commands

pytestmark = pytest.mark.slow
FIRST = ROOT / "docs/getting_started.md"
RUNNING = [
    page
    for page in PAGES
    if page != FIRST and any(block.runs and block.language in ("sh", "python") for block in read_blocks(page))
]


NO_DRY_RUN = {"--report", "--rulegraph", "--profile", "-n"}


def test_getting_started_ends_with_a_page_a_model_and_predictions(first_run: Path) -> None:
    results = first_run / "results/first"
    assert "<!doctype html" in (results / "report/report.html").read_text()[:200].lower()
    assert (results / "model/model.json").is_file()
    predicted = pd.read_csv(first_run / "predicted/predictions.csv")
    assert len(predicted) == 16 * len(list((first_run / "scans").glob("*.png")))
    assert predicted["probability"].between(0, 1).all()


@pytest.mark.parametrize("page", RUNNING, ids=name_of)
def test_blocks_run_as_printed(page: Path, reader: Reader) -> None:
    for block in read_blocks(page):
        reader.run(block)
    if page.name == "README.md":
        for title, labels in (("clinic-a", {"edema", "atrophy"}), ("clinic-b", {"DME", "NORMAL"})):
            metrics = pd.read_csv(reader.folder / f"results/{title}/evaluate/metrics.csv")
            assert set(metrics["label"]) >= labels
            assert (reader.folder / f"results/{title}/report/report.html").is_file()


def test_workflow_commands_that_are_not_run_have_a_dry_run(programs: Path, tmp_path: Path) -> None:
    reader = Reader(tmp_path / "copy", programs)
    for block in blocks("yaml"):
        if block.file:
            (reader.folder / block.file).write_text(block.text)
    (reader.folder / "mine.yaml").write_text(
        "report: {title: Mine}"
    )  # pages have several, of folders that are not here
    lines = {
        shlex.join(words): None
        for block in blocks("sh")
        if not block.runs
        for words in simple_commands(block.text)
        if words[0] == "snakemake" and not NO_DRY_RUN & set(words)
    }
    assert len(lines) > 5
    for line in lines:
        reader.run(Block("dry run", 0, "sh", f"{line} -n --quiet", "run"))
