"""A copy of the world that is damaged and mended again, many times."""

import os
import shutil
from pathlib import Path

Stat = tuple[int, int, int]


class World:
    """A copy of the built files, which is the working directory; mended after each case."""

    def __init__(self, pristine: Path, root: Path) -> None:
        self.pristine, self.root = pristine, root
        shutil.copytree(pristine, root, symlinks=True)
        os.chdir(root)
        self.room: int | None = None
        self.known = self.snapshot()

    def snapshot(self) -> dict[str, Stat]:
        """Inode, size and time of every file and folder."""
        found = {}
        for folder, names, files in os.walk("."):
            for name in [*names, *files]:
                path = f"{folder}/{name}"[2:]
                status = os.lstat(path)
                folders = (status.st_ino, 0, 0)
                found[path] = folders if name in names else (status.st_ino, status.st_size, status.st_mtime_ns)
        return found

    def files(self, patterns: list[str]) -> list[str]:
        """The files that these patterns name, in order."""
        found = {path for pattern in patterns for path in self.root.glob(pattern) if path.is_file()}
        return sorted(path.relative_to(self.root).as_posix() for path in found if path.name != "lock")

    @staticmethod
    def differences(before: dict[str, Stat], after: dict[str, Stat]) -> list[str]:
        """What was made, removed or written."""
        return sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))

    def mend(self, now: dict[str, Stat]) -> None:
        """Bring everything back that differs."""
        changed = self.differences(self.known, now)
        for path in sorted(changed, reverse=True):
            here, there = Path(path), self.pristine / path
            if path in now and (path not in self.known or not there.is_dir() or here.is_symlink()):
                shutil.rmtree(path) if here.is_dir() and not here.is_symlink() else here.unlink(missing_ok=True)
        for path in changed:
            if path in self.known and (self.pristine / path).is_dir():
                Path(path).mkdir(exist_ok=True)
            elif path in self.known:
                shutil.copy2(self.pristine / path, path, follow_symlinks=False)
        self.known = self.snapshot()
