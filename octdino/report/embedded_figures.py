"""Figures inside the page, up to a budget: a page that is read on a phone stays small, however many runs there are."""

from dataclasses import dataclass
from pathlib import Path

from octdino.errors import UserError
from octdino.scans.image_files import read_image
from octdino.scans.pictures import data_uri


@dataclass(frozen=True)
class FigureImage:
    """A figure as a data URI; empty where it would make the page too large.

    Attributes:
        path: of the file, below results/{cohort}.
    """

    title: str
    path: str
    image: str
    caption: str


@dataclass
class Budget:
    """Characters of data URIs that are left; the figure that uses them up is the last one."""

    left: int

    def embed(self, path: Path) -> str:
        """Return a PNG as a JPEG in a data URI, a fifth of its size; empty if nothing is left.

        Raises:
            UserError: the file is no image.
        """
        if self.left <= 0:
            return ""
        try:
            image = data_uri(read_image(path).convert("RGB"), "JPEG", quality=82, optimize=True)
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: the figure cannot be read: {error}") from None
        self.left -= len(image)
        return image
