"""Check of an export: its outputs for noise and for structured scans against those of the model folder."""

from dataclasses import dataclass

import numpy as np

from octdino.errors import UserError
from octdino.inference.scan_model import Outputs, ScanModel

TOLERANCE = 1e-4  # of probabilities; of embeddings and distances relative to the largest
BATCHES = (1, 2, 7)
Arrays = dict[str, np.ndarray]  # field of `Outputs` to its value


def check_scans(channels: int, size: tuple[int, int]) -> np.ndarray:
    """Return scans with and without structure, uint8 [10, channels, height, width].

    Noise, ramps, stripes, bright bands like a retina's layers, a black and a white scan.
    """
    rng = np.random.default_rng(0)
    height, width = size
    y, x = np.linspace(0, 1, height)[:, None], np.linspace(0, 1, width)[None]
    structured = [
        255 * y + 0 * x,
        255 * x + 0 * y,
        np.where((np.arange(height)[:, None] + np.arange(width)) % 8 < 4, 30, 220),
        20 + 200 * np.exp(-(((y - 0.5 - 0.1 * np.sin(5 * x)) / 0.05) ** 2)),
        20 + 90 * np.exp(-(((y - 0.4 - 0.2 * x**2) / 0.1) ** 2)) + 40 * rng.random((height, width)),
        0 * x * y,
        255 + 0 * x * y,
    ]
    noise = rng.integers(0, 256, (3, channels, height, width))
    images = np.stack([np.repeat(image[None], channels, 0) for image in structured])
    scans: np.ndarray = np.concatenate([noise, np.rint(images)]).astype(np.uint8)
    return scans


@dataclass(frozen=True)
class OutputCheck:
    """Scans, and what the model computes for them.

    Attributes:
        scans: uint8 [N, C, H, W], of the store's size.
        expected: of `ScanModel.outputs`.
    """

    scans: np.ndarray
    expected: Outputs

    def compare(self, found: Arrays, start: int, what: str) -> None:
        """Check what an export computes for the scans from number `start` on.

        Raises:
            UserError: a value differs by more than TOLERANCE.
        """
        for name, values in found.items():
            wanted = getattr(self.expected, name)[start : start + len(values)]
            scale = 1.0 if name == "probabilities" else max(float(np.abs(wanted).max()), 1.0)
            difference = float(np.abs(values - wanted).max()) / scale
            if not difference <= TOLERANCE:  # NaN too
                raise UserError(
                    f"{what}: {name} of {len(values)} scans differ by {difference:.2g} from those of octdino; "
                    f"expected at most {TOLERANCE:g}, so nothing is written"
                )


def output_check(model: ScanModel) -> OutputCheck:
    """Return the check of an export of `model`."""
    image = model.metadata.input.image
    scans = check_scans(image.channels, image.size)
    return OutputCheck(scans, model.outputs(scans))
