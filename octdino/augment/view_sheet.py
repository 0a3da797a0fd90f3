"""A sheet of augmented scans as the network gets them, for people who judge an augmentation before they train."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from octdino.data.atomic_files import replacing

SCANS = 4  # rows of a sheet
LEAST_COLUMNS = 6  # of views: methods with fewer per batch are shown in several batches
LEAST_SIDE = 150  # px, of the largest view of a sheet; smaller ones are enlarged by whole factors
GAP, LINE = 8, 18  # px, between images; of a line of text
PAPER, INK, HIDDEN = 255, 30, 128  # gray levels
LONGEST = 60  # characters of a scan's name


@dataclass(frozen=True)
class ViewCell:
    """One view of a sheet, uint8 [C, S, S], with its title."""

    title: str
    image: Tensor


@dataclass(frozen=True)
class ScanRow:
    """One scan of a sheet: its name, its image in the store, uint8 [C, H, W], and its views."""

    name: str
    scan: Tensor
    views: Sequence[ViewCell]


def views_caption(name: str, batches: int) -> str:
    """Return the caption of a sheet of training views.

    Args:
        name: of the run.
        batches: shown per scan.
    """
    shown = f"the run's first {batches} batches that have the scan" if batches > 1 else "the run's first batch"
    return f"{name}: scans and their views exactly as the network gets them in {shown}."


def to_pixels(view: Tensor, mean: Sequence[float], std: Sequence[float], hidden: Tensor | None = None) -> Tensor:
    """Return the uint8 image [C, S, S] of a standardized view.

    Args:
        hidden: bool [rows, columns] of patches that the network does not see; they become gray.
    """
    view = view.detach().float().cpu()
    scale, offset = (torch.tensor(values, dtype=torch.float32)[:, None, None] for values in (std, mean))
    pixels = (view * scale + offset).mul(255).round().clamp(0, 255).to(torch.uint8)
    if hidden is not None:
        height, width = (pixel // patch for pixel, patch in zip(view.shape[-2:], hidden.shape, strict=True))
        over = hidden.cpu().repeat_interleave(height, 0).repeat_interleave(width, 1)
        pixels[:, : over.shape[0], : over.shape[1]].masked_fill_(over, HIDDEN)
    return pixels


def write_view_sheet(path: Path, rows: Sequence[ScanRow], caption: str) -> None:
    """Write the sheet as PNG, atomically: one row per scan under its name, one column per view.

    Args:
        rows: all have as many views, with the same titles and sizes.
        caption: what is shown, above the rows.
    """
    views = rows[0].views
    side = max(cell.image.shape[-1] for cell in views)
    zoom = max(1, -(-LEAST_SIDE // side))
    font, bold = ImageFont.load_default(13), ImageFont.load_default(14)
    columns = [_scan([row.scan for row in rows], side * zoom)]
    columns += [[_enlarged(row.views[index].image, zoom) for row in rows] for index in range(len(views))]
    titles = [f"scan as stored\n{rows[0].scan.shape[-1]} x {rows[0].scan.shape[-2]} px", *(v.title for v in views)]
    widths = [max(column[0].width, _width(title, font)) for column, title in zip(columns, titles, strict=True)]
    width = sum(widths) + GAP * (len(widths) + 1)
    lines = wrap(caption, max(width // 7, 20))
    head = 2 * GAP + LINE * (len(lines) + 2)  # a title has two lines
    sheet = Image.new(columns[0][0].mode, (width, head + len(rows) * (side * zoom + LINE + GAP)), _tone(PAPER, columns))
    pen, ink = ImageDraw.Draw(sheet), _tone(INK, columns)
    pen.multiline_text((GAP, GAP // 2), "\n".join(lines), ink, bold, spacing=2)
    left = GAP
    for column, title, wide in zip(columns, titles, widths, strict=True):
        pen.multiline_text((left, head - GAP - 2 * LINE), title, ink, font, spacing=2)
        for index, picture in enumerate(column):
            sheet.paste(picture, (left, head + index * (side * zoom + LINE + GAP) + LINE))
        left += wide + GAP
    for index, row in enumerate(rows):
        name = row.name if len(row.name) <= LONGEST else f"{row.name[:LONGEST]}..."
        pen.text((GAP, head + index * (side * zoom + LINE + GAP)), name, ink, font)
    with replacing(path) as temporary:
        sheet.save(temporary, format="png")


def _width(title: str, font: "ImageFont.FreeTypeFont | ImageFont.ImageFont") -> int:
    return max(round(font.getlength(line)) for line in title.split("\n"))


def _tone(value: int, columns: Sequence[Sequence[Image.Image]]) -> "int | tuple[int, int, int]":
    return value if columns[0][0].mode == "L" else (value, value, value)


def _picture(image: Tensor) -> Image.Image:
    return Image.fromarray(image[0].numpy() if len(image) == 1 else image.permute(1, 2, 0).contiguous().numpy())


def _enlarged(image: Tensor, zoom: int) -> Image.Image:
    """Return the view enlarged without interpolation, so that the network's pixels are visible."""
    return _picture(image.repeat_interleave(zoom, 1).repeat_interleave(zoom, 2))


def _scan(scans: Sequence[Tensor], height: int) -> list[Image.Image]:
    """Return the scans at the height of the largest views."""
    wide = max(round(scans[0].shape[-1] * height / scans[0].shape[-2]), 1)
    return [_picture(scan).resize((wide, height), Image.Resampling.BILINEAR) for scan in scans]
