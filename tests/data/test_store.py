from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from octdino.data.store import image_moments, read_header, read_images, statistics
from octdino.data.store_writer import StoreWriter
from octdino.errors import UserError

ATTRIBUTES = {"mean": [0.5], "std": [0.2], "source": "x", "settings": {"b": 1, "a": [2]}}


def images(count: int, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, channels, 6, 5)).astype(np.uint8)


def write(path: Path, pixels: np.ndarray, keep: np.ndarray | None = None) -> Path:
    with StoreWriter(path, pixels.shape[1], pixels.shape[2:]) as writer:
        for number, image in enumerate(pixels):
            writer.append(image, f"scan-{number}", box=(number, 0, 6, 5))
        moments = {"mean": [0.5] * pixels.shape[1], "std": [0.2] * pixels.shape[1]}
        writer.finish(np.arange(len(pixels)) if keep is None else keep, {**ATTRIBUTES, **moments})
    return path


def test_store_round_trip_keeps_images_ids_boxes_and_attributes(tmp_path: Path) -> None:
    pixels = images(150, 3)
    store = read_header(write(tmp_path / "a.h5", pixels))
    assert np.array_equal(read_images(tmp_path / "a.h5"), pixels)
    assert store.scan_id == [f"scan-{i}" for i in range(150)]
    assert store.attributes == {
        "mean": [0.5] * 3,
        "std": [0.2] * 3,
        "source": "x",
        "settings": '{"a": [2], "b": 1}',
        "version": 1,
    }
    assert store.boxes[:, 0].tolist() == list(range(150))
    assert np.allclose(store.moments, [image_moments(image) for image in pixels])


@given(st.lists(st.booleans(), min_size=1, max_size=300), st.lists(st.booleans(), min_size=1, max_size=300))
@hypothesis_settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_rows_can_be_dropped_and_read(tmp_path: Path, kept: list[bool], read: list[bool]) -> None:
    pixels = images(len(kept))
    keep = np.flatnonzero(kept)
    path = write(tmp_path / "a.h5", pixels, keep)
    rows = np.flatnonzero(read[: len(keep)])
    store = read_header(path)
    assert np.array_equal(read_images(path, rows), pixels[keep][rows])
    assert store.scan_id == [f"scan-{i}" for i in keep]
    assert np.array_equal(store.boxes[:, 0], keep)
    assert np.allclose(store.moments, [image_moments(image) for image in pixels[keep]] if len(keep) else 0)


def test_statistics_from_moments_equal_those_of_the_pixels(tmp_path: Path) -> None:
    pixels = images(20, 3)
    store = read_header(write(tmp_path / "a.h5", pixels))
    chosen = np.array([1, 5, 7])
    mean, std = statistics(store.moments[chosen])
    assert mean == pytest.approx((pixels[chosen] / 255).mean(axis=(0, 2, 3)))
    assert std == pytest.approx((pixels[chosen] / 255).std(axis=(0, 2, 3)))


def test_scan_ids_beyond_ascii_are_kept(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "a.h5", 1, (6, 5)) as writer:
        for name in ("œil-µ", "x"):
            writer.append(images(1)[0], name)
        writer.finish(np.arange(2), ATTRIBUTES)
    assert read_header(tmp_path / "a.h5").scan_id == ["œil-µ", "x"]


def test_an_error_while_writing_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(AssertionError), StoreWriter(tmp_path / "a.h5", 1, (6, 5)) as writer:
        writer.append(images(1)[0, :, :3], "of another size")
    assert not list(tmp_path.iterdir())


def test_same_input_same_bytes(tmp_path: Path) -> None:
    one, two = (write(tmp_path / name, images(100), np.arange(0, 100, 3)).read_bytes() for name in ("a.h5", "b.h5"))
    assert one == two


def test_a_missing_old_or_damaged_store_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such store"):
        read_images(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("no")
    with pytest.raises(UserError, match="cannot be read as HDF5"):
        read_images(tmp_path / "text.h5")
    with h5py.File(write(tmp_path / "old.h5", images(2)), "a") as file:
        file.attrs["version"] = 0
    with pytest.raises(UserError, match="store version 0, expected 1"):
        read_images(tmp_path / "old.h5")
    content = write(tmp_path / "cut.h5", images(200)).read_bytes()
    (tmp_path / "cut.h5").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="cannot be read as HDF5"):
        read_images(tmp_path / "cut.h5")
