"""Label efficiency and power against simulation: the interval holds the known truth, the counted patients suffice."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from octdino.config import EvaluateSettings
from octdino.evaluate import comparable_runs
from octdino.evaluate.classifier_runs import Key
from octdino.evaluate.label_efficiency import label_efficiency_table
from octdino.evaluate.metrics import ranking_metrics
from octdino.evaluate.power_table import power_table
from octdino.stats.bootstrap import p_value, resample_patients
from octdino.stats.label_efficiency import log_patients_needed

OWN, COMMON, SCANS = 0.6, 0.5, 4
TRAINED = np.array([21, 52, 105, 210])  # labeled training patients at 10, 25, 50 and 100 %
FRACTIONS = (0.1, 0.25, 0.5, 1.0)
SCALE = math.sqrt(2 * (1 + OWN**2 + COMMON**2))
SETTINGS = EvaluateSettings(resamples=400, reference="scratch-finetune")
SCRATCH = Key("scratch-finetune", "b", 1.0, 0)
DINO = Key("dino-linear", "b", 0.1, 0)


def expected_auroc(patients: np.ndarray) -> np.ndarray:
    """What training from scratch reaches: a power law, concave in the logarithm of the number."""
    return 0.9 - 0.8 / np.sqrt(np.asarray(patients, float))


def study(aurocs: np.ndarray, patients: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth [N], scores [arms, N] of these AUROCs in the population, and patient [N]; arms share part of their errors.

    A patient's scans share a shift, each scan has an error that all arms share, and one of each arm.
    """
    patient = np.repeat(np.arange(patients), rng.integers(SCANS // 2, 2 * SCANS, patients))
    truth = rng.random(len(patient)) < rng.beta(2, 3, patients)[patient]
    shared = rng.normal(0, OWN, patients)[patient] + rng.normal(0, COMMON, len(patient))
    own = rng.normal(0, 1, (len(aurocs), len(patient)))
    return truth, SCALE * norm.ppf(aurocs)[:, None] * truth + shared + own, patient


def resampled(aurocs: np.ndarray, patients: int, seed: int) -> tuple[comparable_runs.TestSet, np.ndarray]:
    """The test set of a study, and the AUROC of each arm in every resample, [arms, 1 + B]."""
    truth, scores, patient = study(aurocs, patients, np.random.default_rng(seed))
    weights = resample_patients(patients, SETTINGS.resamples, seed)
    test = comparable_runs.TestSet("0", ["a"], truth[:, None].astype(np.float32), patient, ["primary"])
    return test, np.stack([ranking_metrics(truth, score, patient, weights)[0] for score in scores])


@pytest.mark.slow
@pytest.mark.parametrize(("equals", "patients"), [(75, 60), (75, 100), (150, 60)])
def test_the_interval_of_equal_patients_holds_the_truth(equals: int, patients: int) -> None:
    """An arm with 21 patients that is as good as scratch with 75 or 150; each study samples a new test set."""
    studies = 1000
    aurocs = np.append(expected_auroc(TRAINED), expected_auroc(np.array(equals)))
    read = math.exp(log_patients_needed(TRAINED, aurocs[:-1, None], aurocs[-1:])[0])
    assert read == pytest.approx(equals, rel=0.02)  # what interpolation costs, without noise
    held = above = below = 0
    for number in range(studies):
        test, found = resampled(aurocs, patients, number)
        keys = [*(SCRATCH._replace(fraction=fraction) for fraction in FRACTIONS), DINO]
        table = label_efficiency_table(
            SETTINGS, test, "auroc", dict(zip(keys, found, strict=True)),
            dict(zip(FRACTIONS, map(int, TRAINED), strict=True)),
        )  # fmt: skip
        row = table.iloc[0]
        low = 0 if row["low_is"] == "fewer than" else row["low"] if row["low_is"] == "equal" else TRAINED[-1]
        high = math.inf if row["high_is"] == "more than" else row["high"]
        held += low <= equals <= high
        above += low > equals
        below += high < equals
    print(
        f"equals {equals}, {patients} test patients: {100 * held / studies:.1f} % of {studies}; "
        f"missed above {above}, below {below}"
    )
    assert held / studies == pytest.approx(0.95, abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("difference", [0.06, 0.08])
def test_the_counted_patients_show_the_difference_in_80_percent_of_studies(difference: float) -> None:
    """The number is counted from pilots of 60 test patients; the studies then have as many as their median says."""
    aurocs = np.array([0.75, 0.75 + difference])
    settings = SETTINGS.model_copy(update={"relevant_difference": difference})
    first, second = DINO._replace(arm="scratch-finetune"), DINO
    counted = []
    for number in range(100):
        test, found = resampled(aurocs, 60, 10_000 + number)
        row = power_table(settings, test, "auroc", {first: found[0], second: found[1]}, [(second, first)]).iloc[0]
        counted.append(row["n_needed"])
    patients, studies, shown = math.ceil(np.median(counted)), 1000, 0
    for number in range(studies):
        test, found = resampled(aurocs, patients, number)
        shown += float(p_value(found[1, 1:] - found[0, 1:], patients)) < 0.05
    print(
        f"difference {difference}: {patients} patients counted (middle half of pilots {np.quantile(counted, 0.25):.0f} "
        f"to {np.quantile(counted, 0.75):.0f}); shown in {100 * shown / studies:.1f} % of {studies} studies"
    )
    assert shown / studies == pytest.approx(0.8, abs=0.05)
