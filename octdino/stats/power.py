"""Power: how many test patients would show a difference, from the bootstrap standard error of the difference."""

import math

from scipy.special import ndtr, ndtri


def patients_for_power(
    patients: int, error: float, difference: float, power: float, level: float, constant_error: float = 0.0
) -> float:
    """Return the number of test patients with which a two-sided test shows a difference with this power.

    The standard error of a paired difference falls with the square root of the number of patients. A normal
    approximation; half the squared quantile is added, because the test of few patients has Student's quantiles
    (Guenther 1981, "Sample size formulas for normal theory t tests", The American Statistician 35, 243-244).

    Args:
        patients: number of test patients of the standard error.
        error: standard error of the difference over patients, in the unit of the metric.
        difference: the true difference that is to be shown, above 0, in the same unit.
        power: probability of showing it, a share between 0 and 1.
        level: two-sided significance level of the test, a share.
        constant_error: standard error that more patients do not reduce, such as that between seeds.

    Returns:
        Not rounded; infinite where the constant error alone makes the power impossible, NaN for an unknown error.
    """
    if math.isnan(error):
        return math.nan
    quantile = float(ndtri(1 - level / 2))
    allowed = (difference / (quantile + float(ndtri(power)))) ** 2 - constant_error**2
    if allowed <= 0:
        return math.inf
    return patients * error**2 / allowed + quantile**2 / 2


def power_of(error: float, difference: float, level: float) -> float:
    """Return the power of a two-sided test at this standard error and true difference, by a normal approximation.

    Args:
        error, difference: in the unit of the metric.
        level: significance level, a share.
    """
    if math.isnan(error):
        return math.nan
    if error == 0:
        return 1.0
    quantile, effect = float(ndtri(1 - level / 2)), difference / error
    return float(ndtr(effect - quantile) + ndtr(-effect - quantile))
