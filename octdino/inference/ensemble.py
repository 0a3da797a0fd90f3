"""Ensemble: one or several model folders that predict together, such as those of all folds or seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from octdino.config.cohort import ImageSettings
from octdino.errors import UserError
from octdino.inference.scan_model import Outputs, ScanModel, load_scan_model


@dataclass(frozen=True)
class Ensemble:
    """Models with the same labels and the same image settings; probabilities are the means of the calibrated ones."""

    models: list[ScanModel]

    @property
    def first(self) -> ScanModel:
        """The first model, whose embeddings and maps are taken."""
        return self.models[0]

    @property
    def labels(self) -> list[str]:
        """L names."""
        return self.first.labels

    @property
    def image(self) -> ImageSettings:
        """How an image file becomes a scan that the models take."""
        return self.first.metadata.input.image

    def thresholds(self) -> np.ndarray:
        """Return the decision thresholds, float64 [L], the mean over models; NaN where no model has one."""
        each = np.stack([model.thresholds() for model in self.models])
        known = ~np.isnan(each)
        count = known.sum(0)
        return np.where(count > 0, np.where(known, each, 0).sum(0) / np.maximum(count, 1), np.nan)

    def outputs(self, images: np.ndarray) -> Outputs:
        """Compute probabilities, calls, embeddings and distances of preprocessed scans, uint8 [N, C, H, W].

        Of several models all but the embeddings are means; calls are those of the mean probability at the mean
        threshold.
        """
        each = [model.outputs(images) for model in self.models]
        if len(each) == 1:
            return each[0]
        mean = np.mean([one.probabilities for one in each], axis=0)
        if self.first.metadata.exclusive:
            calls = mean.argmax(1)[:, None] == np.arange(len(self.labels))
        else:
            with np.errstate(invalid="ignore"):
                calls = mean >= self.thresholds()
        return Outputs(
            raw=np.mean([one.raw for one in each], axis=0),
            probabilities=mean,
            calls=calls,
            embeddings=each[0].embeddings,
            out_of_distribution=np.mean([one.out_of_distribution for one in each], axis=0),
        )


def load_ensemble(folders: Sequence[Path], precision: str = "float32") -> Ensemble:
    """Read model folders that are to predict together.

    Raises:
        UserError: see `load_scan_model`; or the folders differ in labels or image settings.
    """
    models = [load_scan_model(folder, precision) for folder in folders]
    first = models[0].metadata
    for model in models[1:]:
        other = model.metadata
        for what, ours, theirs in (
            ("labels", first.labels, other.labels),
            ("exclusive", first.exclusive, other.exclusive),
            ("image settings", first.input.image, other.input.image),
        ):
            if ours != theirs:
                raise UserError(f"{model.folder}: {what} {theirs}; expected {ours}, as in {models[0].folder}")
    return Ensemble(models)
