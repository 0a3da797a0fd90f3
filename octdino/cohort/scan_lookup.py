"""ScanLookup: the file below root, or the B-scan of a clinical one, that a cell of a user's table names."""

from collections import defaultdict
from pathlib import Path, PurePosixPath

from octdino.cohort.clinical_rows import ClinicalFiles
from octdino.cohort.file_index import MASKS, FileIndex, clean_path
from octdino.cohort.scan_table import RowRefused
from octdino.scans.preprocess import SUFFIXES


class ScanLookup:
    """Resolves paths as tables have them: relative or absolute, in another case, or a file's name alone.

    Attributes:
        by_name: how many cells were a name alone, of a file in some folder or without its suffix.
    """

    def __init__(self, file_index: FileIndex, clinical: ClinicalFiles) -> None:
        self._index, self._clinical = file_index, clinical
        self._named: dict[str, list[str]] | None = None
        self.by_name = 0

    def is_scan(self, text: str) -> bool:
        """Return whether a cell names a scan, or several."""
        try:
            return Path(self.resolve(text)[0]).suffix.lower() in SUFFIXES or self.resolve(text)[0] in self._clinical
        except RowRefused as why:
            return why.reason == "bad_path" and " may mean " in why.detail

    def resolve(self, text: str) -> tuple[str, int | None]:
        """Return the file below root and the number of the B-scan in `path#N`.

        A name without a folder may be that of one file in any folder, with or without its suffix.

        Raises:
            RowRefused: the path is empty, leaves the root, names no file, or may be several.
        """
        if not text:
            raise RowRefused("missing_path", "the path is empty; expected the path of a scan below root")
        if Path(text).is_absolute() and Path(text).is_relative_to(self._index.root.absolute()):
            text = Path(text).relative_to(self._index.root.absolute()).as_posix()
        try:
            path = clean_path(text)
            found = self._index.resolve(path)
            if found is None and (frame := self._clinical.resolve(path)):
                return frame
        except (ValueError, LookupError) as error:
            raise RowRefused("bad_path", str(error)) from None
        if found is None and path and "/" not in path and not Path(text).is_absolute():
            found = self._by_name(path)
        if found is None:
            raise RowRefused("missing_file", f"no file {text} below the root")
        return found, None

    def _by_name(self, name: str) -> str | None:
        if self._named is None:
            self._named = defaultdict(list)
            for file in sorted(self._index.files):
                own = PurePosixPath(file)
                if not file.startswith(f"{MASKS}/") and own.suffix.lower() in SUFFIXES:
                    for key in {own.name.casefold(), own.stem.casefold()}:
                        self._named[key].append(file)
        files = self._named.get(name.casefold(), [])
        if len(files) > 1:
            raise RowRefused("bad_path", f"{name} may mean {files[0]} or {files[1]}; expected its path below the root")
        self.by_name += len(files)
        return files[0] if files else None
