from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from octdino.config import ImageSettings
from octdino.scans.preprocess import decode_scan
from octdino.scans.retina import find_retina, retina_box, retina_window

H, W = 496, 504
MICRON = H / 1920  # rows a µm


def scan(ilm: float, slope: float = 0.0, curve: float = 0.0, thick: int = 80, noise: int = 0) -> np.ndarray:
    """Vitreous, a retina with two bright layers, a dim choroid; `ilm` is the row of the surface at the left."""
    x = np.arange(W)
    top = ilm + slope * x + curve * ((x - W / 2) / (W / 2)) ** 2
    depth = np.arange(H)[:, None] - top
    image = np.where((depth > 0) & (depth < thick), 110.0, 12.0)
    image[(depth > 0) & (depth < 12)] = 170
    image[(depth > thick - 18) & (depth < thick)] = 230
    image += np.where(depth >= thick, 70 * np.exp(-np.maximum(depth - thick, 0) / 40), 0)
    speckle = np.random.default_rng(noise).gamma(4, 1 / 4, image.shape)
    return np.clip(image * speckle, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("ilm", [60, 150, 250, 330])
@pytest.mark.parametrize("slope", [-0.15, 0, 0.15])
def test_window_keeps_retina_and_the_vitreous_above(ilm: float, slope: float) -> None:
    ilm = ilm if slope >= 0 else ilm + 75
    image = scan(ilm, slope)
    first, last = (ilm, ilm + slope * W + 80) if slope >= 0 else (ilm + slope * W, ilm + 80)
    top, bottom = retina_window(image)
    assert top <= max(first - 400 * MICRON + 8, 0)  # 400 µm above the highest point, or all that there is
    assert bottom >= min(last + 200 * MICRON - 8, H)
    assert 0 <= top < bottom <= H


def test_usual_scans_have_one_scale() -> None:
    heights = {retina_window(scan(ilm))[1] - retina_window(scan(ilm))[0] for ilm in (60, 100, 150, 200, 250, 300)}
    assert max(heights) - min(heights) <= 1
    assert max(heights) < 0.75 * H


def test_debris_in_the_vitreous_does_not_move_the_window() -> None:
    clear, cloudy = scan(300), scan(300)
    for row, column in ((40, 60), (90, 300), (150, 420)):
        cloudy[row : row + 5, column : column + 7] = 240
    assert find_retina(cloudy)[0] == pytest.approx(find_retina(clear)[0], abs=6)


@pytest.mark.parametrize("where", ["top", "left", "frame"])
def test_white_fill_is_no_retina(where: str) -> None:
    image = scan(220)
    if where == "top":
        image[np.arange(H)[:, None] < 60 - np.arange(W) / 10] = 255
    elif where == "left":
        image[:, :50] = 255
    else:
        image[:25] = image[-25:] = 255
        image[:, :25] = image[:, -25:] = 255
    top, bottom = find_retina(image)
    assert top == pytest.approx(220, abs=12)
    assert bottom >= 300


def test_white_frame_is_cut_off() -> None:
    framed = np.full((H + 70, W + 90), 255, np.uint8)
    framed[30 : 30 + H, 50 : 50 + W] = scan(220)
    top, left, height, width = retina_box(framed)
    assert (left, width) == (50, W)
    assert top >= 30
    assert top + height <= 30 + H


@pytest.mark.parametrize("image", [np.zeros((H, W), np.uint8), np.full((H, W), 255, np.uint8)])
def test_no_retina_keeps_the_whole_picture(image: np.ndarray) -> None:
    assert retina_window(image) == (0, H)


def test_tiny_pictures_do_not_fail() -> None:
    for size in ((16, 16), (3, 50), (50, 3), (1, 1)):
        top, left, height, width = retina_box(np.random.default_rng(0).integers(0, 255, size).astype(np.uint8))
        assert height > 0
        assert width > 0
        assert top + height <= size[0]
        assert left + width <= size[1]


def test_stored_picture_is_the_box(tmp_path: Path) -> None:
    image = scan(330, 0.1)
    Image.fromarray(image).save(tmp_path / "a.png")
    got = decode_scan(tmp_path / "a.png", ImageSettings(size=(H, W), crop="retina"))
    top, left, height, width = got.box
    part = Image.fromarray(image[top : top + height, left : left + width])
    assert np.array_equal(got.image[0], np.asarray(part.resize((W, H), Image.Resampling.BILINEAR)))


def test_real_scans(shared_data: Path) -> None:
    """Spectralis volumes: nearly all windows have the usual height, and their bright band lies well inside."""
    from octdino.scans.preprocess import load_pixels

    usual, bright = 0, 0
    files = sorted((shared_data / "oct_volumes").glob("*/*.tif"))[::5]
    scans = [pixels for pixels in (load_pixels(path, 1) for path in files) if pixels.shape == (496, 512)]
    for pixels in scans:
        top, bottom = retina_window(pixels)
        usual += bottom - top < 0.75 * 496
        ridge = pixels[:, 100:400].astype(float).mean(axis=1).argmax()
        bright += top + 60 < ridge < bottom - 40
    assert usual >= 0.9 * len(scans)
    assert bright == len(scans)
