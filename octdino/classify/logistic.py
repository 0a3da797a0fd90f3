"""Logistic regressions on one set of features, all labels and all penalties in one batched optimization (L-BFGS).

L-BFGS (Nocedal & Wright 2006, algorithm 7.4) on many problems side by side: each step of all of them is two matrix
products. The variables are the coefficients along the principal axes of the features, scaled by an upper bound of the
curvature (Boehning 1992, https://doi.org/10.1007/BF00048682), so that collinear features, which slow solvers down by
hundreds of steps, cost nothing.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

MEMORY = 10  # steps that a direction is built from
MAX_STEPS = 1000
TOLERANCE = 1e-8  # gradient, as share of the first one: in the scaled variables all are of one size

Objective = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # points [G, n], problems [G] to values [G], gradients


class Regressions:
    """Regressions on shared features; the loss is C * sum(weight * cross-entropy) + |w|^2 / 2, w without the bias.

    Args:
        features: float64 [N, D].
        penalties: C, one per problem, float64 [G].
        curvature: the largest second derivative of a scan's loss by a logit: 1/4 of a sigmoid, 1/2 of a softmax; times
            the largest weight.
    """

    def __init__(self, features: Tensor, penalties: Tensor, curvature: float) -> None:
        squared, self._axes = torch.linalg.eigh(features.T @ features)
        self._inputs = F.pad(features @ self._axes, (0, 1), value=1.0)  # [N, D + 1], a column of ones for the bias
        bound = curvature * penalties[:, None] * F.pad(squared.clamp(min=0), (0, 1), value=float(len(features)))
        self._penalized = F.pad(torch.ones_like(squared), (0, 1))
        self._scale = (bound + self._penalized).rsqrt()  # [G, D + 1]
        self._penalties = penalties

    def sigmoid(self, truth: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Fit one regression per problem: truth and scan weights, each [N, G], to weight [G, D] and bias [G]."""

        def objective(points: Tensor, problems: Tensor) -> tuple[Tensor, Tensor]:
            coefficients = points * self._scale[problems]
            logits = self._inputs @ coefficients.T
            y, w = truth[:, problems], weight[:, problems] * self._penalties[problems]
            loss = (w * (F.softplus(logits) - y * logits)).sum(0)
            gradient = (w * (torch.sigmoid(logits) - y)).T @ self._inputs
            return self._penalize(loss, gradient, coefficients, problems)

        found = minimize(objective, torch.zeros_like(self._scale)) * self._scale
        return found[:, :-1] @ self._axes.T, found[:, -1]

    def softmax(self, classes: Tensor, weight: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Fit one multinomial regression per problem: int64 [N] and weights [N] to weight [G, K, D] and bias [G, K]."""
        y = F.one_hot(classes, count).double()  # [N, K]

        def objective(points: Tensor, problems: Tensor) -> tuple[Tensor, Tensor]:
            coefficients = points.view(len(points), count, -1) * self._scale[problems, None]
            logits = torch.einsum("nd,gkd->ngk", self._inputs, coefficients)
            w = weight[:, None] * self._penalties[problems]
            loss = (w * (logits.logsumexp(-1) - (y[:, None] * logits).sum(-1))).sum(0)
            residual = w[..., None] * (logits.softmax(-1) - y[:, None])
            gradient = torch.einsum("ngk,nd->gkd", residual, self._inputs)
            return self._penalize(loss, gradient, coefficients, problems)

        start = torch.zeros(len(self._scale), count * self._scale.shape[1], dtype=torch.float64)
        found = minimize(objective, start).view(len(start), count, -1) * self._scale[:, None]
        return found[..., :-1] @ self._axes.T, found[..., -1]

    def _penalize(
        self, loss: Tensor, gradient: Tensor, coefficients: Tensor, problems: Tensor
    ) -> tuple[Tensor, Tensor]:
        penalized = coefficients * self._penalized
        scale = self._scale[problems].view(len(problems), *[1] * (gradient.ndim - 2), -1)
        return loss + (penalized**2).flatten(1).sum(1) / 2, ((gradient + penalized) * scale).flatten(1)


def minimize(objective: Objective, start: Tensor) -> Tensor:
    """Return the minima of convex problems, solved side by side from `start` [G, n]; finished ones leave the batch."""
    result, problems = start.clone(), torch.arange(len(start))
    points = start
    value, gradient = objective(points, problems)
    enough = TOLERANCE * gradient.norm(dim=1)
    steps: list[tuple[Tensor, Tensor, Tensor]] = []  # change of point, change of gradient, 1 / their product
    for _ in range(MAX_STEPS):
        going = (gradient.norm(dim=1) > enough).nonzero()[:, 0]
        if len(going) < len(problems):
            result[problems] = points
            problems, points, value, gradient, enough = (x[going] for x in (problems, points, value, gradient, enough))
            steps = [(s[going], y[going], r[going]) for s, y, r in steps]
        if not len(problems):
            break
        direction = -_times_curvature(gradient, steps)
        moved, value, new = _search(objective, problems, points, value, gradient, direction)
        change, turn = moved - points, new - gradient
        product = (change * turn).sum(1)
        inverse = torch.where(product > 0, 1 / product, 0.0)  # 0: such a step is not used
        steps = [*steps[1 - MEMORY :], (change, turn, inverse)]
        stuck = (change == 0).all(1)  # no further down in these numbers
        enough = torch.where(stuck, torch.inf, enough)
        points, gradient = moved, new
    result[problems] = points
    return result


def _times_curvature(gradient: Tensor, steps: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """Return the estimated inverse Hessian times the gradient: the two-loop recursion of L-BFGS."""
    q, shares = gradient.clone(), []
    for change, turn, inverse in reversed(steps):
        share = inverse * (change * q).sum(1)
        q -= share[:, None] * turn
        shares.append(share)
    if steps:
        _, turn, inverse = steps[-1]
        size = torch.where(inverse > 0, 1 / (inverse * (turn**2).sum(1)), 1.0)
        q *= size[:, None]
    for (change, turn, inverse), share in zip(steps, reversed(shares), strict=True):
        q += (share - inverse * (turn * q).sum(1))[:, None] * change
    return q


def _search(
    objective: Objective, problems: Tensor, points: Tensor, value: Tensor, gradient: Tensor, direction: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Backtracking line search (Armijo's rule) per problem; return point, value and gradient there."""
    slope = (gradient * direction).sum(1)
    size = torch.ones_like(value)
    moved = points + direction
    new_value, new_gradient = objective(moved, problems)
    for _ in range(30):
        high = (~(new_value <= value + 1e-4 * size * slope)).nonzero()[:, 0]
        if not len(high):
            return moved, new_value, new_gradient
        size[high] /= 2
        moved[high] = points[high] + size[high, None] * direction[high]
        new_value[high], new_gradient[high] = objective(moved[high], problems[high])
    moved[high], new_value[high], new_gradient[high] = points[high], value[high], gradient[high]
    return moved, new_value, new_gradient
