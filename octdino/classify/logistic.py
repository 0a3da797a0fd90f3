"""Logistic regressions on one set of features, all labels and all penalties in one batched optimization (L-BFGS).

L-BFGS (Nocedal & Wright 2006, algorithm 7.4) on many problems side by side: each step of all of them is two matrix
products. The variables are the coefficients along the principal axes of the features, scaled by an upper bound of the
curvature (Boehning 1992, https://doi.org/10.1007/BF00048682), so that collinear features, which slow solvers down by
hundreds of steps, cost nothing.
"""

from collections.abc import Callable

import numpy as np

MEMORY = 10  # steps that a direction is built from
MAX_STEPS = 1000
TOLERANCE = 1e-8  # gradient, as share of the first one: in the scaled variables all are of one size

# From points [G, n] and the problems [G] that they are of, to values [G] and gradients [G, n].
Objective = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
Steps = list[tuple[np.ndarray, np.ndarray, np.ndarray]]  # change of point, change of gradient, 1 / their product


class Regressions:
    """Regressions on shared features; the loss is C * sum(weight * cross-entropy) + |w|^2 / 2, w without the bias.

    Args:
        features: float64 [N, D].
        penalties: C, one per problem, float64 [G].
        curvature: the largest second derivative of a scan's loss by a logit: 1/4 of a sigmoid, 1/2 of a softmax; times
            the largest weight.
    """

    def __init__(self, features: np.ndarray, penalties: np.ndarray, curvature: float) -> None:
        squared, self._axes = np.linalg.eigh(features.T @ features)
        self._inputs = np.column_stack([features @ self._axes, np.ones(len(features))])  # [N, D + 1], 1 for the bias
        bound = curvature * penalties[:, None] * np.append(squared.clip(min=0), len(features))
        self._penalized = np.append(np.ones_like(squared), 0.0)
        self._scale = 1 / np.sqrt(bound + self._penalized)  # [G, D + 1]
        self._penalties = penalties

    def sigmoid(self, truth: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Fit one regression per problem: truth and scan weights, each [G, N], to weight [G, D] and bias [G]."""
        weight = weight * self._penalties[:, None]

        def objective(points: np.ndarray, problems: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            coefficients = points * self._scale[problems]
            logits = coefficients @ self._inputs.T  # [g, N]
            y, w = truth[problems], weight[problems]
            small = np.exp(-np.abs(logits))  # cannot overflow
            loss = (w * (np.maximum(logits, 0) + np.log1p(small) - y * logits)).sum(1)
            predicted = np.where(logits >= 0, 1, small) / (1 + small)
            gradient = (w * (predicted - y)) @ self._inputs
            return self._penalize(loss, gradient, coefficients, problems)

        found = minimize(objective, np.zeros_like(self._scale)) * self._scale
        return found[:, :-1] @ self._axes.T, found[:, -1]

    def softmax(self, classes: np.ndarray, weight: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Fit one multinomial regression per problem: int64 [N] and weights [N] to weight [G, K, D] and bias [G, K]."""
        scans = np.arange(len(classes))

        def objective(points: np.ndarray, problems: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            coefficients = points.reshape(len(points), count, -1) * self._scale[problems, None]
            logits = coefficients @ self._inputs.T  # [g, K, N]
            logits -= logits.max(1, keepdims=True)
            of_truth = logits[:, classes, scans]  # [g, N]
            predicted = np.exp(logits, out=logits)
            total = predicted.sum(1, keepdims=True)
            w = weight * self._penalties[problems, None]  # [g, N]
            loss = (w * (np.log(total[:, 0]) - of_truth)).sum(1)
            predicted /= total
            predicted[:, classes, scans] -= 1
            gradient = (w[:, None] * predicted) @ self._inputs
            return self._penalize(loss, gradient, coefficients, problems)

        found = minimize(objective, np.zeros((len(self._scale), count * self._scale.shape[1])))
        found = found.reshape(len(found), count, -1) * self._scale[:, None]
        return found[..., :-1] @ self._axes.T, found[..., -1]

    def _penalize(
        self, loss: np.ndarray, gradient: np.ndarray, coefficients: np.ndarray, problems: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        penalized = coefficients * self._penalized
        scale = self._scale[problems].reshape(len(problems), *[1] * (gradient.ndim - 2), -1)
        flat = penalized.reshape(len(problems), -1)
        return loss + np.vecdot(flat, flat) / 2, ((gradient + penalized) * scale).reshape(flat.shape)


def minimize(objective: Objective, start: np.ndarray) -> np.ndarray:
    """Return the minima of convex problems, solved side by side from `start` [G, n]; finished ones leave the batch."""
    result, problems = start.copy(), np.arange(len(start))
    points = start
    value, gradient = objective(points, problems)
    enough = TOLERANCE * np.linalg.norm(gradient, axis=1)
    steps: Steps = []
    for _ in range(MAX_STEPS):
        going = np.flatnonzero(np.linalg.norm(gradient, axis=1) > enough)
        if len(going) < len(problems):
            result[problems] = points
            problems, points, value, gradient, enough = (x[going] for x in (problems, points, value, gradient, enough))
            steps = [(s[going], y[going], r[going]) for s, y, r in steps]
        if not len(problems):
            break
        direction = -_times_curvature(gradient, steps)
        moved, value, new = _search(objective, problems, points, value, gradient, direction)
        change, turn = moved - points, new - gradient
        product = np.vecdot(change, turn)
        inverse = np.divide(1, product, out=np.zeros_like(product), where=product > 0)  # 0: such a step is not used
        steps = [*steps[1 - MEMORY :], (change, turn, inverse)]
        stuck = (change == 0).all(1)  # no further down in these numbers
        enough = np.where(stuck, np.inf, enough)
        points, gradient = moved, new
    result[problems] = points
    return result


def _times_curvature(gradient: np.ndarray, steps: Steps) -> np.ndarray:
    """Return the estimated inverse Hessian times the gradient: the two-loop recursion of L-BFGS."""
    q, shares = gradient.copy(), []
    for change, turn, inverse in reversed(steps):
        share = inverse * np.vecdot(change, q)
        q -= share[:, None] * turn
        shares.append(share)
    if steps:
        _, turn, inverse = steps[-1]
        size = np.divide(1, inverse * np.vecdot(turn, turn), out=np.ones_like(inverse), where=inverse > 0)
        q *= size[:, None]
    for (change, turn, inverse), share in zip(steps, reversed(shares), strict=True):
        q += (share - inverse * np.vecdot(turn, q))[:, None] * change
    return q


def _search(
    objective: Objective,
    problems: np.ndarray,
    points: np.ndarray,
    value: np.ndarray,
    gradient: np.ndarray,
    direction: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Backtracking line search (Armijo's rule) per problem; return point, value and gradient there."""
    slope = np.vecdot(gradient, direction)
    size = np.ones_like(value)
    moved = points + direction
    new_value, new_gradient = objective(moved, problems)
    for _ in range(30):
        high = np.flatnonzero(~(new_value <= value + 1e-4 * size * slope))
        if not len(high):
            return moved, new_value, new_gradient
        size[high] /= 2
        moved[high] = points[high] + size[high, None] * direction[high]
        new_value[high], new_gradient[high] = objective(moved[high], problems[high])
    moved[high], new_value[high], new_gradient[high] = points[high], value[high], gradient[high]
    return moved, new_value, new_gradient
