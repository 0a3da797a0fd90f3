"""The contact sheet of an inspection: per label a few scans, the crop drawn in, beside what would be stored of them."""

from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from octdino.cohort.inspection import Inspection, Sampled, positive_patients
from octdino.data.atomic_files import replacing
from octdino.html_template import render_template
from octdino.scans.pictures import data_uri, to_image
from octdino.scans.preprocess import load_pixels, to_uint8
from octdino.scans.sources import DAMAGED

WIDTH, HEIGHT = 360, 240  # px, largest picture of a scan as it is in the file
CROP = (255, 140, 0)


def write_contact_sheet(path: Path, found: Inspection, title: str) -> None:
    """Write one HTML page, self-contained, for a browser.

    Raises:
        UserError: the file cannot be written.
    """
    image = found.settings.image
    height, width = image.size
    groups = []
    for name, scans in found.groups.items():
        cards = [card for one in scans if (card := _card(found, one)) is not None]
        groups.append({"name": name, "about": _about(found, name), "cards": cards})
    page = render_template(
        "octdino.cohort", "contact_sheet.html.j2",
        title=title, groups=groups, scans=len(found.table.scans), crop=image.crop, width=width, height=height,
        channels="gray" if image.channels == 1 else "RGB", percentiles=image.percentiles,
        decisions=found.table.decisions, problems=found.problems,
    )  # fmt: skip
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _about(found: Inspection, name: str) -> str:
    """Return how many scans and patients have a label; empty for the groups that are none."""
    if name not in found.table.labels:
        return ""
    index = found.table.labels.index(name)
    scans = f"{int((found.truth[:, index] == 1).sum()):,} scans"
    return f"{scans} of {positive_patients(found, index):,} patients" if found.table.patients == "known" else scans


def _card(found: Inspection, one: Sampled) -> dict[str, Any] | None:
    """Return a scan's pictures and its text; None for a file that is gone by now."""
    scan, row = one.scan, found.table.scans.iloc[one.row]
    assert scan.image is not None, "only readable scans are shown"
    settings = found.settings.image
    try:
        pixels = load_pixels(found.table.image_source()(row["path"]), settings.channels)
    except DAMAGED:
        return None
    original = Image.fromarray(to_uint8(pixels, settings.percentiles)).convert("RGB")
    factor = min(WIDTH / original.width, HEIGHT / original.height, 1.0)
    small = original.resize((max(round(original.width * factor), 1), max(round(original.height * factor), 1)))
    top, left, height, width = scan.box
    if (height, width) != (original.height, original.width):
        corners = [round(value * factor) for value in (left, top, left + width, top + height)]
        corners[2:] = [min(corners[2], small.width) - 1, min(corners[3], small.height) - 1]
        ImageDraw.Draw(small).rectangle(corners, outline=CROP, width=2)
    patient = f"patient {row['patient']}" if found.table.patients == "known" else ""
    return {
        "original": data_uri(small, "JPEG", quality=85),
        "stored": data_uri(to_image(scan.image), "JPEG", quality=90),
        "name": Path(row["path"]).name,
        "path": row["path"],
        "text": ", ".join(filter(None, [patient, f"{scan.size[0]} x {scan.size[1]} px", one.kind])),
    }
