"""Calibration by temperature scaling: one temperature per classifier, fitted on validation patients, then fixed.

Temperature scaling after Guo et al. 2017 (https://arxiv.org/abs/1706.04599): all logits are divided by one number. It
cannot reorder the scans of a label with a sigmoid of its own, and it cannot correct a wrong prevalence; a slope and an
intercept on test patients show what is left.
"""

import numpy as np
from scipy.special import expit, softmax

CLIP = 1e-6  # a probability of 0 or 1 has no logit; kNN gives such
LIMIT = 20.0  # temperatures stay between its inverse and itself


def logit(p: np.ndarray) -> np.ndarray:
    """Return log(p / (1 - p)) of probabilities clipped to [CLIP, 1 - CLIP]; any shape."""
    clipped = np.clip(np.asarray(p, np.float64), CLIP, 1 - CLIP)
    found: np.ndarray = np.log(clipped / (1 - clipped))
    return found


def probabilities(logits: np.ndarray, exclusive: bool) -> np.ndarray:
    """Return the probability of each label, [N, L], of logits [N, L]; one softmax over labels that are `exclusive`."""
    found: np.ndarray = softmax(logits, axis=1) if exclusive else expit(logits)
    return found


def at_temperature(p: np.ndarray, temperature: float, exclusive: bool) -> np.ndarray:
    """Return the probabilities [N, L] with all logits divided by `temperature`; above 1 they move towards one half.

    Args:
        p: float [N, L]; rows sum to 1 where `exclusive`.
        exclusive: one softmax over the labels, in place of one sigmoid each.
    """
    found: np.ndarray
    found = softmax(np.log(np.clip(p, CLIP, 1)) / temperature, axis=1) if exclusive else expit(logit(p) / temperature)
    return found


def fit_temperature(truth: np.ndarray, p: np.ndarray, exclusive: bool) -> float | None:
    """Return the temperature at which the log loss over all known cells is lowest; one for all labels.

    One number for all, as there are few validation patients; the scans of labels with many cells weigh more.

    Args:
        truth: float [N, L], NaN where missing; p: float [N, L].

    Returns:
        Between 1 / LIMIT and LIMIT (a limit where scores are uninformative, or separate the classes); None where no
        cell is known or all known cells are of one class.
    """
    known = ~np.isnan(truth)
    if len(np.unique(truth[known])) < 2:
        return None
    if exclusive:
        logits, right = np.log(np.clip(p, CLIP, 1)), truth.argmax(1)
        observed = logits[np.arange(len(right)), right].mean()

        def slope(beta: float) -> float:
            return float((softmax(beta * logits, axis=1) * logits).sum(1).mean() - observed)

    else:
        margin = np.where(truth[known] == 1, 1, -1) * logit(p[known])  # positive on the right side

        def slope(beta: float) -> float:
            return -float((margin * expit(-beta * margin)).mean())

    # The loss is convex in the inverse temperature: its derivative has one root, or the optimum is a limit.
    if slope(1 / LIMIT) >= 0:
        return LIMIT
    if slope(LIMIT) <= 0:
        return 1 / LIMIT
    from scipy.optimize import brentq  # 0.1 s, which the report does without

    return float(1 / brentq(slope, 1 / LIMIT, LIMIT, xtol=1e-13))


def log_loss(truth: np.ndarray, p: np.ndarray, exclusive: bool) -> float:
    """Return the mean log loss in nats over known cells of [N, L], or over scans where labels exclude each other."""
    clipped = np.clip(p, CLIP, 1 - CLIP)
    if exclusive:
        return -float(np.log(clipped[np.arange(len(p)), truth.argmax(1)]).mean())
    return -float(np.nanmean(truth * np.log(clipped) + (1 - truth) * np.log(1 - clipped)))


def calibration_of(truth: np.ndarray, p: np.ndarray, exclusive: bool, patients: int) -> dict[str, object]:
    """Return what classifier.json holds under `calibration`: the temperature, and what it was fitted on.

    Args:
        truth, p: of the validation scans, [N, L].
        patients: number of patients of these scans.
    """
    temperature = fit_temperature(truth, p, exclusive)
    metadata: dict[str, object] = {"temperature": temperature, "from": "val", "n_patients": patients, "n_scans": len(p)}
    if temperature is not None:
        after = at_temperature(p, temperature, exclusive)
        metadata["log_loss"] = {"before": log_loss(truth, p, exclusive), "after": log_loss(truth, after, exclusive)}
    return metadata
