"""Download of all files of a published record, and its errors in one line that says how to do it by hand."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from octdino.cohort.fetch import fetch
from octdino.data.disk_space import amount, check_disk
from octdino.errors import UserError, one_line, short

RECORD_BYTES = 1_000_000  # of a record's JSON; those that are read here have 10,000

log = logging.getLogger("octdino.fetch")


@dataclass(frozen=True)
class PublishedFile:
    """A file of a record: bytes, checksum ("md5:…", "sha256:…") and URL."""

    size: int
    checksum: str
    url: str


def fetch_files(files: dict[str, PublishedFile], root: Path, doi: str) -> None:
    """Download the files by name to `root`; the disk space for all of them is checked first.

    Raises:
        UserError: as `octdino.cohort.fetch.fetch`.
    """
    root.mkdir(parents=True, exist_ok=True)
    missing = sum(max(file.size - _received(root / name), 0) for name, file in files.items())
    log.info("%s: %s to fetch to %s", doi, amount(missing), root)
    check_disk(root, missing, " and ".join(files))
    for name, file in files.items():
        fetch(file.url, root / name, file.checksum, file.size)


@contextmanager
def record_errors(url: str, names: tuple[str, ...], root: Path, doi: str) -> Iterator[None]:
    """Raise errors of reading a record as UserError: the URL, the cause, and which files to put where by hand.

    Args:
        url: of the record's JSON.
        names: the files that are wanted.
        root: folder for them.
        doi: URL of the record for people.
    """
    by_hand = f"or put {' and '.join(names)} of {doi} into {root}"
    try:
        yield
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


def _received(path: Path) -> int:
    """Return the bytes of a file that are already downloaded."""
    part = path.with_name(f"{path.name}.part")
    return next((file.stat().st_size for file in (path, part) if file.is_file()), 0)
