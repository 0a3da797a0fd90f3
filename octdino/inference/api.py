"""Python interface for notebooks: a model folder that takes paths, arrays or PIL images.

>>> import octdino
>>> model = octdino.load("results/phantom/model")
>>> model.predict("scan.png")[["label", "probability", "call"]]
"""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from octdino.errors import UserError
from octdino.inference.ensemble import Ensemble, load_ensemble
from octdino.inference.explanations import class_maps
from octdino.inference.input_listing import list_inputs
from octdino.inference.prediction_tables import tidy_table
from octdino.inference.scan_inputs import ScanInput
from octdino.scans.preprocess import DecodedScan, decode_scan

Picture = str | Path | np.ndarray | Image.Image
Pictures = Picture | Sequence[Picture]


class Predictor:
    """One model folder, or several that predict together; `octdino.load` makes it.

    Images are paths (of files, folders, volumes or a CSV with a column `path`), arrays (uint8 or uint16 [H, W], uint8
    [H, W, 3], float [H, W] from 0 to 1) or PIL images; one, or a list of any of them. They are preprocessed as the
    training scans were.
    """

    def __init__(self, ensemble: Ensemble) -> None:
        self._ensemble = ensemble

    @property
    def labels(self) -> list[str]:
        """L names."""
        return list(self._ensemble.labels)

    def predict(self, images: Pictures) -> pd.DataFrame:
        """Return one row per scan and label, with the columns of predictions.csv.

        They are scan (number from 1), file, frame, patient, eye, label, calibrated probability, threshold, call,
        out_of_distribution (above 1: unlike the training scans) and flagged.

        Raises:
            UserError: an image cannot be read; names it and the reason.
        """
        scans, decoded = self._decode(images)
        return tidy_table(scans, list(range(len(scans))), self._ensemble, self._ensemble.outputs(decoded))

    def probabilities(self, images: Pictures) -> np.ndarray:
        """Return calibrated probabilities, float64 [N, L].

        Raises:
            UserError: as `predict`.
        """
        return self._ensemble.outputs(self._decode(images)[1]).probabilities

    def embed(self, images: Pictures) -> np.ndarray:
        """Return the pooled features of the first model's backbone, float32 [N, D].

        Raises:
            UserError: as `predict`.
        """
        return self._ensemble.first.outputs(self._decode(images)[1]).embeddings

    def explain(self, images: Pictures) -> np.ndarray:
        """Return one class map per scan and label of the first model: float32 [N, L, H, W] from 0 to 1.

        H, W are those of the preprocessed scan, `preprocess`.

        Raises:
            UserError: as `predict`; or the model's head has no maps.
        """
        return class_maps(self._ensemble.first, self._decode(images)[1])

    def preprocess(self, images: Pictures) -> np.ndarray:
        """Return the scans as the store would hold them, cropped and resized: uint8 [N, C, H, W].

        Raises:
            UserError: as `predict`.
        """
        return self._decode(images)[1]

    def _decode(self, images: Pictures) -> tuple[list[ScanInput], np.ndarray]:
        given: Sequence[Picture] = [images] if isinstance(images, Picture) else images
        scans: list[ScanInput] = []
        decoded: list[DecodedScan] = []
        for number, image in enumerate(given, 1):
            if isinstance(image, str | Path):
                listed = list_inputs([str(image)])
                for file, _, reason, detail in listed.refused:
                    raise UserError(f"{file}: {reason}: {detail}")
                scans += listed.scans
                decoded += listed.decode(list(range(len(listed.scans))), self._ensemble.image, workers=1)
            else:
                name = f"image {number}"
                source = {name: _encoded(image, name)}
                scans.append(ScanInput(name, name))
                decoded.append(decode_scan(name, self._ensemble.image, source.__getitem__))
        for scan, one in zip(scans, decoded, strict=True):
            if one.image is None:
                raise UserError(f"{scan.address}: {one.reason}: {one.detail}")
        if not scans:
            raise UserError("no image; expected at least one")
        return scans, np.stack([one.image for one in decoded if one.image is not None])


def load_predictor(*models: str | Path, precision: str = "float32") -> Predictor:
    """Read one model folder, or several that are to predict together.

    Raises:
        UserError: none is given, or see `load_ensemble`.
    """
    if not models:
        raise UserError("no model folder; expected at least one")
    return Predictor(load_ensemble([Path(model) for model in models], precision))


def _encoded(image: np.ndarray | Image.Image, name: str) -> bytes:
    """Return an image as an uncompressed file, so that it is checked and preprocessed as a file is."""
    if isinstance(image, np.ndarray):
        if image.ndim == 3 and image.shape[2] == 1:
            image = image[:, :, 0]
        kinds = {(2, "uint8"), (2, "uint16"), (3, "uint8"), (2, "float32"), (2, "float64")}
        if (image.ndim, image.dtype.name) not in kinds or (image.ndim == 3 and image.shape[2] != 3) or not image.size:
            raise UserError(
                f"{name}: array {image.dtype.name} {list(image.shape)}; expected uint8 or uint16 [H, W], uint8 "
                "[H, W, 3], or float [H, W] from 0 to 1"
            )
        image = Image.fromarray(image.astype(np.float32) if image.dtype.kind == "f" else np.ascontiguousarray(image))
    buffer = io.BytesIO()
    try:
        image.save(buffer, "TIFF")
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"{name}: an image of mode {image.mode}: {error}; expected gray, RGB or float") from None
    return buffer.getvalue()
