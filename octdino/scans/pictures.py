"""Scans as pictures on pages: arrays to images, and images to data URIs that make a page self-contained."""

import base64
import io

import numpy as np
from PIL import Image


def to_image(pixels: np.ndarray) -> Image.Image:
    """Return uint8 [C, H, W], gray or RGB, as an image."""
    return Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(np.moveaxis(pixels, 0, -1)))


def data_uri(image: Image.Image, form: str, **options: int) -> str:
    """Return the image as a data URI; `form` is PNG or JPEG, `options` are Pillow's."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return f"data:image/{form.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
