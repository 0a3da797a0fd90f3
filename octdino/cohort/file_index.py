"""FileIndex: the files below a cohort's root, listed once, and the lookup of a table's paths among them."""

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path

from octdino.errors import UserError
from octdino.scans.sources import DAMAGED, FolderSource, ImageSource

MASKS = "masks"  # lesion masks mirror the images' paths below a folder of this name


class FileIndex:
    """Index of all files below `root`, without hidden files and macOS resource forks; links are followed.

    Attributes:
        root: the folder.
        files: paths below root with forward slashes.
        archived: those of them that are members of archives.
        source: maps a path to the file's content.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise UserError(f"{root}: no such folder; cohort.root says where the scans are")
        self.root = root
        self.files: set[str] = set()
        self.archived: set[str] = set()
        self.source: ImageSource = FolderSource(root)
        self._named: dict[str, list[str]] = defaultdict(list)  # folders by loose name
        self._archived: dict[str, list[str]] = defaultdict(list)  # those in archives only
        self._folded: dict[str, list[str]] = defaultdict(list)
        for prefix, names, files in _listing(root):
            for name in names if MASKS not in prefix.split("/") else []:
                self._named[_loose(name)].append(prefix + name)
            for name in files:
                self.files.add(prefix + name)
                self._folded[_casefolded(prefix + name)].append(prefix + name)

    def add(self, files: Iterable[str]) -> None:
        """Add members of archives by the path that they would have unpacked; files on disk take precedence."""
        folders = {""} | {
            folder for named in (self._named, self._archived) for same in named.values() for folder in same
        }
        for file in files:
            if file in self.files:
                continue
            self.files.add(file)
            self.archived.add(file)
            self._folded[_casefolded(file)].append(file)
            folder = file.rpartition("/")[0]
            while folder not in folders and MASKS not in folder.split("/")[:-1]:
                folders.add(folder)
                self._archived[_loose(folder.rsplit("/", 1)[-1])].append(folder)
                folder = folder.rpartition("/")[0]

    def resolve(self, path: str) -> str | None:
        """Return the file with this path, exact or ignoring case; None if there is none.

        Raises:
            LookupError: several files differ from it only in case.
        """
        if path in self.files:
            return path
        found = self._folded.get(_casefolded(path), [])
        if len(found) > 1:
            raise LookupError(f"{path} may mean {' or '.join(found)}; they differ only in case")
        return found[0] if found else None

    def find_folder(self, name: str) -> str | None:
        """Return the folder of this name nearest to root; None if there is none.

        Archives differ between `TREX DME` and `TREX_DME`, so a blank, `_` and `-` match each other if there is no exact
        match. Folders on disk take precedence over those in archives.

        Raises:
            UserError: there are several at the same depth.
        """
        for named, alike in product((self._named, self._archived), (_casefolded, _loose)):
            found = [f for f in named[_loose(name)] if alike(f.rsplit("/", 1)[-1]) == alike(name)]
            if found:
                depth = min(f.count("/") for f in found)
                nearest = [f for f in found if f.count("/") == depth]
                if len(nearest) > 1:
                    raise UserError(f"{self.root}: two folders {name!r}: {', '.join(nearest)}; expected one below root")
                return nearest[0]
        return None

    def find_table(self, key: str, *names: str) -> Path:
        """As `has_table`.

        Raises:
            UserError: there is none, or several that differ; `key` is the setting that names it.
        """
        found = self.has_table(key, *names)
        if found is None:
            raise UserError(f"{self.root}: no table {names[0]} below it; put it there or name it by {key}")
        return found

    def has_table(self, key: str, *names: str) -> Path | None:
        """Return the file of the first of these names, in any folder; copies with the same content count as one.

        Raises:
            UserError: there are several that differ; `key` is the setting that names it.
        """
        for name in names:
            found = sorted(f for f in self.files if _casefolded(f.rsplit("/", 1)[-1]) == _casefolded(name))
            found = [f for f in found if f not in self.archived] or found
            if len({self.content(self.root / f) for f in found}) > 1:
                raise UserError(f"{self.root}: tables that differ: {', '.join(found)}; name the right one by {key}")
            if found:
                return self.root / found[0]
        return None

    def content(self, path: Path) -> bytes | None:
        """Return the content of a file on disk or in an archive below root; None if there is none.

        Raises:
            UserError: it is damaged in the archive, or too large there.
        """
        if path.is_file():
            return path.read_bytes()
        name = path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else ""
        if name not in self.archived:
            return None
        try:
            content = self.source(name)
        except DAMAGED as error:
            raise UserError(f"{path}: cannot be read from its archive: {error}") from None
        assert isinstance(content, bytes), "a member of an archive"
        return content

    def mask_of(self, image: str, base: str = "") -> str:
        """Return the lesion mask of an image, `base`/masks/<path below base>.png below root; empty if missing."""
        below = image.removeprefix(base)
        mask = f"{base}{MASKS}/{below.rsplit('.', 1)[0]}.png"
        return mask if mask in self.files and mask not in self.archived else ""


def _listing(root: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """Each folder below root as the beginning of paths in it (empty, or with a final slash), its folders, its files."""
    seen: set[str] = set()
    for folder, names, files in os.walk(root, followlinks=True):
        seen.add(os.path.realpath(folder))
        names[:] = sorted(n for n in names if not is_hidden(n) and _is_new(folder, n, seen))
        below = Path(folder).relative_to(root).as_posix()
        files = sorted(name for name in files if not name.startswith("."))
        for name in [*names, *files]:
            if not name.isprintable() and any("\ud800" <= sign <= "\udfff" for sign in name):
                raise UserError(f"{folder}: the file name {name!r} is not UTF-8; rename it")
        yield "" if below == "." else f"{below}/", names, files


def _is_new(folder: str, name: str, seen: set[str]) -> bool:
    """Whether this is a folder itself or a link to one that the walk has not seen: links may lead in circles."""
    path = os.path.join(folder, name)  # noqa: PTH118  called for every folder
    return not os.path.islink(path) or os.path.realpath(path) not in seen  # noqa: PTH114


def is_hidden(path: str) -> bool:
    """Return whether a part of the path is hidden or macOS's folder of resource forks."""
    return any(step.startswith(".") or step == "__MACOSX" for step in path.split("/"))


def _casefolded(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()


def _loose(name: str) -> str:
    return _casefolded(name).replace("_", " ").replace("-", " ")


def clean_path(text: str) -> str:
    """Return a table's path relative to root: forward slashes, no leading slash, no `.` parts.

    Raises:
        ValueError: it has a `..` part or a drive, so it may leave the root.
    """
    parts = [part for part in text.strip().replace("\\", "/").split("/") if part not in ("", ".")]
    if ".." in parts or (parts and parts[0].endswith(":")):
        raise ValueError(f"{text} leaves the root; expected a path below it")
    return "/".join(parts)
