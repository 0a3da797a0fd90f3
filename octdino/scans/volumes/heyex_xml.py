"""HEYEX XML exports: one XML file, the images that it names beside it, and the ETDRS thickness of each volume.

The parser builds no document type: entities, which can expand without end or name files, are refused, and the
segmentation, most of a file, is skipped. Images are found by name in the XML's own folder, wherever the XML says they
were.
"""

import math
import xml.etree.ElementTree as ET
from functools import partial
from pathlib import Path
from urllib.parse import unquote
from xml.parsers import expat

import numpy as np

from octdino.scans.image_files import ImageError
from octdino.scans.preprocess import SUFFIXES, load_pixels
from octdino.scans.volumes.volume import (
    MAX_FRAMES,
    FrameInfo,
    SeriesInfo,
    Volume,
    date_of,
    device_name,
    identity,
    thickness,
)

MAX_XML_BYTES = 2**27
MAX_ELEMENTS, MAX_DEPTH, MAX_TEXT = 500_000, 40, 2**24
SKIPPED = frozenset({"Segmentation", "ContourList", "ClassificationBands"})
MARK = b"<HEDX"


def is_heyex(head: bytes) -> bool:
    """Return whether the first bytes of an XML file are a HEYEX export's."""
    return MARK in head.replace(b"\0", b"")  # UTF-16, too


def open_heyex_xml(path: Path) -> Volume:
    """Open a HEYEX XML export.

    Raises:
        ImageError: no such export, a damaged or hostile XML, or none of its images is beside it.
    """
    root = _parse(path)
    if root.tag != "HEDX":
        raise ImageError("no HEYEX export: its root is not HEDX")
    beside = {file.name.casefold(): file for file in path.parent.iterdir()}
    frames: list[FrameInfo] = []
    series: list[SeriesInfo] = []
    images: list[tuple[Path, tuple[int, int]]] = []
    parts: set[Path] = set()
    for patient in root.iter("Patient"):
        for study in patient.iter("Study"):
            for one in study.iter("Series"):
                parts |= {_file(path, image, beside) for image in one.findall("Image")}
                scans = [image for image in one.findall("Image") if image.findtext("ImageType/Type") == "OCT"]
                if not scans:
                    continue
                series.append(_series(patient, study, one))
                for number, image in enumerate(sorted(scans, key=_number), 1):
                    frames.append(FrameInfo(len(series), number, _laterality(image, one)))
                    images.append((_file(path, image, beside), _size(image)))
    if len(images) > MAX_FRAMES or not images:
        raise ImageError(f"{len(images):,} B-scans in the XML; expected 1 to {MAX_FRAMES:,}")
    if not any(file.is_file() for file, _ in images):
        raise ImageError(f"none of the {len(images)} images that it names is beside it; first: {images[0][0].name}")
    return Volume(path, "HEYEX XML", tuple(frames), tuple(series), partial(_read, images), tuple(sorted(parts)))


def _read(images: list[tuple[Path, tuple[int, int]]], index: int) -> np.ndarray:
    file, (width, height) = images[index]
    pixels = load_pixels(file, 1)
    if width and height and pixels.shape != (height, width):
        raise ImageError(f"{file.name}: {pixels.shape[1]} x {pixels.shape[0]} pixels; the XML says {width} x {height}")
    return pixels


def _parse(path: Path) -> ET.Element:
    if path.stat().st_size > MAX_XML_BYTES:
        raise ImageError(f"{path.stat().st_size:,} bytes of XML; expected at most {MAX_XML_BYTES:,}")
    builder = ET.TreeBuilder()
    depth = elements = text = 0
    inside = 0  # depth of the outermost skipped element, 0: none

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth, elements, inside
        depth += 1
        if tag in SKIPPED and not inside:
            inside = depth
        if inside:
            return
        elements += 1
        if depth > MAX_DEPTH or elements > MAX_ELEMENTS:
            raise ImageError(f"XML of more than {MAX_ELEMENTS:,} elements or {MAX_DEPTH} levels")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth, inside
        if not inside:
            builder.end(tag)
        elif inside == depth:
            inside = 0
        depth -= 1

    def data(content: str) -> None:
        nonlocal text
        if not inside:
            text += len(content)
            if text > MAX_TEXT:
                raise ImageError(f"XML of more than {MAX_TEXT:,} characters")
            builder.data(content)

    def doctype(*_: object) -> None:
        raise ImageError("the XML declares a document type or entities; HEYEX writes none")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, data
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = doctype
    try:
        with path.open("rb") as file:
            parser.ParseFile(file)
    except expat.ExpatError as error:
        raise ImageError(f"no well-formed XML in line {error.lineno}, column {error.offset}") from None
    return builder.close()


def _series(patient: ET.Element, study: ET.Element, series: ET.Element) -> SeriesInfo:
    # <ID> counts the patients of one HEYEX database; the clinic's own id is <PatientID>.
    name = f"{patient.findtext('LastName', '')} {patient.findtext('FirstNames', '')}"
    key, own = identity(patient.findtext("PatientID", ""), name, _date(patient, "Birthdate") or "")
    maker = [series.findtext(f"GeneralEquipment/{part}", "") for part in ("Manufacturer", "ManufacturerModelName")]
    zones = [zone for zone in series.iterfind("ThicknessGrid/Zone") if zone.findtext("Name") == "C0"]
    cst = thickness(_real(zones[0].findtext("AvgThickness", ""))) if zones else None
    return SeriesInfo(key, own, _date(study, "StudyDate"), device_name(*maker), cst)


def _date(element: ET.Element, name: str) -> str | None:
    parts = [element.findtext(f"{name}/Date/{part}", "").strip() for part in ("Year", "Month", "Day")]
    return date_of(*map(int, parts)) if all(part.isdecimal() and len(part) < 5 for part in parts) else None


def _file(path: Path, image: ET.Element, beside: dict[str, Path]) -> Path:
    """Return the file beside the XML that has the name in an image's URL; a name that is there in no case as it is."""
    name = unquote(image.findtext("ImageData/ExamURL", "")).replace("\\", "/").rsplit("/", 1)[-1].strip()
    if Path(name).suffix.lower() not in SUFFIXES or not name.isprintable():
        raise ImageError("an image in the XML has no name of an image file")
    return beside.get(name.casefold(), path.parent / name)


def _laterality(image: ET.Element, series: ET.Element) -> str | None:
    letter = image.findtext("Laterality") or series.findtext("Laterality") or ""
    return {"R": "OD", "L": "OS"}.get(letter.strip()[:1].upper())


def _size(image: ET.Element) -> tuple[int, int]:
    width, height = (_real(image.findtext(f"OphthalmicAcquisitionContext/{side}", "")) for side in ("Width", "Height"))
    return (int(width), int(height)) if 0 < width < 1e6 and 0 < height < 1e6 else (0, 0)


def _number(image: ET.Element) -> float:
    number = _real(image.findtext("ImageNumber", ""))
    return number if math.isfinite(number) else 0.0


def _real(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
