"""What the page and its JSON interface return for an uploaded file: labels, pictures, class maps, nearest scans."""

import base64
import io
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import Any, Protocol

import numpy as np
from matplotlib import colormaps
from PIL import Image

from octdino.errors import UserError
from octdino.inference.ensemble import Ensemble
from octdino.inference.explanations import STRONGEST, class_maps
from octdino.inference.gallery import encoded
from octdino.inference.neighbors import Gallery
from octdino.inference.scan_model import Outputs
from octdino.inference.uploads import Upload, UploadedScan, uploaded_scans

BLOCK = 16  # scans between two looks at the time and at whether the client is still there
MOST_SCANS = 512  # of one request
MOST_SECONDS = 600.0  # for the scans of one request
NEIGHBORS = 5  # per scan
LAYER_SIDE, LAYER_LEVELS = 64, 64  # of an overlay; the page enlarges it smoothly

Near = tuple[str, str | None, float]  # caption; data URL of a JPEG, or None where the file is gone; similarity


class NearestScans(Protocol):
    """Finds the scans of a gallery that are most similar to new scans."""

    def nearest(self, embeddings: np.ndarray, k: int) -> list[list[Near]]:
        """Return the k most similar scans of each of N, the most similar first, for embeddings float32 [N, D]."""


class GalleryNeighbors:
    """`NearestScans` of an embeddings.h5."""

    def __init__(self, gallery: Gallery) -> None:
        self._gallery = gallery
        self._picture = lru_cache(maxsize=1024)(self._encoded)  # B-scans of one volume have the same neighbors

    def nearest(self, embeddings: np.ndarray, k: int) -> list[list[Near]]:
        """See `NearestScans`."""
        return [
            [(self._gallery.caption(one.place), self._picture(one.place), one.similarity) for one in near]
            for near in self._gallery.nearest(embeddings, k)
        ]

    def _encoded(self, place: int) -> str | None:
        picture = self._gallery.picture(place)
        return None if picture is None else encoded(picture)


class Stopped(Exception):  # noqa: N818  it is an outcome
    """The client has gone, the server ends, or the time is over."""


@dataclass
class Progress:
    """Bounds of one request: asked after every block of scans.

    Attributes:
        stopped: returns whether nobody waits for the result any more.
        scans: that were computed.
    """

    stopped: Callable[[], bool]
    deadline: float = field(default_factory=lambda: time.monotonic() + MOST_SECONDS)
    scans: int = 0

    def check(self) -> None:
        """Raise Stopped if the request is not to go on."""
        if self.stopped():
            raise Stopped("nobody waits for the result")
        if time.monotonic() > self.deadline:
            raise Stopped(f"more than {MOST_SECONDS:.0f} s; use octdino predict for many scans")


@dataclass(frozen=True)
class Computation:
    """The model of the server with what else is computed per scan.

    Attributes:
        no_maps: why the model has no class maps; None if it has.
        neighbors: None without a gallery.
    """

    ensemble: Ensemble
    no_maps: str | None
    neighbors: NearestScans | None = None

    def result(self, uploads: Sequence[Upload], pictures: bool, progress: Progress) -> dict[str, Any]:
        """Return the JSON value of one request.

        Args:
            pictures: with scans, class maps and nearest scans as data URLs.

        Raises:
            Stopped: see `Progress`.
        """
        return {
            **labels_of(self.ensemble),
            "files": [self._file(upload, pictures, progress) for upload in uploads],
        }

    def _file(self, upload: Upload, pictures: bool, progress: Progress) -> dict[str, Any]:
        scans: list[dict[str, Any]] = []
        refused: list[dict[str, Any]] = []
        decoded = uploaded_scans(upload, self.ensemble.image, MOST_SCANS - progress.scans)
        with closing(decoded):  # which removes its private file, also when the loop ends early
            for block in _blocks(decoded):
                progress.check()
                good = [(scan.frame, scan.decoded.image) for scan in block if scan.decoded.image is not None]
                refused += [
                    {"frame": scan.frame, "reason": scan.decoded.reason, "detail": scan.decoded.detail}
                    for scan in block
                    if scan.decoded.image is None
                ]
                if good:
                    scans += self._scans([frame for frame, _ in good], np.stack([image for _, image in good]), pictures)
                    progress.scans += len(good)
        volume = any(scan["frame"] is not None for scan in (*scans, *refused))
        summary = summary_of(self.ensemble.labels, scans) if volume else None
        return {"file": upload.name, "scans": scans, "refused": refused, "summary": summary}

    def _scans(self, frames: list[int | None], images: np.ndarray, pictures: bool) -> list[dict[str, Any]]:
        outputs = self.ensemble.outputs(images)
        found = [_values(frame, outputs, row) for row, frame in enumerate(frames)]
        if not pictures:
            return found
        maps = None if self.no_maps else class_maps(self.ensemble.first, images)
        near = self.neighbors.nearest(outputs.embeddings, NEIGHBORS) if self.neighbors else None
        for row, scan in enumerate(found):
            scan["picture"] = encoded(images[row])
            scan["overlays"] = None if maps is None else [layer(each) for each in maps[row]]
            scan["neighbors"] = None if near is None else [
                {"caption": caption, "picture": picture, "similarity": similarity}
                for caption, picture, similarity in near[row]
            ]  # fmt: skip
        return found


def reason_without_maps(ensemble: Ensemble) -> str | None:
    """Return why a model has no class maps, None if it has."""
    try:
        class_maps(ensemble.first, np.zeros((1, ensemble.image.channels, *ensemble.image.size), np.uint8))
    except UserError as error:
        return str(error)
    return None


def labels_of(ensemble: Ensemble) -> dict[str, Any]:
    """Return labels, whether they exclude each other, and the thresholds of calibrated probabilities."""
    thresholds = [None if np.isnan(value) else float(value) for value in ensemble.thresholds()]
    return {"labels": ensemble.labels, "exclusive": ensemble.first.metadata.exclusive, "thresholds": thresholds}


def _blocks(scans: Generator[UploadedScan, None, None]) -> Iterator[list[UploadedScan]]:
    while block := list(islice(scans, BLOCK)):
        yield block


def _values(frame: int | None, outputs: Outputs, row: int) -> dict[str, Any]:
    distance = float(outputs.out_of_distribution[row])
    return {
        "frame": frame,
        "probabilities": outputs.probabilities[row].tolist(),
        "calls": outputs.calls[row].tolist(),
        "out_of_distribution": distance,
        "flagged": distance > 1,
    }


def summary_of(labels: list[str], scans: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one entry per label with the columns of volumes.csv and `highest_frame`.

    As there, scans unlike the training scans are counted and left out of the others; values are None without a scan.
    """
    kept = [scan for scan in scans if not scan["flagged"]]
    found = []
    for index, label in enumerate(labels):
        values = [(scan["probabilities"][index], scan["frame"]) for scan in kept]
        highest, frame = max(values, key=lambda value: value[0], default=(None, None))
        found.append(
            {
                "label": label, "n_scans": len(scans), "n_flagged": len(scans) - len(kept),
                "mean_probability": float(np.mean([value for value, _ in values])) if values else None,
                "highest_probability": highest, "highest_frame": frame,
                "n_called": sum(scan["calls"][index] for scan in kept),
            }
        )  # fmt: skip
    return found


def layer(class_map: np.ndarray) -> str:
    """Return a class map [H, W] from 0 to 1 as the data URL of a PNG whose opacity and color follow the map.

    Laid over its scan and enlarged, it looks as `octdino.inference.explanations.overlay`. It has a palette and a small
    size, so that those of all labels of a volume fit into one answer.
    """
    levels = np.linspace(0, 1, LAYER_LEVELS)
    whole = Image.fromarray(np.asarray(class_map, np.float32))
    small = np.asarray(whole.resize((LAYER_SIDE, LAYER_SIDE), Image.Resampling.BILINEAR))
    picture = Image.fromarray(np.rint(small.clip(0, 1) * (LAYER_LEVELS - 1)).astype(np.uint8))
    picture.putpalette(np.rint(np.asarray(colormaps["inferno"](levels))[:, :3] * 255).astype(np.uint8).tobytes())
    buffer = io.BytesIO()
    opacity = np.rint(255 * STRONGEST * levels).astype(np.uint8).tobytes()
    picture.save(buffer, "PNG", transparency=opacity, optimize=False, bits=8)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
