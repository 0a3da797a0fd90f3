"""Volume: the B-scans of one clinical file, read one at a time, and what its header says about them.

A header is checked against the limits below and the size of the file before anything is allocated, so that a file that
claims too much costs neither memory nor time. Names, birth dates and ids are in fields that `repr` leaves out; no
message of this package contains them.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import ParamSpec, TypeVar

import numpy as np

from octdino.errors import UserError, one_line
from octdino.scans.image_files import MAX_PIXELS, ImageError

MAX_FRAMES = 4096  # the densest cubes have 1024
MAX_VOLUME_BYTES = 2**33  # frames are read one at a time, so this bounds no memory
THICKNESS_MM = (0.02, 2.0)  # a central subfield outside is an error of the segmentation, or in another unit
# Ids that anonymizing software writes for everybody: they identify nobody.
PLACEHOLDERS = frozenset(
    {"", "unknown", "anonymous", "anonymized", "anonymised", "anonym", "none", "null", "n/a", "na", "nan", "id", "xxx"}
)

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class FrameInfo:
    """One B-scan of a file.

    Attributes:
        series: 1-based number of the volume in the file; most files have one.
        slice: 1-based position in that volume.
        laterality: OD, OS or None.
    """

    series: int
    slice: int
    laterality: str | None = None


@dataclass(frozen=True)
class SeriesInfo:
    """What a header says about one volume.

    Attributes:
        patient: identity of the patient, equal for equal patients; None if the header names nobody. Never to be shown.
        patient_id: the header's own id, or None. Shown only if the user asks for it.
        visit: date of the visit, YYYY-MM-DD, or None. Only its order is shown.
        device: manufacturer and model.
        cst: central subfield thickness in µm.
    """

    patient: str | None = field(default=None, repr=False)
    patient_id: str | None = field(default=None, repr=False)
    visit: str | None = field(default=None, repr=False)
    device: str | None = None
    cst: float | None = None


@dataclass(frozen=True)
class Volume:
    """The B-scans of a clinical file, without its fundus image.

    Attributes:
        path: the file.
        kind: name of the format.
        frames: one entry per B-scan.
        series: one entry per volume of the file; `FrameInfo.series` counts them from 1.
        parts: other files that belong to it, such as the images beside a HEYEX XML, the fundus image among them.
    """

    path: Path
    kind: str
    frames: tuple[FrameInfo, ...]
    series: tuple[SeriesInfo, ...]
    reader: Callable[[int], np.ndarray] = field(repr=False)
    parts: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if not self.frames:
            raise ImageError("no B-scan in the file")
        if len(self.frames) > MAX_FRAMES:
            raise ImageError(f"{len(self.frames):,} B-scans; expected at most {MAX_FRAMES:,}")

    @property
    def patient(self) -> str | None:
        """Identity of the first volume's patient, see `SeriesInfo`."""
        return self.series[0].patient

    @property
    def visit(self) -> str | None:
        """Date of the first volume's visit, see `SeriesInfo`."""
        return self.series[0].visit

    @property
    def device(self) -> str | None:
        """Manufacturer and model of the first volume's device."""
        return self.series[0].device

    @property
    def cst(self) -> float | None:
        """Central subfield thickness of the first volume, µm."""
        return self.series[0].cst

    def series_of(self, index: int) -> SeriesInfo:
        """Return what the header says about the volume of frame `index`."""
        return self.series[self.frames[index].series - 1]

    def read(self, index: int) -> np.ndarray:
        """Read frame `index` (from 0) as uint8 or uint16 [H, W].

        Raises:
            ImageError: no such frame, or its pixels are damaged.
            FileNotFoundError, PermissionError: as the file system says.
        """
        if not 0 <= index < len(self.frames):
            raise ImageError(f"no B-scan {index}; the file has 0 to {len(self.frames) - 1}")
        return guarded(self.reader, index)


def guarded(action: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call `action`; an error of a decoder becomes an ImageError of one line.

    Raises:
        ImageError: anything that libraries raise at damaged bytes.
        UserError, FileNotFoundError, PermissionError: unchanged.
    """
    try:
        return action(*args, **kwargs)
    except (ImageError, UserError, FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # pydicom's share no base class with others
        # The messages of libraries quote the header, which holds names.
        what = one_line(error) if isinstance(error, OSError) else type(error).__name__
        raise ImageError(f"damaged: {what}") from None


def check_frame(width: int, height: int) -> None:
    """Check the size of a frame as a header has it, before memory is taken for it.

    Raises:
        ImageError: an empty frame or one of more than `MAX_PIXELS`.
    """
    if width < 1 or height < 1 or width * height > MAX_PIXELS:
        raise ImageError(f"B-scans of {width} x {height} pixels; expected 1 to {MAX_PIXELS:,} in all")


def check_count(frames: int) -> None:
    """Check the number of B-scans as a header has it.

    Raises:
        ImageError: none, or more than `MAX_FRAMES`.
    """
    if not 1 <= frames <= MAX_FRAMES:
        raise ImageError(f"{frames:,} B-scans; expected 1 to {MAX_FRAMES:,}")


def read_span(path: Path, start: int, count: int) -> bytes:
    """Read `count` bytes from `start`.

    Raises:
        ImageError: the span leaves the file; then nothing is allocated.
    """
    if start < 0 or count < 0 or start + count > path.stat().st_size:
        raise ImageError(f"truncated: bytes {start:,} to {start + count:,} of {path.stat().st_size:,}")
    with path.open("rb") as file:
        file.seek(start)
        content = file.read(count)
    if len(content) != count:
        raise ImageError(f"truncated: {len(content):,} of {count:,} bytes")
    return content


def identity(number: str, name: str = "", birth: str = "") -> tuple[str | None, str | None]:
    """Return the identity of a patient and its own id: the id if there is one, else name and birth date."""
    number, name, birth = (" ".join(text.replace("\0", " ").split()) for text in (number, name, birth))
    if number.casefold().strip(" .-_0") not in PLACEHOLDERS:
        return f"id {number.casefold()}", number
    if name.casefold().strip(" .-_,^") not in PLACEHOLDERS:
        return f"name {name.casefold()} born {birth}", None
    return None, None


def device_name(*parts: str) -> str | None:
    """Return manufacturer and model as one short printable text."""
    text = " ".join(re.sub(r"[^\w ().+-]", " ", " ".join(parts)).split())[:60]
    return text or None


def thickness(millimeters: float) -> float | None:
    """Return a thickness in µm; None if it is none of a retina."""
    return round(millimeters * 1000, 1) if THICKNESS_MM[0] <= millimeters <= THICKNESS_MM[1] else None


def text_of(raw: bytes) -> str:
    """Return a zero-terminated text of a header."""
    return raw.split(b"\0")[0].decode("latin-1").strip()


def date_of(year: int, month: int, day: int) -> str | None:
    """Return a date as YYYY-MM-DD; None where it is none."""
    try:
        return date(year, month, day).isoformat() if year > 1900 else None
    except ValueError:
        return None


def date_of_ticks(ticks: int) -> str | None:
    """Return the date of a Windows time: 100 ns since 1601."""
    return date_of_days(ticks / 864_000_000_000, datetime(1601, 1, 1))


def date_of_days(days: float, start: datetime = datetime(1899, 12, 30)) -> str | None:
    """Return the date that is `days` after `start`, by default as spreadsheets count."""
    if not 1 <= days < 200_000:  # NaN too
        return None
    found = start + timedelta(days=days)
    return date_of(found.year, found.month, found.day)
