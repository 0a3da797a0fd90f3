"""Density of training features, to find scans that are unlike the training cohort.

Probabilistic principal components (Tipping & Bishop 1999, https://doi.org/10.1111/1467-9868.00196): a Gaussian whose
covariance is that of the data in the leading directions and isotropic in all others. The squared Mahalanobis distance
to it is what Lee et al. 2018 (https://arxiv.org/abs/1807.03888) use to find inputs out of distribution, here without
classes, as scans without labels take part.
"""

from dataclasses import dataclass

import numpy as np

MOST_COMPONENTS = 64
SCANS_PER_COMPONENT = 4  # a variance of fewer scans is mostly noise


@dataclass(frozen=True)
class FeatureDensity:
    """A Gaussian of features [D] with K leading directions.

    Attributes:
        mean, scale: [D]; features are standardized by them first.
        components: [K, D], orthonormal rows.
        variances: [K], of standardized features along the components.
        noise: variance in every other direction.
    """

    mean: np.ndarray
    scale: np.ndarray
    components: np.ndarray
    variances: np.ndarray
    noise: float

    def distances(self, features: np.ndarray) -> np.ndarray:
        """Return the Mahalanobis distance of each row of features [N, D]: float64 [N]."""
        centered = (np.asarray(features, np.float64) - self.mean) / self.scale
        along = centered @ self.components.T
        rest = np.maximum((centered**2).sum(1) - (along**2).sum(1), 0)
        found: np.ndarray = np.sqrt((along**2 / self.variances).sum(1) + rest / self.noise)
        return found


def fit_density(features: np.ndarray) -> FeatureDensity:
    """Fit the density to the features of training scans [N, D]; a feature without variance keeps its scale."""
    features = np.asarray(features, np.float64)
    mean, spread = features.mean(0), features.std(0)
    scale = np.where(spread > 1e-6 * max(float(spread.max()), 1e-12), spread, 1.0)
    centered = (features - mean) / scale
    count, width = centered.shape
    kept = max(min(MOST_COMPONENTS, count // SCANS_PER_COMPONENT, width - 1), 1)
    _, singular, rows = np.linalg.svd(centered, full_matrices=False)
    variances = singular**2 / max(count - 1, 1)
    floor = 1e-6 * max(float(variances.max()), 1e-12)
    noise = max(float(variances[kept:].sum()) / max(width - kept, 1), floor)
    return FeatureDensity(mean, scale, rows[:kept], np.maximum(variances[:kept], noise), noise)


def accepting_threshold(distances: np.ndarray, patients: np.ndarray, share: float) -> float:
    """Return the smallest distance at or below which `share` of the scans lie, each patient weighing the same.

    Args:
        distances: [N]; patients: [N], the patient of each scan.
        share: in (0, 1].
    """
    _, place, count = np.unique(patients, return_inverse=True, return_counts=True)
    weight = 1 / count[place]
    order = np.argsort(distances, kind="stable")
    cumulative = np.cumsum(weight[order]) / weight.sum()
    return float(distances[order][np.searchsorted(cumulative, share - 1e-12)])
