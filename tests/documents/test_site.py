"""Structure of the documentation: sections, links and anchors, and the pages that are generated from the code."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from docs.extension import commands_page, files_page, gallery, settings_page
from docs.extension.markdown_text import anchor, anchors, link_targets
from docs.extension.repository_links import find_mirrors, rewrite_links
from docs.extension.sections import pages_without_section, read_sections, toctrees
from docs.extension.setting_types import type_words, unit
from octdino.config import PretrainSettings
from octdino.config.augment import AugmentSettings
from octdino.config.cohort import ImageSettings
from octdino.config.defaults import default_yaml
from octdino.config.evaluate import EvaluateSettings
from octdino.errors import UserError
from tests.documents.blocks import PAGES, ROOT, name_of

DOCS = ROOT / "docs"
LINKED = [*PAGES, ROOT / "CHANGELOG.md"]
GENERATED = ("reference/settings.md", "reference/commands.md", "reference/files.md", "gallery.md")  # have more headings


def test_each_page_is_in_a_section() -> None:
    assert not pages_without_section(DOCS)
    sections = read_sections((DOCS / "index.md").read_text())
    assert list(sections) == ["Getting started", "How-to guides", "Explanation", "Reference"]
    pages = [page for each in sections.values() for page in each]
    assert len(pages) == len(set(pages))
    assert not [page for page in pages if not (DOCS / f"{page}.md").is_file()]


def test_a_page_without_a_section_is_named(tmp_path: Path) -> None:
    (tmp_path / "reference").mkdir()
    (tmp_path / "index.md").write_text("# x\n\n## How-to\n\n- [A](a.md): x\n- [B](reference/b.md): y\n")
    for name in ("a.md", "reference/b.md", "c.md"):
        (tmp_path / name).write_text("# x\n")
    assert pages_without_section(tmp_path) == ["c.md"]
    assert toctrees((tmp_path / "index.md").read_text()).split("\n")[2:6] == [
        ":caption: How-to",
        "",
        "a",
        "reference/b",
    ]


@pytest.mark.parametrize("page", LINKED, ids=name_of)
def test_links_and_their_anchors_exist(page: Path) -> None:
    faults = []
    for number, target in link_targets(page.read_text()):
        name, _, fragment = target.partition("#")
        file = page.parent / name if name else page
        generated = str(file.resolve().relative_to(ROOT)).removeprefix("docs/") in GENERATED
        if not file.exists():
            faults.append(f"{name_of(page)}:{number}: {target}: no such file")
        elif fragment and not generated and (file.suffix != ".md" or fragment not in anchors(file)):
            faults.append(f"{name_of(page)}:{number}: {target}: no such heading")
    assert not faults, "\n".join(faults)


def test_anchors_are_those_of_git_hosts(tmp_path: Path) -> None:
    assert anchor("Why settings travel as JSON through `params`") == "why-settings-travel-as-json-through-params"
    assert anchor("PBS, LSF, SGE and others") == "pbs-lsf-sge-and-others"
    assert anchor("In [Python](x.md)") == "in-python"
    page = tmp_path / "page.md"
    page.write_text("# A b\n## A b\n```sh\n# no heading\n```\n")
    assert anchors(page) == {"a-b", "a-b-1"}


def test_links_of_copied_pages_are_those_of_the_site() -> None:
    mirrors = find_mirrors(DOCS)
    assert mirrors[ROOT / "CHANGELOG.md"] == DOCS / "reference/changelog.md"
    said: list[str] = []
    text = "[a](docs/methods.md#speed) `[b](no.md)` [`c`](config/default.yaml) [d](no.md) [e](https://x.org/y.md)\n"
    found = rewrite_links(text, ROOT / "CHANGELOG.md", DOCS / "reference/changelog.md", mirrors, said.append)
    assert "[a](../methods.md#speed) `[b](no.md)` [`c`](path:../../config/default.yaml)" in found
    assert "[e](https://x.org/y.md)" in found
    assert said == ["CHANGELOG.md:1: no such file in the repository: no.md"]
    up = rewrite_links(
        "[x](../benchmarks/) [y](../README.md#start)", DOCS / "a.md", DOCS / "a.md", mirrors, said.append
    )
    assert up == "[x](benchmarks.md) [y](index.md)\n"
    assert len(said) == 1


def keys_of(values: dict[str, Any], prefix: str = "") -> list[str]:
    """Dotted keys of a nested configuration; mappings that the user names count as one key."""
    found = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        inner = isinstance(value, dict) and name not in ("models", "pretrain.variants", "classify.arm_fractions")
        found += keys_of(value, f"{name}.") if inner else [name]
    return found


def test_the_settings_page_has_every_key_with_type_default_and_meaning() -> None:
    text = settings_page.markdown()
    entries = dict(re.findall(r"^```\{setting\} (\S+)\n\n(.*?)\n```$", text, re.MULTILINE | re.DOTALL))
    assert not set(keys_of(yaml.safe_load(default_yaml()))) - entries.keys()
    assert {"models.NAME.timm", "pretrain.variants.NAME.lr", "pretrain.variants.dino.prototypes"} <= entries.keys()
    faults = [key for key, entry in entries.items() if not re.search(r"\S\n\nType: .*Default: .*\.", entry)]
    assert not faults
    assert "Type: whole number from 8. Default: `87`." in entries["cohort.phantom.patients"]
    assert "Default: `0.04`." in entries["pretrain.variants.NAME.weight_decay_end"]
    assert "Default: `0.4`." in entries["pretrain.variants.dino.weight_decay_end"]


@pytest.mark.parametrize(
    ("cls", "name", "words", "found"),
    [
        (AugmentSettings, "rotate_degrees", "number from 0 to 180", "degrees"),
        (AugmentSettings, "flip_p", "number from 0 to 1", "probability"),
        (AugmentSettings, "blur_p", "number, or three numbers", "probability"),
        (AugmentSettings, "global_size", "whole number from 16", "px"),
        (ImageSettings, "size", "two whole numbers", "px"),
        (ImageSettings, "percentiles", "two numbers, or null", ""),
        (ImageSettings, "crop", "one of `none`, `retina`", ""),
        (PretrainSettings, "checkpoint_seconds", "number from 0", "s"),
        (PretrainSettings, "batch_size", "whole number from 2", ""),
        (PretrainSettings, "epochs", "whole number from 1, or null", ""),
        (EvaluateSettings, "cst_bands", "list of numbers", "µm"),
        (EvaluateSettings, "bcva_bands", "list of numbers", "ETDRS letters"),
        (EvaluateSettings, "confidence", "number above 0.5 below 1", "share"),
    ],
)
def test_types_and_units_in_words(cls: type, name: str, words: str, found: str) -> None:
    field = cls.model_fields[name]
    assert (type_words(field), unit(name, field)) == (words, found)


def test_the_commands_page_has_every_verb_and_every_flag() -> None:
    text = commands_page.markdown()
    for name, verb in commands_page.verbs().items():
        part = text.partition(f"## `octdino {name}`\n")[2].partition("\n## ")[0]
        assert part, name
        flags = [flag for action in verb._actions for flag in action.option_strings if flag not in ("-h", "--help")]
        assert not [flag for flag in flags if f"{flag}" not in part], name


def test_the_files_page_has_every_column_and_metadata_key() -> None:
    text = files_page.markdown()
    for schema in files_page.schemas().values():
        assert not [name for name in schema.names if f"| `{name}` |" not in text]
    assert "| `temperature` | number above 0, or null | divides the logits" in text
    for name in ("weights_sha256", "out_of_distribution", "not_checkable", "duplicate_pixels"):
        assert f"`{name}`" in text


def test_the_gallery_takes_no_figures_but_the_phantoms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "make docs RESULTS=" in gallery.prepare(None, tmp_path / "gallery")
    with pytest.raises(UserError, match=r"scans.h5"):
        gallery.prepare(tmp_path, tmp_path / "gallery")
    (tmp_path / "evaluate").mkdir()
    (tmp_path / "evaluate/roc.svg").write_text('<svg aria-label="ROC &amp; more">@media screen and (x){y}</svg>')
    kind = {"name": "olives"}
    monkeypatch.setattr(gallery, "cohort_kind", lambda _: kind["name"])
    with pytest.raises(UserError, match="a cohort of kind olives; expected the phantom"):
        gallery.prepare(tmp_path, tmp_path / "gallery")
    kind["name"] = "phantom"
    text = gallery.prepare(tmp_path, tmp_path / "gallery")
    assert "![ROC & more](_gallery/evaluate-roc.svg)" in text
    assert (tmp_path / "gallery/evaluate-roc.svg").is_file()
