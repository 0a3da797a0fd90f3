"""Parts of a long table on disk, so that a stopped command resumes where it was."""

import fcntl
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from octdino.data.atomic_files import replacing
from octdino.errors import UserError, one_line

log = logging.getLogger("octdino.inference")

Part = dict[str, pd.DataFrame]  # table by name


class PartFiles:
    """Numbered parts in a folder `state` of the output, one Parquet file per part and table.

    Parts of another fingerprint are deleted: other inputs, models or settings. The folder is locked while in use.

    Args:
        out: output folder of the command.
        fingerprint: plain values that the parts depend on.
    """

    def __init__(self, out: Path, fingerprint: dict[str, Any]) -> None:
        self.folder = out / "state"
        self._mark = hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode()).hexdigest()

    @contextmanager
    def locked(self) -> Iterator["PartFiles"]:
        """Hold the folder; remove parts of another command.

        Raises:
            UserError: another process writes there.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(f"{self.folder.parent}: another command writes its predictions there") from None
            mark = self.folder / "mark"
            if not mark.is_file() or mark.read_text() != self._mark:
                for path in self.folder.glob("part-*"):
                    path.unlink()
                with replacing(mark) as temporary:
                    temporary.write_text(self._mark)
            yield self

    def has(self, number: int) -> bool:
        """Return whether a part is complete."""
        return self._last(number).is_file()

    def write(self, number: int, part: Part) -> None:
        """Write the tables of a part; it is complete once all of them are there."""
        for name, table in part.items():
            with replacing(self._path(number, name)) as temporary:
                table.to_parquet(temporary, index=False, write_page_checksum=True)
        self._last(number).touch()

    def read(self, number: int, name: str) -> pd.DataFrame:
        """Return one table of a complete part.

        Raises:
            UserError: it is damaged.
        """
        path = self._path(number, name)
        try:
            table: pd.DataFrame = pq.read_table(path, page_checksum_verification=True).to_pandas()
        except (
            OSError,
            ValueError,
            TypeError,
            KeyError,
            OverflowError,
        ) as error:  # as pyarrow has them
            raise UserError(f"{path}: damaged: {one_line(error)}; delete {self.folder} and run again") from None
        return table

    def discard(self) -> None:
        """Delete the folder, after the parts were joined."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, number: int, name: str) -> Path:
        return self.folder / f"part-{number:06d}-{name}.parquet"

    def _last(self, number: int) -> Path:
        return self.folder / f"part-{number:06d}-complete"


def file_state(path: str) -> list[Any]:
    """Return size and modification time of a file, which change with its content; empty where there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116  called for every file
    except OSError:
        return []
    return [found.st_size, found.st_mtime_ns]
