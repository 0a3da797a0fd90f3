"""Visits of one eye as positives: pairs, partners, limits, and errors where a cohort has none."""

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError

from octdino.config.methods import DinoSettings, SimclrSettings, SupconSettings
from octdino.errors import UserError
from octdino.pretrain.eye_visits import VisitPartners, eye_codes, eye_visit_columns, same_eye
from octdino.pretrain.methods.simclr import Simclr, nt_xent
from octdino.pretrain.methods.supcon import Supcon, supcon_loss
from tests.pretrain.test_methods import loss_of, make_batch, tiny

# Patient p: an eye with three visits in weeks; q: an eye of the same name with numbered visits; r: one visit; s: none.
ROWS = [
    ("p", "e", "W0", 1), ("p", "e", "W0", 2), ("p", "e", "W4", 1), ("p", "e", "W4", 3), ("p", "e", "W52", 2),
    ("q", "e", "V1", 1), ("q", "e", "V3", 2), ("r", "f", "W0", 1), ("s", "", "W0", 1), ("p", "g", "W0", 1),
]  # fmt: skip
TABLE = pd.DataFrame(ROWS, columns=["patient", "eye", "visit", "slice"]).astype({"slice": "Int64"})
NO_LIMIT = SimclrSettings(positives=["eye"])


def pairs(settings) -> set[tuple[int, int]]:
    """Return the pairs of different scans that are of one eye."""
    same = same_eye(eye_visit_columns(TABLE, settings), settings)
    assert torch.equal(same, same.T)
    return {(i, j) for i, j in same.nonzero().tolist() if i < j}


def candidates(partners: VisitPartners) -> dict[int, set[int]]:
    """Return the partners that are chosen in 60 steps, by scan."""
    rows = torch.arange(len(TABLE))
    chosen = [partners.choose(rows, step) for step in range(60)]
    return {row: {int(step[row]) for step in chosen} for row in range(len(TABLE))}


P, Q = [(i, j) for j in range(5) for i in range(j)], [(5, 6)]


def test_pairs_are_of_one_eye_of_one_patient() -> None:
    """The eyes of p and q have one name, and are two eyes."""
    assert pairs(NO_LIMIT) == {*P, *Q}


@pytest.mark.parametrize(
    ("weeks", "visits", "expected"),
    [
        (4, 1, {(i, j) for i, j in P if j < 4}),
        (3, 2, {(0, 1), (2, 3), *Q}),
        (60, 1, set(P)),
    ],
)
def test_limits_are_in_weeks_and_in_visits(weeks: float, visits: int, expected: set[tuple[int, int]]) -> None:
    assert pairs(SimclrSettings(positives=["eye"], positives_weeks=weeks, positives_visits=visits)) == expected


def test_partner_is_the_nearest_slice_of_another_visit() -> None:
    partners = VisitPartners(TABLE, NO_LIMIT)
    assert candidates(partners) == {
        0: {2, 4}, 1: {2, 4}, 2: {0, 4}, 3: {1, 4}, 4: {1, 2}, 5: {6}, 6: {5}, 7: {7}, 8: {8}, 9: {9},
    }  # fmt: skip
    assert partners.with_partner == 7
    assert partners.of(np.array([0, 5])).tolist() == [2, 4, 6]
    assert partners.of(np.array([7])).tolist() == []


def test_partners_are_within_the_limits() -> None:
    settings = DinoSettings(positives=["eye"], positives_weeks=4, positives_visits=1)
    assert candidates(VisitPartners(TABLE, settings)) == {
        0: {2}, 1: {2}, 2: {0}, 3: {1}, **{row: {row} for row in range(4, 10)},
    }  # fmt: skip


DAYS = pd.to_datetime(pd.Series(["2019-12-30", "2020-02-24", "2020-02-29", "2020-03-02", "2021-03-01"]))


@pytest.mark.parametrize("days", [3, 4, 7, 8, 29, 60, 366, 367])
@pytest.mark.parametrize("written", ["%Y-%m-%d", "%Y%m%d", "%Y-%m-%d %H:%M:%S", "days"])
def test_dates_and_days_are_near_by_the_days_between_them(days: int, written: str) -> None:
    """pandas counts the days; whatever the weekday, exactly `days` apart is within the limit."""
    since = (DAYS - DAYS[0]).dt.days
    names = "D" + since.astype(str) if written == "days" else DAYS.dt.strftime(written)
    table = pd.DataFrame({"patient": "p", "eye": "e", "visit": names})
    settings = SimclrSettings(positives=["eye"], positives_weeks=days / 7)
    expected = (since.to_numpy()[:, None] - since.to_numpy()[None, :]).__abs__() <= days
    np.testing.assert_array_equal(same_eye(eye_visit_columns(table, settings), settings).numpy(), expected)


def test_codes_of_eyes_are_64_bit_integers_also_where_an_eye_is_unknown() -> None:
    assert eye_codes(TABLE).dtype == np.int64
    assert eye_codes(TABLE).tolist() == [0, 0, 0, 0, 0, 2, 2, 3, -1, 1]


def test_partner_is_a_function_of_seed_and_scan() -> None:
    partners = VisitPartners(TABLE, NO_LIMIT)
    whole = partners.choose(torch.arange(10), 3)
    assert torch.equal(whole[[4, 0, 2]], partners.choose(torch.tensor([4, 0, 2]), 3))
    assert any(not torch.equal(whole, partners.choose(torch.arange(10), step)) for step in range(4, 8))


def test_unknown_slices_pair_in_their_order() -> None:
    table = TABLE.assign(slice=pd.array([pd.NA] * 10, dtype="Int64"))
    chosen = candidates(VisitPartners(table, NO_LIMIT))
    assert chosen[0] == {2, 4}
    assert chosen[1] == {3, 4}


def test_simclr_does_not_push_visits_of_an_eye_apart() -> None:
    torch.manual_seed(0)
    settings = SimclrSettings(positives="eye", hidden_dim=16, out_dim=8).resolved(100)
    method = Simclr(settings, tiny, 4)
    targets = method.targets(TABLE)
    assert targets.shape == (10, 4)
    batch = make_batch(method, size=10, targets=targets)
    loss, _ = loss_of(method, batch)
    z = method.embed(method.encode(batch))
    related = torch.zeros(10, 10, dtype=torch.bool)
    for i, j in [*P, *Q, *[(k, k) for k in range(10)]]:
        related[i, j] = related[j, i] = True
    torch.testing.assert_close(loss, nt_xent(z, torch.arange(10), settings.temperature, related))
    assert loss < nt_xent(z, torch.arange(10), settings.temperature), "fewer negatives"
    alone = targets.clone()
    alone[:, 1] = 0  # one eye, no limits: no negatives at all
    assert loss_of(method, make_batch(method, size=10, targets=alone))[0].item() == pytest.approx(0, abs=1e-5)


def test_supcon_takes_near_visits_of_an_eye_only() -> None:
    torch.manual_seed(0)
    settings = SupconSettings(positives="eye", positives_weeks=4, positives_visits=2, hidden_dim=16, out_dim=8)
    method = Supcon(settings.resolved(100), tiny, 4)
    batch = make_batch(method, size=10, targets=method.targets(TABLE))
    loss, _ = loss_of(method, batch)
    z = method.embed(method.encode(batch))
    near = torch.tensor([0, 0, 0, 0, 1, 2, 2, 3, 4, 5])  # those pairs are transitive
    torch.testing.assert_close(loss, supcon_loss(z, near, torch.arange(10), settings.temperature))


@pytest.mark.parametrize(
    ("changes", "limits", "message"),
    [
        ({"eye": ""}, {}, "no scan has a known eye"),
        ({"visit": ""}, {}, "no scan has a visit"),
        ({"visit": "W0"}, {}, "no eye has scans of two visits"),
        ({}, {"positives_weeks": 1, "positives_visits": 1}, "two visits within positives_weeks"),
        ({}, {"positives_weeks": 4}, "positives_weeks: 4, but visits such as 'V1' are in visits"),
        ({}, {"positives_visits": 2}, "positives_visits: 2, but visits such as 'W0' are in weeks"),
        (
            {"visit": "baseline"},
            {"positives_weeks": 4},
            "visit 'baseline' of patient p: no number; expected such as W12",
        ),
        ({"visit": ""}, {"positives_weeks": 4}, "no scan has a known eye and a visit, so none is near another"),
        ({"visit": "2019-13-01"}, {"positives_weeks": 4}, "visit '2019-13-01' of patient p: no date that can be read"),
        ({"visit": "01.03.2019"}, {"positives_weeks": 4}, "visit '01.03.2019' of patient p: no date that can be read"),
        (
            {"visit": "2019-03-01T23:30Z"},
            {"positives_weeks": 4},
            "patient p: a date with a time zone; expected the day",
        ),
        (
            {"visit": "2019-03-01"},
            {"positives_visits": 4},
            "visits such as '2019-03-01' are in dates; .*positives_weeks",
        ),
        (
            {"visit": [*["W0", "2019-03-01"] * 5]},
            {"positives_weeks": 4},
            "eye e of patient p has visits 'W0' and '2019-03",
        ),
        (
            {"visit": [*["W0", "V3"] * 5]},
            {"positives_weeks": 4, "positives_visits": 1},
            "has visits 'W0' and 'V3', whose",
        ),
    ],
)
def test_cohort_without_pairs_is_one_clear_line(changes: dict, limits: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        VisitPartners(TABLE.assign(**changes), SimclrSettings(positives=["eye"], **limits))
    assert "\n" not in str(caught.value)


def test_limits_and_soft_values_need_what_they_are_of() -> None:
    for kind, values, message in (
        (SimclrSettings, {"positives_weeks": 4}, "expected eye among positives"),
        (SupconSettings, {"positives": ["cst"], "positives_visits": 1}, "expected eye among positives"),
        (SupconSettings, {"positives": ["eye"], "soft": True}, "expected bcva or cst among positives"),
    ):
        with pytest.raises(ValidationError, match=message):
            kind(**values)


def test_settings_at_their_defaults_leave_existing_runs_as_they_are() -> None:
    """No new key among what a run depends on: Snakemake and the fingerprint of checkpoints would see another run."""
    new = {"positives_weeks", "positives_visits", "soft"}
    for kind in (SimclrSettings, DinoSettings, SupconSettings):
        assert not new & kind().needed().keys()
    assert "positives" not in SimclrSettings().needed()
    assert "positives" in SupconSettings().needed()
    assert SimclrSettings(positives="eye").needed()["positives"] == ["eye"]
