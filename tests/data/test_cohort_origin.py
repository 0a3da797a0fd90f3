"""Results of one cohort are not replaced by another one of the same title; a moved or edited folder is the same one."""

import shutil
from pathlib import Path

import pytest

from octdino.config import CohortSettings
from octdino.data.cohort_origin import check_origin, origin_text
from octdino.errors import UserError


def folder(path: Path, files: int = 80, size: int = 1) -> Path:
    (path / "scans").mkdir(parents=True)
    for number in range(files):
        (path / "scans" / f"{number}.png").write_bytes(b"x" * (number + size))
    return path


def settings(root: Path, **values: object) -> CohortSettings:
    return CohortSettings.model_validate({"name": "folder", "root": root, **values})


def made(tmp_path: Path, used: CohortSettings) -> Path:
    """results/{cohort} of a cohort that was made from these files."""
    results = tmp_path / "results" / "folder"
    (results / "cohort").mkdir(parents=True)
    assert used.root is not None
    paths = sorted(path.relative_to(used.root).as_posix() for path in used.root.rglob("*.png"))
    (results / "cohort" / "origin.json").write_text(origin_text(used, paths))
    return results


def test_another_folder_of_the_same_names_is_refused(tmp_path: Path) -> None:
    first, second = folder(tmp_path / "a"), folder(tmp_path / "b", size=1000)
    results = made(tmp_path, settings(first))
    check_origin(results, settings(first))
    with pytest.raises(UserError) as error:
        check_origin(results, settings(second))
    assert str(error.value) == (
        f"{results}: was made from the folder {first}, not from {second}, which has 0 of 64 of its files. Another "
        "cohort needs another cohort.title; to replace this one, run with --forcerun cohort"
    )


def test_a_moved_a_copied_and_an_edited_folder_are_the_same_cohort(tmp_path: Path) -> None:
    first = folder(tmp_path / "a")
    results = made(tmp_path, settings(first))
    shutil.copytree(first, tmp_path / "copy")
    check_origin(results, settings(tmp_path / "copy"))
    moved = first.rename(tmp_path / "moved")
    for number in range(20):
        (moved / "scans" / f"{number}.png").unlink()
        (moved / "scans" / f"new{number}.png").touch()
    check_origin(results, settings(moved))
    (tmp_path / "link").symlink_to(moved)
    check_origin(results, settings(tmp_path / "link"))


def test_an_edited_folder_in_its_place_is_never_refused(tmp_path: Path) -> None:
    first = folder(tmp_path / "a")
    results = made(tmp_path, settings(first))
    shutil.rmtree(first / "scans")
    check_origin(results, settings(first))


def test_another_table_is_refused_and_a_renamed_one_is_not(tmp_path: Path) -> None:
    root = folder(tmp_path / "a")
    one, other = root / "fluid.csv", root / "drusen.csv"
    one.write_text("path,fluid\n")
    results = made(tmp_path, settings(root, table=one))
    other.write_text("path,fluid\n")
    check_origin(results, settings(root, table=other))  # a copy
    other.write_text("path,drusen\n")
    with pytest.raises(UserError, match=f"was made from the table {one}, not from {other}"):
        check_origin(results, settings(root, table=other))
    one.unlink()
    check_origin(results, settings(root, table=other))
    one.write_text("path,edited\n")
    check_origin(results, settings(root, table=one))


def test_another_kind_of_cohort_is_refused(tmp_path: Path) -> None:
    results = made(tmp_path, settings(folder(tmp_path / "a")))
    with pytest.raises(UserError, match=r"was made from cohort\.name folder, not phantom"):
        check_origin(results, CohortSettings(title="folder-2"))


def test_earlier_results_and_damaged_records_are_not_checked(tmp_path: Path) -> None:
    root = folder(tmp_path / "a")
    check_origin(tmp_path / "nothing", settings(root))
    results = made(tmp_path, settings(root))
    for text in ("", "[]", '{"name": "folder", "root": 3}', '{"name": "folder", "root": "/x", "files": [1]}'):
        (results / "cohort" / "origin.json").write_text(text)
        check_origin(results, settings(root))


def test_archives_stand_for_their_scans(tmp_path: Path) -> None:
    one, other = tmp_path / "a", tmp_path / "b"
    for root, size in ((one, 10), (other, 20)):
        root.mkdir()
        (root / "scans.zip").write_bytes(b"x" * size)
    (tmp_path / "results/folder/cohort").mkdir(parents=True)
    (tmp_path / "results/folder/cohort/origin.json").write_text(origin_text(settings(one), ["inside/0.png"]))
    with pytest.raises(UserError, match="which has 0 of 1 of its files"):
        check_origin(tmp_path / "results/folder", settings(other))
