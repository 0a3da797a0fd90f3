"""Download of the OLIVES archives from Zenodo, 33 GB, checked by the record's checksums.

https://doi.org/10.5281/zenodo.7105232, CC BY 4.0. Format of the response: https://developers.zenodo.org/#records.
"""

import json
import logging
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from octdino.cohort.fetch import CHECKSUM
from octdino.cohort.published_files import RECORD_BYTES, PublishedFile, fetch_files, record_errors
from octdino.cohort.web import read_small

API = "https://zenodo.org/api/records"  # tests serve their own
RECORD = "7105232"
DOI = f"https://doi.org/10.5281/zenodo.{RECORD}"
FILES = ("OLIVES_Dataset_Labels.zip", "OLIVES.zip")

log = logging.getLogger("octdino.fetch")


class Links(BaseModel):
    """URL of a file of the record."""

    model_config = ConfigDict(strict=True)
    content: str = Field(alias="self", pattern="^https?://")


class RecordFile(BaseModel):
    """A file of the record: bytes, checksum and URL."""

    model_config = ConfigDict(strict=True)
    size: int = Field(gt=0, lt=10**12)
    checksum: str = Field(pattern=CHECKSUM)
    links: Links


def fetch_olives(root: Path) -> None:
    """Download the archives to `root`, where `octdino cohort olives` reads them without unpacking.

    Raises:
        UserError: no network, another record than expected, too little disk, or a file with another checksum.
    """
    fetch_files(_record(root), root, DOI)
    log.info("%s: complete; octdino cohort olives --root %s reads it as it is", root, root)


def _record(root: Path) -> dict[str, PublishedFile]:
    """Return the record's files by name: size, checksum and link."""
    url = f"{API}/{RECORD}"
    with record_errors(url, FILES, root, DOI):
        files = {file["key"]: file for file in json.loads(read_small(url, RECORD_BYTES))["files"]}
        found = {name: RecordFile.model_validate(files[name]) for name in FILES}
    return {name: PublishedFile(file.size, file.checksum, file.links.content) for name, file in found.items()}
