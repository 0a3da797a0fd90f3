import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from octdino.cohort.duplicates import Duplicates, find_duplicates, split_groups


def scans(rows: list[tuple[str, str, int | None]], known: bool = True, given: str = "") -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["digest", "patient", "L"])
    return table.assign(known=known, given_split=given, L=table["L"].astype("Int64"))


def duplicates(table: pd.DataFrame) -> Duplicates:
    return find_duplicates(table.drop(columns="L"), table[["L"]])


def test_same_patient_keeps_the_labeled_one() -> None:
    found = duplicates(scans([("x", "a", None), ("x", "a", 1), ("y", "a", None)]))
    assert found.dropped == {0: 1}
    assert not found.shared


def test_same_patient_keeps_the_first_of_equals() -> None:
    assert duplicates(scans([("x", "a", 1), ("x", "a", 1), ("x", "a", 1)])).dropped == {1: 0, 2: 0}


def test_different_patients_keep_one_each() -> None:
    found = duplicates(scans([("x", "a", 1), ("x", "b", 1), ("x", "b", 0)]))
    assert found.dropped == {2: 1}
    assert found.shared == {0, 1}
    assert found.clash == {1}


def test_unknown_patients_with_one_picture_are_one() -> None:
    found = duplicates(scans([("x", "1.png", 1), ("x", "2.png", 0)], known=False))
    assert found.dropped == {1: 0}
    assert found.clash == {0}
    assert not found.shared


def test_test_copy_of_a_users_split_is_kept() -> None:
    table = scans([("x", "1.png", 1), ("x", "2.png", 1)], known=False)
    table["given_split"] = ["train", "test"]
    assert duplicates(table).dropped == {0: 1}


def test_no_labels_at_all() -> None:
    table = scans([("x", "a", None), ("x", "a", None)]).drop(columns="L")
    assert find_duplicates(table, table[[]]).dropped


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 12)), max_size=40))
def test_groups_are_the_connected_parts(pairs: list[tuple[int, int]]) -> None:
    """Against flooding the graph of patients and pictures."""
    patients, digests = [f"p{p}" for p, _ in pairs], [f"d{d}" for _, d in pairs]
    group = split_groups(patients, digests)
    reach = np.eye(10, dtype=bool)
    for i, (p, d) in enumerate(pairs):
        for q, e in pairs[:i]:
            if d == e:
                reach[p, q] = reach[q, p] = True
    for _ in range(10):
        reach = reach | ((reach.astype(int) @ reach.astype(int)) > 0)
    for p in {p for p, _ in pairs}:
        for q in {q for q, _ in pairs}:
            assert (group[f"p{p}"] == group[f"p{q}"]) == bool(reach[p, q])
        assert group[f"p{p}"] == next(name for name in patients if reach[p, int(name[1:])])  # named after the first
