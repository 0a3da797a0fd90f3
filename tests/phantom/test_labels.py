"""The phantom's labels follow the real table (OLIVES, 9,408 scans, 87 patients), for any seed."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from octdino.cohort.olives import BIOMARKERS
from octdino.phantom.grading import PREVALENCE
from tests.phantom.conftest import label_table

COMMON = [name for name, share in zip(BIOMARKERS, PREVALENCE, strict=True) if share > 0.02]
# Agreement of adjacent slices in the real table (kappa)
KAPPA = {
    "IR HRF": 0.59,
    "Partially attached vitreous face": 0.95,
    "Fully attached vitreous face": 0.97,
    "Preretinal tissue/hemorrhage": 0.92,
    "Vitreous debris": 0.67,
    "DRT/ME": 0.94,
    "Fluid (IRF)": 0.82,
    "Fluid (SRF)": 0.86,
    "Disruption of EZ": 0.60,
    "IR hemorrhages": 0.68,
}
DRT, IRF, FAVF, PAVF = "DRT/ME", "Fluid (IRF)", "Fully attached vitreous face", "Partially attached vitreous face"


def kappa(a: np.ndarray, b: np.ndarray) -> float:
    agree = (a == b).mean()
    chance = a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean())
    return float((agree - chance) / (1 - chance))


def check_statistics(table: pd.DataFrame) -> None:
    share = table[list(BIOMARKERS)].mean()
    real = pd.Series(PREVALENCE, BIOMARKERS)
    assert (share - real).abs()[COMMON].max() <= 0.05, (share - real)[COMMON]
    assert (share[[b for b in BIOMARKERS if b not in COMMON]] < 0.05).all()
    follows = (table.slice.diff() == 1).to_numpy()[1:]  # the row before is the neighboring slice of the volume
    for name, expected in KAPPA.items():
        values = table[name].to_numpy()
        found = kappa(values[:-1][follows], values[1:][follows])
        assert abs(found - expected) <= 0.15, (name, found)
    assert 0.75 <= roc_auc_score(table[DRT], table.cst) <= 0.9
    visits = table.groupby(["eye", "visit"])[["cst", "bcva"]].first()
    assert -0.55 <= visits.corr("spearman").loc["cst", "bcva"] <= -0.25
    favf = roc_auc_score(table[FAVF], table.cst)
    assert max(favf, 1 - favf) < 0.65


def test_statistics(labels: pd.DataFrame) -> None:
    check_statistics(labels)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20, 23))
def test_statistics_of_other_seeds(seed: int) -> None:
    check_statistics(label_table(seed, tuple(range(49))))


def test_who_has_what(labels: pd.DataFrame) -> None:
    """Patients with a positive, treatment effect, co-occurrence, slices, as in the real table."""
    patients = labels.groupby("patient")[list(BIOMARKERS)].max().sum()
    assert patients["IR HRF"] == 87
    assert 55 <= patients[DRT] <= 82  # 63
    assert 14 <= patients["Fluid (SRF)"] <= 35  # 25
    assert patients["PED (serous)"] <= 4  # 1
    by_visit = labels.groupby("visit")[[DRT, IRF, "Disruption of EZ"]].mean()
    assert by_visit.loc[0, DRT] > 2 * by_visit.loc[1, DRT]  # .48 to .16
    assert by_visit.loc[0, IRF] > 1.5 * by_visit.loc[1, IRF]  # .58 to .29
    assert by_visit.loc[1, "Disruption of EZ"] > 1.8 * by_visit.loc[0, "Disruption of EZ"]  # .03 to .10
    assert labels[FAVF].corr(labels[PAVF]) < -0.6  # -.76
    assert (labels[FAVF] & labels[PAVF]).mean() < 0.03
    assert labels[DRT].corr(labels[IRF]) > 0.45  # .71
    edge, center = labels[labels.slice.isin([3, 4, 45, 46])], labels[labels.slice.isin([24, 25])]
    assert center[IRF].mean() > edge[IRF].mean() + 0.2  # .23 to .57
    assert abs(center[FAVF].mean() - edge[FAVF].mean()) < 0.08
    cst = labels.groupby(["trial", "visit"]).cst.mean()
    assert abs(cst["TREX", 0] - 469) < 35
    assert abs(cst["TREX", 1] - 303) < 30
    assert abs(cst["PRIME", 0] - 270) < 25
