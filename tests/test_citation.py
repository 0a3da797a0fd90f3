"""CITATION.cff and .zenodo.json follow their formats and say the same as pyproject.toml.

The rules are those of the schema of the Citation File Format 1.2.0 and of the keys that Zenodo documents for a deposit;
both files were also validated against the published JSON schemas when they were written.
"""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.version import Version

from octdino import __version__

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CITATION: dict[str, Any] = yaml.safe_load((ROOT / "CITATION.cff").read_text())
ZENODO: dict[str, Any] = json.loads((ROOT / ".zenodo.json").read_text())
DOI = re.compile(r"10\.\d{4,9}(\.\d+)?/[A-Za-z0-9:/_;.()\[\]\\-]+")
URL = re.compile(r"https://\S+")
CFF_KEYS = {
    "abstract", "authors", "cff-version", "commit", "contact", "date-released", "doi", "identifiers", "keywords",
    "license", "license-url", "message", "preferred-citation", "references", "repository", "repository-artifact",
    "repository-code", "title", "type", "url", "version",
}  # fmt: skip
ZENODO_KEYS = {
    "access_conditions", "access_right", "communities", "contributors", "creators", "description", "doi",
    "embargo_date", "grants", "keywords", "language", "license", "locations", "method", "notes", "publication_date",
    "references", "related_identifiers", "subjects", "title", "upload_type", "version", "dates",
}  # fmt: skip


def test_the_version_is_written_in_one_place_and_repeated_correctly() -> None:
    assert PROJECT["dynamic"] == ["version"], "setuptools reads octdino.__version__"
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)
    assert {CITATION["version"], ZENODO["version"]} == {__version__}


def test_a_released_version_is_the_newest_of_the_changelog() -> None:
    headings = re.findall(r"^## \[(.+?)\](?: - (\d{4}-\d\d-\d\d))?$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == ("Unreleased", "")
    released = [version for version, _ in headings[1:]]
    assert all(date for _, date in headings[1:]), "a released version has its day"
    newest = [Version(version) for version in released]
    assert newest == sorted(newest, reverse=True)
    assert not newest or Version(__version__) >= newest[0]


def test_title_license_and_keywords_are_the_packages() -> None:
    assert CITATION["title"] == ZENODO["title"]
    name, about = CITATION["title"].split(": ", 1)
    assert name == PROJECT["name"]
    assert PROJECT["description"].lower().startswith(about.lower())
    assert CITATION["license"] == ZENODO["license"] == PROJECT["license"] == "MIT"
    assert "MIT License" in (ROOT / "LICENSE").read_text()
    assert set(CITATION["keywords"]) == set(ZENODO["keywords"])
    assert {word.lower() for word in CITATION["keywords"]} == {word.lower() for word in PROJECT["keywords"]}
    assert [author["name"] for author in CITATION["authors"]] == [creator["name"] for creator in ZENODO["creators"]]
    assert " ".join(CITATION["abstract"].split()) in ZENODO["description"]


def test_the_citation_file_has_the_keys_of_its_format() -> None:
    assert {"authors", "cff-version", "message", "title"} <= CITATION.keys() <= CFF_KEYS
    assert CITATION["cff-version"] == "1.2.0"
    assert CITATION["type"] in ("software", "dataset")
    assert len(set(CITATION["keywords"])) == len(CITATION["keywords"])


@pytest.mark.parametrize("reference", CITATION["references"], ids=lambda reference: str(reference["title"]))
def test_a_reference_can_be_found(reference: dict[str, Any]) -> None:
    assert {"authors", "title", "type"} <= reference.keys()
    assert reference["type"] in ("article", "data")
    for author in reference["authors"]:
        assert author.keys() in ({"family-names", "given-names"}, {"name"})
    assert 2000 < reference["year"] < 2100
    assert DOI.fullmatch(reference.get("doi", "")) or URL.fullmatch(reference.get("url", ""))


def test_zenodos_file_has_its_keys_and_the_same_references() -> None:
    required = {"access_right", "creators", "description", "license", "title", "upload_type"}
    assert required <= ZENODO.keys() <= ZENODO_KEYS
    assert (ZENODO["upload_type"], ZENODO["access_right"]) == ("software", "open")
    assert all(creator.keys() <= {"name", "affiliation", "orcid", "gnd"} for creator in ZENODO["creators"])
    assert re.fullmatch("[a-z]{3}", ZENODO["language"])
    related = ZENODO["related_identifiers"]
    assert all(each.keys() <= {"identifier", "relation", "resource_type", "scheme"} for each in related)
    assert {each["relation"] for each in related} == {"cites"}
    assert all(DOI.fullmatch(each["identifier"]) or URL.fullmatch(each["identifier"]) for each in related)
    cited = [reference.get("doi") or reference["url"] for reference in CITATION["references"]]
    assert [each["identifier"] for each in related] == cited


def test_cohorts_that_are_downloaded_are_cited_by_the_version_that_is_read() -> None:
    from octdino.cohort import mendeley

    text = Path(mendeley.__file__).read_text()
    cited = {reference.get("doi", "") for reference in CITATION["references"]}
    assert set(re.findall(r"10\.17632/\w+\.\d", text)) <= cited
