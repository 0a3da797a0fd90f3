"""The archives of OLIVES from Zenodo, 33 GB, checked against the record's own checksums.

https://doi.org/10.5281/zenodo.7105232, CC BY 4.0. The answer's form: https://developers.zenodo.org/#records.
"""

import logging
from pathlib import Path
from typing import Any

import requests

from octdino.cohort.fetch import cause, fetch
from octdino.disk import amount, check_disk
from octdino.errors import UserError

API = "https://zenodo.org/api/records"  # tests serve their own
RECORD = "7105232"
FILES = ("OLIVES_Dataset_Labels.zip", "OLIVES.zip")

log = logging.getLogger("octdino.fetch")


def fetch_olives(root: Path) -> None:
    """The archives below `root`, where `octdino cohort olives` reads them without unpacking.

    Raises:
        UserError: no network, another record than expected, too little disk, or a file with another checksum.
    """
    files = _record(root)
    root.mkdir(parents=True, exist_ok=True)
    missing = sum(max(files[name]["size"] - _there(root / name), 0) for name in FILES)
    log.info("https://doi.org/10.5281/zenodo.%s: %s to fetch to %s", RECORD, amount(missing), root)
    check_disk(root, missing, " and ".join(FILES))
    for name in FILES:
        fetch(files[name]["links"]["self"], root / name, files[name]["checksum"], files[name]["size"])
    log.info("%s: complete; octdino cohort olives --root %s reads it as it is", root, root)


def _record(root: Path) -> dict[str, dict[str, Any]]:
    """The record's files by name: size, checksum and link."""
    url = f"{API}/{RECORD}"
    by_hand = f"or put {' and '.join(FILES)} of https://doi.org/10.5281/zenodo.{RECORD} into {root}"
    try:
        answer = requests.get(url, timeout=60)
        answer.raise_for_status()
        files = {file["key"]: file for file in answer.json()["files"]}
        for name in FILES:
            files[name]["links"]["self"], files[name]["checksum"], files[name]["size"]
    except requests.RequestException as error:
        raise UserError(f"{url}: {cause(error)}; {by_hand}") from None
    except (KeyError, TypeError) as error:
        raise UserError(f"{url}: the record has no {error}; {by_hand}") from None
    return files


def _there(path: Path) -> int:
    """The bytes of a file that need not be fetched, or not again."""
    part = path.with_name(f"{path.name}.part")
    return next((file.stat().st_size for file in (path, part) if file.is_file()), 0)
