from pathlib import Path

import pytest

from octdino.cohort.file_index import FileIndex, clean_path


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    (tmp_path / "disk" / "TREX DME").mkdir(parents=True)
    (tmp_path / "disk" / "TREX DME" / "0.tif").write_bytes(b"")
    root = tmp_path / "root"
    root.mkdir()
    (root / "images").symlink_to(tmp_path / "disk")
    (root / "images" / "TREX DME" / "back").symlink_to(root)
    (tmp_path / "disk" / "up").symlink_to(tmp_path / "disk")
    assert FileIndex(root).files == {"images/TREX DME/0.tif"}


def test_hidden_files_and_doubles_are_no_part_of_it(tmp_path: Path) -> None:
    for name in (".cache/a.png", "__MACOSX/a.png", "._a.png", "a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert FileIndex(tmp_path).files == {"a.png"}


def test_composed_and_decomposed_names_are_one(tmp_path: Path) -> None:
    (tmp_path / "e\u0301.png").write_bytes(b"")
    assert FileIndex(tmp_path).resolve("\u00e9.png") == "e\u0301.png"


@pytest.mark.parametrize(
    ("text", "path"),
    [("/a/b.png", "a/b.png"), ("a\\b.png", "a/b.png"), ("./a//b.png", "a/b.png"), (" a/b.png ", "a/b.png"), ("", "")],
)
def test_clean_path(text: str, path: str) -> None:
    assert clean_path(text) == path


@pytest.mark.parametrize("text", ["../a.png", "a/../../b.png", "C:\\scans\\a.png", "a\\..\\b.png"])
def test_paths_that_leave_the_root(text: str) -> None:
    with pytest.raises(ValueError, match="leaves the root"):
        clean_path(text)
