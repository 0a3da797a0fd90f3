"""Reading image files; what Pillow makes of a damaged one is one line that names the file."""

from pathlib import Path

from PIL import Image, UnidentifiedImageError

from octdino.errors import UserError

FORMATS = ("PNG", "TIFF", "JPEG", "BMP")  # Pillow opens others by what a file holds; some of them start programs


def load_image(path: Path) -> Image.Image:
    """A decoded image.

    Raises:
        UserError: no such file, no image of `FORMATS`, damaged, or too large.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected an image")
    try:
        with Image.open(path, formats=FORMATS) as image:
            image.load()
            return image
    except Exception as error:  # each of Pillow's readers raises kinds of its own
        said = "unknown format" if isinstance(error, UnidentifiedImageError) else str(error) or type(error).__name__
        raise UserError(f"{path}: cannot be read as an image: {said}; expected {', '.join(FORMATS)}") from None
