"""Every fenced block of the documentation parses: commands exist, Python compiles, YAML is a valid configuration."""

import re
from pathlib import Path

import pytest
import yaml

from octdino.config import load_config
from octdino.config.settings_base import merged
from octdino.errors import UserError
from tests.documents.blocks import BLOCKS, PAGES, TEXTS, Block, blocks, name_of, read_blocks
from tests.documents.shell_lines import fault, inline_fault, simple_commands

ROOT = Path(__file__).parents[2]
INLINE = re.compile(r"(?<!`)`((?:octdino|snakemake|make) [^`\n…]+)`(?!`)")


def files_of(page: str) -> set[str]:
    """Names of the files that the YAML blocks of a page are, and that its commands write."""
    own = [block for block in BLOCKS if block.page == page]
    text = "".join(block.text for block in own)
    inspected = {"inspect.yaml"} if "octdino inspect " in text else set()
    return {block.file for block in own if block.file} | inspected | set(re.findall(r"> (\w+\.yaml)", text))


def test_every_block_has_a_language_that_a_test_decides_about() -> None:
    odd = [f"{block}: {block.language or 'no language'}" for block in BLOCKS]
    allowed = {"sh", "python", "yaml", *TEXTS}
    assert not [line for block, line in zip(BLOCKS, odd, strict=True) if block.language not in allowed]
    assert len(blocks("sh")) > 20


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_printed_commands_exist_with_these_flags_and_files(page: Path) -> None:
    faults = []
    for block in read_blocks(page):
        if block.language == "sh":
            for words in simple_commands(block.text):
                if why := fault(words, files_of(block.page)):
                    faults.append(f"{block}: {' '.join(words)}: {why}")
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_inside_of_sentences_exist(page: Path) -> None:
    faults = []
    for number, line in enumerate(page.read_text().splitlines(), 1):
        for command in INLINE.findall(line):
            for words in simple_commands(command):
                if words[0] in ("octdino", "snakemake", "make") and (why := inline_fault(words)):
                    faults.append(f"{name_of(page)}:{number}: {command}: {why}")
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python_compiles(block: Block) -> None:
    compile(block.text, str(block), "exec")


@pytest.mark.parametrize("block", blocks("yaml"), ids=str)
def test_yaml_is_a_valid_configuration(block: Block) -> None:
    """Alone, or over the presets that it is printed for: those of the commands of its page."""
    values = yaml.safe_load(block.text)
    laid = [{}, *(yaml.safe_load((ROOT / "config" / f"{name}.yaml").read_text()) for name in ("folder", "config"))]
    faults = []
    for below in laid:
        try:
            load_config(merged(below, values), str(block))
            return
        except UserError as error:
            faults.append(str(error))
    raise AssertionError(faults[0])


def test_a_wrong_command_is_found() -> None:
    assert fault(["octdino", "predict", "model", "scans", "--ouch", "x"])
    assert fault(["octdino", "predicts"])
    assert fault(["octdino", "predict", "model"])
    assert fault(["snakemake", "--cores", "all", "--configfile", "config/nothing.yaml"])
    assert fault(["snakemake", "--cors", "1"])
    assert fault(["make", "nothing"])
    assert fault(["make", "CPU_ONLI=1"])
    assert fault(["pip", "install", "octdino[nothing]"])
    assert fault(["snakmake"])
    assert inline_fault(["octdino", "pretrain", "METHOD", "--epoch"])
    assert not fault(["octdino", "predict", "model", "scans", "--out", "x"])
    assert list(simple_commands("A=1 make x | dot -T > y  # why\nb \\\n c#1 && d")) == [
        ["make", "x"],
        ["dot", "-T"],
        ["b", "c#1"],
        ["d"],
    ]


def test_a_block_without_an_end_and_a_decision_without_a_block_are_found(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tests.documents.blocks.ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text("```sh\nmake\n")
    with pytest.raises(ValueError, match=r"page.md:1: a fence without its end"):
        list(read_blocks(page))
    page.write_text("<!-- not run: no reason -->\n\n```sh\nmake\n```\n")
    with pytest.raises(ValueError, match=r"page.md:1: a decision about no block"):
        list(read_blocks(page))
    page.write_text("<!-- not run: slow -->\n```sh\nmake\n```\n\n   ```python\n   x = 1\n   ```\n")
    slow, code = read_blocks(page)
    assert (slow.decision, slow.runs, slow.text) == ("not run: slow", False, "make\n")
    assert (code.language, code.text, code.runs) == ("python", "x = 1\n", True)
