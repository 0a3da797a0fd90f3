"""Zip archives of a cohort as downloaded, read without unpacking their images.

OLIVES.zip holds OLIVES/TREX_DME.zip and OLIVES/Prime_FULL.zip, which hold 156,000 images; ZhangLabData.zip of OCT2017
and OCTDL.zip hold the images themselves. A member has the path that unpacking each archive in place would give it, so
the manifest is the same either way; unpacked files take precedence.
"""

import io
import logging
import struct
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from octdino.cohort.file_index import FileIndex, clean_path, is_hidden
from octdino.data.disk_space import amount, check_disk
from octdino.errors import UserError
from octdino.progress import progress
from octdino.scans.image_files import MAX_BYTES
from octdino.scans.sources import DAMAGED

MEGABYTE = 1_000_000
PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # compression methods that Python unpacks in bounded memory
MAX_DEPTH = 4  # zips in zips; OLIVES has two
MAX_ARCHIVES = 60  # no more than are kept open; OLIVES has four
MAX_MEMBERS = 500_000  # files in an archive; OLIVES has 99,000 and 57,000, OCT2017 115,000
MAX_RATIO = 20  # of a zip in a zip; a valid one shrinks by a few per cent when packed twice

log = logging.getLogger("octdino.cohort")


@dataclass(frozen=True)
class Archive:
    """A zip: a file, or a byte range of one, for a zip stored uncompressed in another.

    Attributes:
        file: the file on disk.
        start: where the zip begins in it.
        size: its bytes.
        changed: modification time of the file in ns, so that a replaced file is another archive.
        prefix: the folder of its members below root, with a final slash, or empty.
    """

    file: Path
    start: int
    size: int
    changed: int
    prefix: str

    @classmethod
    def of(cls, root: Path, name: str) -> "Archive":
        """Return the zip file `name` below root."""
        status = (root / name).stat()
        return cls(root / name, 0, status.st_size, status.st_mtime_ns, _folder(name))

    def inner(self, name: str) -> "Archive":
        """Return the zip that is the uncompressed member `name`."""
        info = _opened(self).members[name]
        head = b""
        if 0 <= info.header_offset < self.size:
            with self.file.open("rb") as file:
                file.seek(self.start + info.header_offset)
                head = file.read(30)
        if head[:4] != b"PK\x03\x04" or len(head) < 30:
            raise UserError(f"{self.file}: {info.filename} does not begin where the zip says; fetch it again")
        start = self.start + info.header_offset + 30 + sum(struct.unpack("<HH", head[26:30]))
        if start + info.file_size > self.start + self.size:
            raise UserError(f"{self.file}: {info.filename} ends behind the zip that holds it; fetch it again")
        return Archive(self.file, start, info.file_size, self.changed, _folder(self.prefix + name))

    @property
    def members(self) -> "dict[str, zipfile.ZipInfo]":
        """The members by clean path.

        Raises:
            UserError: the zip is damaged.
        """
        return _opened(self).members

    def read(self, name: str) -> bytes:
        """Return the bytes of a member.

        Raises:
            OSError, zipfile.BadZipFile, zlib.error: it is damaged, too large, or its compression is not supported.
        """
        zipped, info = _opened(self).zipped, _opened(self).members[name]
        if info.file_size > MAX_BYTES:
            raise OSError(f"{self.file}: {name}: {info.file_size:,} bytes; expected at most {MAX_BYTES:,}")
        if info.compress_type not in PACKINGS:
            raise OSError(f"{self.file}: {name}: compression {info.compress_type}; expected deflate or none")
        if info.flag_bits & 1:
            raise OSError(f"{self.file}: {name}: encrypted; expected a file without a password")
        try:
            with zipped.open(info) as member:
                return member.read(info.file_size + 1)  # without a size zipfile inflates up to 2 GiB before it cuts
        except RuntimeError as error:  # a zip feature that Python does not support
            raise OSError(f"{self.file}: {error}") from None


@dataclass(frozen=True)
class ArchiveSource:
    """Image source: files below `root`, then members of archives. Each process opens the archives itself."""

    root: Path
    archives: tuple[Archive, ...]

    def __call__(self, path: str) -> Path | bytes:
        file = self.root / path
        if file.is_file():
            return file
        for archive in self.archives:
            name = path.removeprefix(archive.prefix)
            if path.startswith(archive.prefix) and name in archive.members:
                return archive.read(name)
        raise FileNotFoundError(path)


def open_archives(file_index: FileIndex) -> None:
    """Add the members of all zips below root, and of zips in zips, to the file index and to its image source.

    A zip that is compressed in another is extracted beside it once, since random access needs it uncompressed.

    Raises:
        UserError: a zip is damaged, nested too deep or larger than it may be, or the disk lacks the space.
    """
    archives: list[Archive] = []
    for name in sorted(file for file in file_index.files if _is_zip(file)):
        _add_with_inner(file_index, Archive.of(file_index.root, name), archives, MAX_DEPTH)
    if not archives:
        return
    for archive in archives:
        file_index.add(archive.prefix + name for name in archive.members)
        log.info("%s: %d files in %s", archive.file, len(archive.members), archive.prefix or "it")
    file_index.source = ArchiveSource(file_index.root, tuple(archives))


def _add_with_inner(file_index: FileIndex, archive: Archive, archives: list[Archive], depth: int) -> None:
    """Add an archive and the zips in it to `archives`.

    Raises:
        UserError: zips nested more than `depth` deep, or more archives or files than may be.
    """
    if not depth:
        raise UserError(f"{archive.file}: zips nested more than {MAX_DEPTH} deep; unpack it, or remove it")
    archives.append(archive)
    if len(archives) > MAX_ARCHIVES or len(archive.members) > MAX_MEMBERS:
        raise UserError(
            f"{archive.file}: more than {MAX_ARCHIVES} zips, or {MAX_MEMBERS:,} files in one; expected published ones"
        )
    for name, info in archive.members.items():
        below = archive.prefix + name
        if not _is_zip(name) or below in file_index.files:  # already unpacked, so listed as a file
            continue
        if info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1:
            inner = archive.inner(name)
        elif file_index.find_folder(Path(name).stem):  # its scans are already unpacked
            continue
        else:
            inner = _extracted(file_index.root, archive, name)
        _add_with_inner(file_index, inner, archives, depth - 1)


def _extracted(root: Path, archive: Archive, name: str) -> Archive:
    """Extract a compressed inner zip to the place where unpacking the outer one would put it."""
    info, path = archive.members[name], root / archive.prefix / name
    if info.file_size > MAX_RATIO * info.compress_size or info.compress_type not in PACKINGS:
        raise UserError(
            f"{archive.file}: {name} holds {amount(info.file_size)} packed into {amount(info.compress_size)} by method "
            f"{info.compress_type}; expected a zip that was stored or deflated to no less than 1/{MAX_RATIO}"
        )
    log.info("%s: %s is compressed in it; written beside it once, %s", archive.file, name, amount(info.file_size))
    path.parent.mkdir(parents=True, exist_ok=True)
    check_disk(path.parent, info.file_size, path.name)
    part = path.with_name(f"{path.name}.part")
    try:
        with _opened(archive).zipped.open(info) as source, part.open("wb") as file:
            chunks = iter(lambda: source.read(MEGABYTE), b"")
            for chunk in progress(chunks, -(-info.file_size // MEGABYTE), f"unpacking {path.name}", "megabyte"):
                file.write(chunk)
    except DAMAGED as error:
        part.unlink(missing_ok=True)
        raise UserError(f"{archive.file}: {name} cannot be unpacked: {error}; fetch it again") from None
    part.replace(path)
    return Archive.of(root, archive.prefix + name)


@dataclass(frozen=True)
class _Opened:
    zipped: zipfile.ZipFile
    members: dict[str, zipfile.ZipInfo]


@lru_cache(maxsize=64)
def _opened(archive: Archive) -> _Opened:
    """Open an archive once per process: reading the list of 99,000 names takes a second."""
    if not archive.file.is_file():
        raise UserError(f"{archive.file}: no regular file; expected a zip")
    try:
        window = io.BufferedReader(_Window(archive.file, archive.start, archive.size), 1 << 16)
        zipped = zipfile.ZipFile(window)
    except (zipfile.BadZipFile, struct.error, NotImplementedError, ValueError) as error:
        raise UserError(f"{archive.file}: no whole zip: {error}; fetch it again") from None
    members: dict[str, zipfile.ZipInfo] = {}
    for info in zipped.infolist():
        try:
            name = clean_path(info.filename)
        except ValueError as error:
            log.warning("%s: left out: %s", archive.file, error)
            continue
        if name and not info.is_dir() and not is_hidden(name):  # is_dir fails on an empty name
            members[name] = info
    return _Opened(zipped, members)


class _Window(io.RawIOBase):
    """Read-only file object over `size` bytes of a file from `start`."""

    def __init__(self, path: Path, start: int, size: int) -> None:
        self._file = path.open("rb", buffering=0)
        self._start, self._size, self._at = start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError("before the beginning")  # as files do; zipfile expects it
        self._at = base + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)[: max(self._size - self._at, 0)]
        self._file.seek(self._start + self._at)
        count = self._file.readinto(view) or 0
        self._at += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def _is_zip(name: str) -> bool:
    return name.lower().endswith(".zip")


def _folder(name: str) -> str:
    """Return the folder of a file with a final slash; empty for root."""
    return name[: name.rfind("/") + 1]
