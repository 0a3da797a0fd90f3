"""Scans to predict: where each is read from, and their preprocessing in blocks."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from octdino.config.cohort import ImageSettings
from octdino.data.cohort_reader import Cohort
from octdino.errors import UserError
from octdino.progress import progress
from octdino.scans.decode_pool import decode_scans
from octdino.scans.preprocess import DecodedScan
from octdino.scans.sources import FolderSource

BLOCK = 256  # scans that are in memory at a time


@dataclass(frozen=True)
class ScanInput:
    """One scan to predict.

    Attributes:
        address: where it is read from: a path, with #N for B-scan N of a volume; for a store, the scan's id.
        file: the file as it was named or found.
        frame: number of the B-scan in a volume; None for an image of one scan.
        patient, eye: as the table or the store says, or a running pseudonym and OD or OS by the header of a clinical
            file; empty where unknown.
    """

    address: str
    file: str
    frame: int | None = None
    patient: str = ""
    eye: str = ""


Refused = tuple[str, int | None, str, str]  # file, frame, reason, detail


@dataclass(frozen=True)
class Block:
    """Some scans after decoding.

    Attributes:
        places: of the accepted scans among all inputs.
        scans: the accepted scans.
        images: theirs, uint8 [n, C, H, W]; n may be 0.
        refused: the others.
    """

    places: list[int]
    scans: list[ScanInput]
    images: np.ndarray
    refused: list[Refused]


@dataclass
class ScanInputs:
    """All scans to predict, in order.

    Attributes:
        refused: files that cannot be listed.
        cohort: of a store; its scans are preprocessed already.
    """

    scans: list[ScanInput]
    refused: list[Refused] = field(default_factory=list)
    cohort: Cohort | None = None

    def decode(self, places: list[int], settings: ImageSettings, workers: int) -> Iterator[DecodedScan]:
        """Preprocess the scans at these places, in order; bad ones are returned with a reason.

        Raises:
            UserError: a store of other image settings.
        """
        if self.cohort is None:
            paths = [self.scans[place].address for place in places]
            return decode_scans(paths, FolderSource(Path()), settings, workers)
        if self.cohort.image != settings:
            raise UserError(f"{self.cohort.store}: image settings {self.cohort.image}; the model takes {settings}")
        return _stored(self.cohort, places)

    def blocks(
        self, settings: ImageSettings, workers: int, what: str, places: list[int] | None = None
    ) -> Iterator[Block]:
        """Preprocess the scans at these places (all by default) and yield them in blocks; progress is shown as `what`.

        Raises:
            UserError: as `decode`.
        """
        left = list(range(len(self.scans))) if places is None else places
        decoded = iter(progress(self.decode(left, settings, workers), len(left), what, "scan"))
        for start in range(0, len(left), BLOCK):
            own = left[start : start + BLOCK]
            found = list(zip(own, islice(decoded, len(own)), strict=True))
            good = [(place, one.image) for place, one in found if one.image is not None]
            images = [image for _, image in good]
            yield Block(
                places=[place for place, _ in good],
                scans=[self.scans[place] for place, _ in good],
                images=np.stack(images) if images else np.zeros((0, settings.channels, *settings.size), np.uint8),
                refused=[
                    (self.scans[place].file, self.scans[place].frame, one.reason, one.detail)
                    for place, one in found
                    if one.image is None
                ],
            )


def _stored(cohort: Cohort, places: list[int]) -> Iterator[DecodedScan]:
    for start in range(0, len(places), BLOCK):
        rows = np.asarray(places[start : start + BLOCK])
        for image in cohort.images(rows):
            yield DecodedScan(image, np.zeros((2, len(image))))
