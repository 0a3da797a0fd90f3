"""preprocessor_config.json of a Hugging Face folder: the input that it describes, and values that it may not have."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octdino.config import ModelSettings, load_config
from octdino.config.models import published_input
from octdino.errors import UserError

HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.25, 0.5]}


def entry(folder: Path, **more: Any) -> dict[str, Any]:
    return {"timm": "vit_tiny_patch16_224", "layout": "huggingface", "weights": str(folder), **more}


def with_preprocessor(folder: Path, values: Any) -> Path:
    (folder / "preprocessor_config.json").write_text(values if isinstance(values, str) else json.dumps(values))
    return folder


def processed(values: dict[str, Any], pixels: np.ndarray) -> np.ndarray:
    """What transformers' BaseImageProcessor makes of one channel of pixels from 0 to 255, by its documentation."""
    x = pixels * values.get("rescale_factor", 1 / 255) if values.get("do_rescale", True) else pixels
    return (x - values["image_mean"][0]) / values["image_std"][0] if values.get("do_normalize", True) else x


@pytest.mark.parametrize(
    "values",
    [
        HALF,
        HALF | {"do_normalize": False},
        {"do_normalize": False},
        HALF | {"rescale_factor": 1 / 127.5},
        HALF | {"do_rescale": False},
        HALF | {"do_rescale": True, "do_normalize": True, "rescale_factor": 0.00392156862745098},
        {"do_rescale": False, "do_normalize": False},
    ],
)
def test_pixels_are_standardized_as_the_processor_does(values: dict[str, Any], tmp_path: Path) -> None:
    used = published_input(ModelSettings(**entry(with_preprocessor(tmp_path, values))))
    assert used.mean is not None
    assert used.std is not None
    pixels = np.array([0.0, 51.0, 255.0])
    np.testing.assert_allclose((pixels / 255 - used.mean[0]) / used.std[0], processed(values, pixels), rtol=1e-12)


@pytest.mark.parametrize(
    ("values", "size"),
    [
        ({"size": 224}, 224),
        ({"size": {"height": 384, "width": 384}}, 384),
        ({"size": {"shortest_edge": 256}}, 256),
        ({"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}, "do_center_crop": True}, 224),
        ({"size": {"shortest_edge": 256}, "crop_size": 224, "do_center_crop": False}, 256),
        ({}, None),
    ],
)
def test_size_is_that_of_the_crop_or_the_resized_image(
    values: dict[str, Any], size: int | None, tmp_path: Path
) -> None:
    assert published_input(ModelSettings(**entry(with_preprocessor(tmp_path, values)))) == (size, None, None)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": 8}, r"size: 8 is not allowed; expected a side of 16 px or more"),
        (
            {"size": {"height": 224, "width": 448}},
            r"size: {'height': 224, 'width': 448} is not allowed; expected a square",
        ),
        ({"size": {"longest_edge": 224}}, r"size: {'longest_edge': 224} is not allowed; expected a side"),
        ({"size": True}, r"size: True is not allowed; expected a side"),
        ({"crop_size": "224"}, r"crop_size: '224' is not allowed; expected a side"),
        ({"image_mean": [0.5, 0.5, 0.5]}, r"image_mean, image_std: 3 and none values; expected 1 or 3 of each"),
        ({"image_mean": [0.5] * 3, "image_std": [0.5]}, r"image_mean, image_std: 3 and 1 values"),
        ({"image_mean": ["a"], "image_std": [0.5]}, r"image_mean.0: 'a' is not allowed"),
        ({"image_mean": [0.5], "image_std": [0]}, r"image_std.0: 0 is not allowed; .*greater than 0"),
        ('{"image_mean": [NaN], "image_std": [1]}', r"image_mean.0: nan is not allowed"),
        ({"rescale_factor": -1}, r"rescale_factor: -1 is not allowed"),
        ({"do_normalize": "no"}, r"do_normalize: 'no' is not allowed"),
        ("[1]", r"expected a JSON object"),
        ("{", r"no JSON; expected what transformers' save_pretrained writes"),
    ],
)
def test_a_value_that_cannot_be_is_one_line_before_any_job(values: Any, message: str, tmp_path: Path) -> None:
    models = {"own": entry(with_preprocessor(tmp_path, values))}
    with pytest.raises(UserError, match=message) as caught:
        load_config({"models": models, "classify": {"arms": ["scratch-finetune", "own-linear"]}})
    assert "\n" not in str(caught.value)
    assert f"{tmp_path}/preprocessor_config.json: " in str(caught.value)


def test_settings_of_the_entry_replace_values_of_the_file(tmp_path: Path) -> None:
    folder = with_preprocessor(tmp_path, {"size": {"height": 224, "width": 448}, **HALF, "rescale_factor": "x"})
    own = ModelSettings(**entry(folder, input_size=64, mean=[0.1], std=[0.2]))
    assert published_input(own) == (64, (0.1,), (0.2,))


def test_a_folder_without_the_file_has_the_input_of_all_other_arms(tmp_path: Path) -> None:
    assert published_input(ModelSettings(**entry(tmp_path))) == (None, None, None)
