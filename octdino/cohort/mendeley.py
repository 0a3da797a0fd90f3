"""Download of OCT2017 and OCTDL from Mendeley Data, checked by the SHA-256 in the repository's list of files.

- OCT2017, https://doi.org/10.17632/rscbjbr9sj.3, CC BY 4.0: ZhangLabData.zip, 8.4 GB, which holds chest X-rays, too.
- OCTDL, https://doi.org/10.17632/sncdhf53xc.4: OCTDL.zip, 0.2 to 0.4 GB, and OCTDL_labels.csv.

`{API}/{dataset}/files?folder_id=root&version={version}` is what the site's own pages ask; it needs no account and is
documented nowhere. Its answer is a JSON list with one object per file:

    {"filename": "OCTDL.zip", "size": …, "content_details": {"sha256_hash": …, "size": …, "download_url": …, …}, …}

This form is that of programs that read it for other data sets. Not verified, for want of a connection: the answers for
these two data sets, and the file names of version 4 of OCTDL, which are those of a script that downloads them. No
checksum is written down here, since none could be verified; the list names it at the time of the download. Should the
list differ, the command ends with one line that names the files and the page to get them from by hand.
"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from octdino.cohort.published_files import RECORD_BYTES, PublishedFile, fetch_files, record_errors
from octdino.cohort.web import read_small

API = "https://data.mendeley.com/public-api/datasets"  # tests serve their own

log = logging.getLogger("octdino.fetch")


@dataclass(frozen=True)
class Dataset:
    """A version of a data set in the repository, and which of its files a cohort is read from."""

    name: str
    version: int
    files: tuple[str, ...]

    @property
    def doi(self) -> str:
        """URL of this version for people."""
        return f"https://doi.org/10.17632/{self.name}.{self.version}"


DATASETS = {
    "oct2017": Dataset("rscbjbr9sj", 3, ("ZhangLabData.zip",)),
    "octdl": Dataset("sncdhf53xc", 4, ("OCTDL_labels.csv", "OCTDL.zip")),
}


class ContentDetails(BaseModel):
    """Bytes, SHA-256 and URL of a file of the list."""

    model_config = ConfigDict(strict=True)
    size: int = Field(gt=0, lt=10**12)
    sha256_hash: str = Field(pattern="^[0-9a-fA-F]{64}$")
    download_url: str = Field(pattern="^https?://")


def fetch_mendeley(cohort: str, root: Path) -> None:
    """Download the files of `cohort`, a key of `DATASETS`, to `root`, where its reader reads them without unpacking.

    Raises:
        UserError: no network, another list than expected, too little disk, or a file with another checksum.
    """
    dataset = DATASETS[cohort]
    fetch_files(_listed(dataset, root), root, dataset.doi)
    log.info("%s: complete; octdino cohort %s --root %s reads it as it is", root, cohort, root)


def _listed(dataset: Dataset, root: Path) -> dict[str, PublishedFile]:
    """Return size, checksum and link of the wanted files by name."""
    url = f"{API}/{dataset.name}/files?folder_id=root&version={dataset.version}"
    with record_errors(url, dataset.files, root, dataset.doi):
        listed = {file["filename"]: file for file in json.loads(read_small(url, RECORD_BYTES))}
        found = {name: ContentDetails.model_validate(listed[name]["content_details"]) for name in dataset.files}
    return {
        name: PublishedFile(file.size, f"sha256:{file.sha256_hash.lower()}", file.download_url)
        for name, file in found.items()
    }
