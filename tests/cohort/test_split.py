import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sklearn.model_selection import GroupShuffleSplit

from octdino.cohort.split import PUBLISHED, make_splits
from octdino.config import SplitSettings
from octdino.data.csv_io import fraction_patients, label_matrix, write_table
from octdino.data.schemas.csv_schemas import SPLITS
from octdino.errors import UserError

from .trees import BIOMARKERS, PATH


def scans(patients: int, seed: int = 0, labels: int = 4, each: int = 4, unlabeled: float = 0.3) -> pd.DataFrame:
    """Label l is positive in about 1 of l+2 patients; some patients have no label at all."""
    rng = np.random.default_rng(seed)
    rows = []
    for patient in range(patients):
        has = rng.random(labels) < 1 / (np.arange(labels) + 2)
        known = rng.random() >= unlabeled or patient < 3
        for number in range(each):
            marks = (has & (rng.random(labels) < 0.7)).astype(float) if known else np.full(labels, np.nan)
            row = {"patient": f"p{patient}", "trial": "AB"[patient % 2], "path": f"{patient}-{number}", "row": number}
            rows.append(row | {f"L{i}": mark for i, mark in enumerate(marks)})
    return pd.DataFrame(rows).assign(given_split="").assign(group=lambda t: t["patient"])


def real_scans(shared_data: Path) -> pd.DataFrame:
    table = pd.read_csv(shared_data / "olives" / "Biomarker_Clinical_Data_Images.csv")
    table = table.rename(columns={PATH: "path", "Patient_ID": "patient"}).assign(given_split="", row=0)
    table["patient"] = table["group"] = table["patient"].astype(str)
    return table.assign(trial=np.where(table["path"].str.contains("Prime"), "PRIME", "TREX"))


LABELS = [f"L{i}" for i in range(4)]


def split(table: pd.DataFrame, settings: SplitSettings) -> pd.DataFrame:
    return make_splits(table, table[LABELS], settings)


@given(patients=st.integers(3, 40), seed=st.integers(0, 50), val=st.floats(0.05, 0.45), test=st.floats(0.05, 0.45))
@hypothesis_settings(max_examples=8, deadline=None)
def test_each_patient_once_and_all_sides_have_labels(patients: int, seed: int, val: float, test: float) -> None:
    table = scans(patients, seed)
    splits = make_splits(table, table[LABELS], SplitSettings(val=val, test=test, seed=seed))
    assert splits["patient"].tolist() == table["patient"].unique().tolist()
    assert set(splits["fold"]) == {0}
    labeled = set(table.loc[table["L0"].notna(), "patient"])
    sides = splits.set_index("patient")["split"]
    assert set(sides[sorted(labeled)]) == {"train", "val", "test"}
    ranked = splits[splits["rank"].notna()]
    assert set(ranked["patient"]) == {p for p in labeled if sides[p] == "train"}
    assert sorted(ranked["rank"]) == list(range(len(ranked)))


@given(st.integers(0, 5), st.lists(st.floats(0.001, 1), min_size=2, max_size=6))
@hypothesis_settings(max_examples=5, deadline=None)
def test_fractions_nest(seed: int, fractions: list[float]) -> None:
    splits = split(scans(30, seed), SplitSettings(seed=seed))
    seen = [fraction_patients(splits, 0, fraction) for fraction in sorted(fractions)]
    for small, large in itertools.pairwise(seen):
        assert small <= large
    assert all(seen)
    everybody = splits[(splits["split"] == "train") & splits["rank"].notna()]["patient"]
    assert fraction_patients(splits, 0, 1.0) == set(everybody)


def test_groups_stay_together() -> None:
    table = scans(24)
    table["group"] = table["patient"].map(lambda p: f"p{int(p[1:]) // 3 * 3}")
    splits = make_splits(table, table[LABELS], SplitSettings())
    assert not splits.drop_duplicates(["group", "split"])["group"].duplicated().any()
    assert splits.groupby("group")["patient"].nunique().max() == 3
    for _, group in splits.groupby("group"):
        assert group["rank"].unique().size == 1


def test_seed_decides_alone() -> None:
    one = split(scans(60), SplitSettings(seed=3))
    assert one.equals(split(scans(60), SplitSettings(seed=3)))
    assert not one["split"].equals(split(scans(60), SplitSettings(seed=4))["split"])


def test_shares_are_kept() -> None:
    splits = split(scans(200, labels=4), SplitSettings(val=0.15, test=0.25))
    counts = splits["split"].value_counts()
    assert abs(counts["val"] - 30) <= 3
    assert abs(counts["test"] - 50) <= 4


def prevalence_gap(table: pd.DataFrame, test: set[str], labels: list[str]) -> float:
    values = label_matrix(table, labels)
    inside = table["patient"].isin(test).to_numpy()
    return float(np.abs(np.nanmean(values[inside], axis=0) - np.nanmean(values, axis=0)).mean())


def test_real_table_is_split_better_than_at_random(shared_data: Path) -> None:
    """Against drawing patients: no empty cell where positive patients are enough, and a smaller prevalence gap."""
    table = real_scans(shared_data)
    any_positive = table.groupby("patient")[BIOMARKERS].max()
    enough = [name for name in BIOMARKERS if any_positive[name].sum() >= 25]
    ours, drawn, drawn_empty = [], [], 0
    for seed in range(3):
        splits = make_splits(table, table[BIOMARKERS], SplitSettings(seed=seed))
        sides = splits.set_index("patient")["split"]
        positives = any_positive.groupby(sides.loc[any_positive.index].to_numpy())[BIOMARKERS].sum()
        for name in BIOMARKERS:
            if any_positive[name].sum() >= 3:
                assert (positives[name] > 0).all(), name
        assert positives.loc["test", enough].min() >= 4
        counts = sides.value_counts()
        assert abs(counts["test"] - 87 * 0.25) <= 2
        assert abs(counts["val"] - 87 * 0.15) <= 2
        trial = table.groupby("patient")["trial"].first()
        assert abs((trial[sides[sides == "test"].index] == "PRIME").mean() - 40 / 87) < 0.1
        ours.append(prevalence_gap(table, set(sides[sides == "test"].index), enough))
    for seed in range(20):
        _, rows = next(GroupShuffleSplit(1, test_size=0.25, random_state=seed).split(table, groups=table["patient"]))
        test = set(table["patient"].iloc[rows])
        drawn.append(prevalence_gap(table, test, enough))
        drawn_empty += (any_positive.loc[sorted(test)].sum() == 0)[any_positive.sum() >= 3].sum()
    assert np.mean(ours) < 0.6 * np.mean(drawn)
    assert drawn_empty > 0


def test_early_prefixes_hold_the_common_labels(shared_data: Path) -> None:
    table = real_scans(shared_data)
    splits = make_splits(table, table[BIOMARKERS], SplitSettings())
    any_positive = table.groupby("patient")[BIOMARKERS].max()
    tenth = any_positive.loc[sorted(fraction_patients(splits, 0, 0.1))]
    common = [name for name in BIOMARKERS if (any_positive[name].sum()) >= 40]
    assert len(tenth) == 5
    assert (tenth[common].sum() > 0).all()
    quarter = table[table["patient"].isin(fraction_patients(splits, 0, 0.25))]
    gap = (quarter[common].mean() - table[common].mean()).abs().mean()
    train = splits[splits["rank"].notna()]["patient"].to_numpy()
    rng = np.random.default_rng(0)
    random = [table[table["patient"].isin(rng.choice(train, 13, replace=False))][common].mean() for _ in range(30)]
    assert gap < np.mean([(means - table[common].mean()).abs().mean() for means in random])


def test_too_few_patients() -> None:
    with pytest.raises(UserError, match=r"2 patients with a label.*expected 3 or more"):
        split(scans(40).query("patient in ['p0', 'p1']"), SplitSettings())
    with pytest.raises(UserError, match="no label column"):
        make_splits(scans(10), scans(10)[[]], SplitSettings())


def test_users_split_is_honoured_and_val_comes_out_of_train() -> None:
    table = scans(40, unlabeled=0)
    table["given_split"] = np.where(table["patient"].str[1:].astype(int) < 30, "train", "test")
    sides = make_splits(table, table[LABELS], SplitSettings(val=0.2)).set_index("patient")["split"]
    assert {p for p in sides.index if sides[p] == "test"} == {f"p{i}" for i in range(30, 40)}
    assert (sides == "val").sum() == 8  # 20 % of all 40, since test has the 25 % that it would have by default
    table.loc[table["patient"].isin(["p0", "p1"]), "given_split"] = "val"
    sides = make_splits(table, table[LABELS], SplitSettings()).set_index("patient")["split"]
    assert set(sides[sides == "val"].index) == {"p0", "p1"}


def test_nothing_is_chosen_on_scans_without_labels() -> None:
    table = scans(60)
    table["given_split"] = np.where(table["patient"].str[1:].astype(int) < 45, "train", "test")
    sides = make_splits(table, table[LABELS], SplitSettings()).set_index("patient")["split"]
    unlabeled = sorted(set(table.loc[table["L0"].isna() & (table["given_split"] == "train"), "patient"]))
    assert unlabeled
    assert (sides[unlabeled] == "train").all()


def test_users_split_needs_train_and_test() -> None:
    with pytest.raises(UserError, match="no patient in test"):
        split(scans(9).assign(given_split="train"), SplitSettings())


def test_users_split_parts_a_group() -> None:
    table = scans(9, unlabeled=0)
    table["given_split"] = np.where(table["patient"] == "p0", "test", "train")
    table.loc[table["patient"] == "p1", "group"] = "p0"
    with pytest.raises(UserError, match=r"p0 \(test\) and p1 \(train\) share identical"):
        make_splits(table, table[LABELS], SplitSettings())


def test_file_is_reused(tmp_path: Path) -> None:
    table = scans(30)
    first = make_splits(table, table[LABELS], SplitSettings(seed=1))
    write_table(tmp_path / "splits.csv", first, SPLITS)
    again = make_splits(table, table[LABELS], SplitSettings(seed=2, file=tmp_path / "splits.csv"))
    assert again.equals(first)
    with pytest.raises(UserError, match=r"splits.csv: no patient p30 and 1 more"):
        split(scans(32), SplitSettings(file=tmp_path / "splits.csv"))
    sides = first.set_index("patient")["split"]
    train, test = sides[sides == "train"].index[0], sides[sides == "test"].index[0]
    table.loc[table["patient"].isin([train, test]), "group"] = min(train, test)
    with pytest.raises(UserError, match="share identical scans"):
        make_splits(table, table[LABELS], SplitSettings(file=tmp_path / "splits.csv"))
    with pytest.raises(UserError, match="no such table"):
        make_splits(table, table[LABELS], SplitSettings(file=tmp_path / "none.csv"))


def test_many_patients_are_quick() -> None:
    """Images without patients are their own; a collection of ten thousand must not take minutes."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {"patient": [f"p{i}" for i in range(10_000)], "trial": "", "given_split": "", "path": "", "row": 0}
    )
    table["group"] = table["patient"]
    for i in range(4):
        table[f"L{i}"] = (rng.integers(0, 4, 10_000) == i).astype(float)
    splits = make_splits(table, table[LABELS], SplitSettings())
    assert splits["split"].value_counts()["test"] == pytest.approx(2500, abs=5)


@pytest.mark.parametrize("patients", [30, 57])
def test_crossval_tests_each_patient_once_a_repeat(patients: int) -> None:
    table = scans(patients)
    table.loc[table["patient"] == "p1", "group"] = "p0"  # two patients who share a picture
    chosen = SplitSettings(protocol="crossval", folds=4, repeats=2, val=0.15)
    splits = make_splits(table, table[LABELS], chosen)
    assert set(splits["fold"]) == set(range(chosen.count)) == set(range(8))
    labeled = set(table.loc[table["L0"].notna(), "patient"])
    for repeat in (0, 1):
        part = splits[splits["fold"] // 4 == repeat]
        tested = part.loc[part["split"] == "test", "patient"]
        assert sorted(tested) == sorted(table["patient"].unique())
    for _, fold in splits.groupby("fold"):
        sides = fold.set_index("patient")["split"]
        assert sides["p0"] == sides["p1"]
        assert set(sides[sorted(labeled)]) == {"train", "val", "test"}
        counts = sides.value_counts()
        assert abs(counts["test"] - patients / 4) <= 3
        assert abs(counts["val"] - 0.15 * patients) <= 3
        ranked = fold[fold["rank"].notna()]
        assert set(ranked["patient"]) == {name for name in labeled if sides[name] == "train"}
    first, second = (set(splits[(splits["fold"] == f) & (splits["split"] == "test")]["patient"]) for f in (0, 4))
    assert first != second
    pd.testing.assert_frame_equal(splits, make_splits(table, table[LABELS], chosen))


def test_crossval_balances_the_real_labels(shared_data: Path) -> None:
    """As the holdout: every fold's prevalences are nearer to the whole's than those of random folds."""
    table = real_scans(shared_data)
    labels = [name for name in BIOMARKERS if name in table]
    splits = make_splits(table, table[labels], SplitSettings(protocol="crossval"))
    tests = [set(part.loc[part["split"] == "test", "patient"]) for _, part in splits.groupby("fold")]
    ours = np.mean([prevalence_gap(table, test, labels) for test in tests])
    rng = np.random.default_rng(0)
    names = table["patient"].unique()
    at_random = [
        np.mean([prevalence_gap(table, set(part), labels) for part in np.array_split(rng.permutation(names), 5)])
        for _ in range(10)
    ]
    assert ours < 0.75 * np.mean(at_random)


def test_crossval_refuses_what_it_cannot_divide() -> None:
    with pytest.raises(UserError, match="expected 7 or more for 5 folds"):
        split(scans(5, unlabeled=0), SplitSettings(protocol="crossval"))
    with pytest.raises(UserError, match="split column, and"):
        split(scans(30).assign(given_split="train"), SplitSettings(protocol="crossval"))


@pytest.mark.parametrize("number", ["2", "3"])
def test_published_lists_are_the_labs(number: str, shared_data: Path) -> None:
    listed = pd.read_csv(shared_data / "olives" / "published_splits.csv", dtype=str)
    part = listed[listed["split"] == number]
    tested = set(part.loc[part["part"] == "test", "patient_id"])
    protocol = f"published{number}"
    assert {str(patient) for patient in PUBLISHED[protocol]} == tested
    assert not tested & set(part.loc[part["part"] != "test", "patient_id"])  # the first list fails here
    table = real_scans(shared_data)
    splits = make_splits(table, table[list(BIOMARKERS)], SplitSettings.parse({"protocol": protocol}, "split"))
    sides = splits.set_index("patient")["split"]
    assert set(sides[sides == "test"].index) == tested
    assert 5 <= (sides == "val").sum() <= 20
