"""Clinical files of known pixels and known identity, written by `struct` as their formats lay them out.

`.e2e`, `.fda` and `.fds` are minimal: what the readers and the published descriptions name, nothing else of a device's.
"""

import io
import struct
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from PIL import Image

FIRST, LAST, NUMBER = "Albertine", "Zweistein", "MRN7788123"
INVALID = np.float32(3.4028235e38)
TICKS_2019 = 131_962_176_000_000_000  # 2019-03-05, in 100 ns since 1601


def reflectivity(count: int = 3, height: int = 20, width: int = 32, seed: int = 0) -> np.ndarray:
    """Float32 [N, H, W] from 0 to 1 with some places without data."""
    values = np.random.default_rng(seed).random((count, height, width)).astype(np.float32) ** 4
    values[:, :2, :3] = INVALID
    return values


def vol_bytes(frames: np.ndarray, **changes: Any) -> bytes:
    """A `.vol` of float32 frames [N, H, W]; `changes` by the names below."""
    count, height, width = frames.shape
    value = {
        "magic": b"HSF-OCT-103", "width": width, "count": count, "height": height, "slo": (8, 6), "eye": b"OD",
        "ticks": TICKS_2019, "header": 512, "pid": 77, "patient": NUMBER.encode(), "birth": 11420.0,
        "visit": 43529.0, "grid": 1, "cst": 0.287,
    } | changes  # fmt: skip
    head = struct.pack("<12s3I3d", value["magic"], value["width"], value["count"], value["height"], 0.011, 0.1, 0.004)
    head += struct.pack("<2I2dId4sQ", *value["slo"], 0.01, 0.01, 30, -1.5, value["eye"], value["ticks"])
    head += struct.pack(
        "<2I16s16sI24sd", 3, value["header"], b"1234", b"", value["pid"], value["patient"], value["birth"]
    )
    body = bytes(8 * 6)
    for frame in frames:
        frame_head = struct.pack("<12sI4d", b"HSF-BS-103", value["header"], 0.0, 0.0, 1.0, 1.0)
        body += frame_head.ljust(512, b"\0") + frame.astype("<f4").tobytes()
    head += struct.pack("<I24sd4I", 5, b"", value["visit"], value["grid"], value.get("grid_at", 2048 + len(body)), 0, 0)
    sectors = [value["cst"], 0.25] + [0.3, 0.5] * 8
    return head.ljust(2048, b"\0") + body + struct.pack("<i5d4f18f", 3, 1, 3, 6, 0, 0, 0.26, 0.25, 0.3, 8.4, *sectors)


def naive_vol(content: bytes) -> np.ndarray:
    """The frames of `vol_bytes` as float32, read with offsets of this file alone."""
    width, count, height = struct.unpack_from("<3I", content, 12)
    start, step = 2048 + 48, 512 + 4 * width * height
    return np.stack(
        [
            np.frombuffer(content, "<f4", width * height, start + n * step + 512).reshape(height, width)
            for n in range(count)
        ]
    )


def heyex_files(folder: Path, frames: np.ndarray, name: str = "export.xml", **changes: Any) -> Path:
    """A HEYEX XML export of uint8 frames [N, H, W] with a fundus image, as TIFF beside it; returns the XML."""
    folder.mkdir(parents=True, exist_ok=True)
    value: dict[str, Any] = {
        "first": FIRST, "last": LAST, "number": NUMBER, "eye": "R", "day": (2019, 3, 5), "cst": "0.287", "head": "",
        "birth": (1931, 4, 7), "url": "file:///C:\\HRAExport\\{}", "more": "", "prefix": Path(name).stem,
    } | changes  # fmt: skip
    images = []
    for number, pixels in enumerate([np.full((24, 24), 90, np.uint8), *frames]):
        file = f"{value['prefix']}_{number:X}.tif"
        Image.fromarray(np.repeat(pixels[:, :, None], 3, 2)).save(folder / file)  # gray as RGB, as HEYEX writes it
        kind = "OCT" if number else "LOCALIZER"
        images.append(
            f"<Image><ImageNumber>{number}</ImageNumber><Laterality>{value['eye']}</Laterality><ImageType><Type>{kind}"
            f"</Type></ImageType><OphthalmicAcquisitionContext><Width>{pixels.shape[1]}</Width><Height>"
            f"{pixels.shape[0]}</Height></OphthalmicAcquisitionContext><ImageData><ExamURL>"
            f"{escape(value['url'].format(file))}</ExamURL></ImageData></Image>"
        )
    day, birth = (
        "<Date>"
        + "".join(f"<{k}>{v}</{k}>" for k, v in zip(("Year", "Month", "Day"), value[one], strict=True))
        + "</Date>"
        for one in ("day", "birth")
    )
    (folder / name).write_text(
        f"{value['head']}<HEDX><BODY><Patient><ID>1111</ID><PatientID>{value['number']}</PatientID><LastName>{value['last']}"
        f"</LastName><FirstNames>{value['first']}</FirstNames><Birthdate>{birth}</Birthdate><Study><StudyDate>{day}"
        "</StudyDate><Series><GeneralEquipment><Manufacturer>Heidelberg Engineering</Manufacturer>"
        "<ManufacturerModelName>Spectralis</ManufacturerModelName></GeneralEquipment><ThicknessGrid><CentralThickness>"
        f"0.26</CentralThickness><Zone><Name>C0</Name><AvgThickness>{value['cst']}</AvgThickness></Zone></ThicknessGrid>"
        f"{''.join(images)}{value['more']}</Series></Study></Patient></BODY></HEDX>"
    )
    return folder / name


def e2e_bytes(frames: np.ndarray, several: bool = False, **changes: Any) -> bytes:
    """An `.e2e` of uint16 codes [N, H, W]: two directories, the second linked from the first, and one chunk each."""
    value = {"circle": False, "size": frames.shape[1:], "entries": None, "start": 0, "patient": NUMBER} | changes
    person = struct.pack("<31s51s15sI1s25s", FIRST.encode(), LAST.encode(), b"", 11420, b"F", value["patient"].encode())
    side = bytes(14) + b"L" + bytes(12)
    time = bytes(88) + struct.pack("<Q", TICKS_2019) + bytes(8)
    fundus = struct.pack("<5I", 64, 0x02010201, 64, 8, 8) + bytes(64)
    chunks = [(9, -1, 0, person), (11, -1, 0, side), (10004, 0, 0, time), (0x40000000, 0, 0, fundus)]
    for number, frame in reversed(list(enumerate(frames))):  # not in the order of slices
        head = struct.pack("<5I", frame.nbytes, 0x02200201, frame.size, *value["size"])
        chunks.append((0x40000000, 2 * number, 1, head + frame.astype("<u2").tobytes()))
    out = bytearray(struct.pack("<12sI20x", b"CMDb", 0x64) + bytes(52))
    previous = 0
    for part in (chunks[:4], chunks[4:]):
        here = len(out)
        out += struct.pack("<12sI20x3I4x", b"MDbDir", 0x64, len(part), here, here if value["circle"] else previous)
        entries = len(out)
        out += bytes(44 * len(part))
        for number, (type_, slice_id, kind, content) in enumerate(part):
            place, start = entries + 44 * number, len(out) + value["start"]
            ids = struct.pack("<3Ii2HI", 1, 2, 3, slice_id, kind, 0, type_)
            out[place : place + 44] = struct.pack("<3I4x", place, start, len(content)) + ids + bytes(4)
            out += (
                struct.pack("<12sI", b"MDbData", 0) + struct.pack("<3I4x", place, start, len(content)) + ids + bytes(4)
            )
            out += content
        previous = here
    count = 6 if value["entries"] is None else value["entries"]
    out[36:88] = struct.pack("<12sI20x3I4x", b"MDbMDir", 0x64, count, previous, 0)
    return (b"E2EMultipleVolumeFile".ljust(64, b"\0") if several else b"") + bytes(out)


def jp2(pixels: np.ndarray) -> bytes:
    """A lossless JPEG 2000."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG2000", irreversible=False)
    return out.getvalue()


def topcon_bytes(frames: np.ndarray, compressed: bool = True, **changes: Any) -> bytes:
    """An `.fda` of uint8 frames as JPEG 2000, or an `.fds` of uint16 frames."""
    count, height, width = frames.shape
    value = {"count": count, "height": height, "width": width, "streams": None, "info": b"@PATIENT_INFO_02"} | changes
    shape = (value["width"], value["height"])
    if compressed:
        streams = value["streams"] or [jp2(frame) for frame in frames]
        scans = struct.pack("<B6I", 2, 0, 0, *shape, value["count"], 0)
        scans += b"".join(struct.pack("<I", len(one)) + one for one in streams)
    else:
        scans = struct.pack("<B4IBI", 2, *shape, 16, value["count"], 0, frames.nbytes) + frames.astype("<u2").tobytes()
    person = struct.pack("<32s32s32s8sB3H", NUMBER.encode(), FIRST.encode(), LAST.encode(), b"", 2, 1931, 4, 7)
    chunks = {
        value["info"]: person + bytes(504),
        b"@CAPTURE_INFO_02": struct.pack("<2BI100s6H", 1, 2, 9, b"", 2019, 3, 5, 10, 30, 0),
        b"@HW_INFO_03": b"3DOCT-1".ljust(90, b"\0"),
        b"@IMG_FUNDUS": bytes(64),
        b"@IMG_JPEG" if compressed else b"@IMG_SCAN_03": scans,
    }
    out = b"FOCT" + (b"FDA" if compressed else b"FDS") + bytes(8)
    for name, content in chunks.items():
        out += bytes([len(name)]) + name + struct.pack("<I", len(content)) + content
    return out + b"\0"


def zeiss_file(folder: Path, frames: np.ndarray, name: str | None = None) -> Path:
    """A Cirrus cube of uint8 frames [N, 1024, W], stored as Zeiss does: last first, upside down, from right to left."""
    count, _, width = frames.shape
    name = name or f"P0042_Macular Cube {width}x{count}_3-25-2019_9-5-2_OS_sn1234_cube_z.img"
    path = folder / name
    path.write_bytes(np.ascontiguousarray(frames[::-1, ::-1, ::-1]).tobytes())
    return path


def tiff_pages(path: Path, frames: np.ndarray, **options: Any) -> Path:
    """A TIFF with one page per frame."""
    images = [Image.fromarray(frame) for frame in frames]
    images[0].save(path, save_all=True, append_images=images[1:], **options)
    return path
