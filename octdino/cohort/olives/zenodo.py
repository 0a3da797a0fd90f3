"""Download of the OLIVES archives from Zenodo, 33 GB, checked by the record's checksums.

https://doi.org/10.5281/zenodo.7105232, CC BY 4.0. Format of the response: https://developers.zenodo.org/#records.
"""

import json
import logging
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from octdino.cohort.fetch import CHECKSUM, fetch
from octdino.cohort.web import read_small
from octdino.data.disk_space import amount, check_disk
from octdino.errors import UserError, one_line, short

API = "https://zenodo.org/api/records"  # tests serve their own
RECORD = "7105232"
FILES = ("OLIVES_Dataset_Labels.zip", "OLIVES.zip")
RECORD_BYTES = 1_000_000  # of the record itself; it has 10,000

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
    files = _record(root)
    root.mkdir(parents=True, exist_ok=True)
    missing = sum(max(files[name].size - _there(root / name), 0) for name in FILES)
    log.info("https://doi.org/10.5281/zenodo.%s: %s to fetch to %s", RECORD, amount(missing), root)
    check_disk(root, missing, " and ".join(FILES))
    for name in FILES:
        fetch(files[name].links.content, root / name, files[name].checksum, files[name].size)
    log.info("%s: complete; octdino cohort olives --root %s reads it as it is", root, root)


def _record(root: Path) -> dict[str, RecordFile]:
    """Return the record's files by name: size, checksum and link."""
    url = f"{API}/{RECORD}"
    by_hand = f"or put {' and '.join(FILES)} of https://doi.org/10.5281/zenodo.{RECORD} into {root}"
    try:
        files = {file["key"]: file for file in json.loads(read_small(url, RECORD_BYTES))["files"]}
        return {name: RecordFile.model_validate(files[name]) for name in FILES}
    except UserError as error:
        raise UserError(f"{error}; {by_hand}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where, value = ".".join(map(str, first["loc"])), short(first["input"])
        raise UserError(f"{url}: {error.title}: {where}: {first['msg']}, got {value}; {by_hand}") from None
    except KeyError as error:
        raise UserError(f"{url}: the record has no {error}; {by_hand}") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{url}: no record as expected: {one_line(error)}; {by_hand}") from None


def _there(path: Path) -> int:
    """Return the bytes of a file that are already downloaded."""
    part = path.with_name(f"{path.name}.part")
    return next((file.stat().st_size for file in (path, part) if file.is_file()), 0)
