"""DICOM files of known pixels and known identity, written by pydicom and GDCM for tests."""

from pathlib import Path
from typing import Any

import gdcm
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian, RLELossless, generate_uid

TOMOGRAPHY = "1.2.840.10008.5.1.4.1.1.77.1.5.4"
PHOTOGRAPH = "1.2.840.10008.5.1.4.1.1.77.1.5.1"
NAME, NUMBER, BIRTH = "Zweistein^Albertine", "MRN-7788123", "19310407"


def dataset(frames: np.ndarray, **changes: Any) -> Dataset:
    """An Ophthalmic Tomography of uint8 or uint16 frames [N, H, W], uncompressed."""
    found = Dataset()
    found.file_meta = FileMetaDataset()
    found.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    found.file_meta.MediaStorageSOPClassUID = found.SOPClassUID = TOMOGRAPHY
    found.file_meta.MediaStorageSOPInstanceUID = found.SOPInstanceUID = generate_uid()
    found.PatientName, found.PatientID, found.PatientBirthDate = NAME, NUMBER, BIRTH
    found.StudyDate, found.Modality, found.ImageLaterality = "20190305", "OPT", "R"
    found.Manufacturer, found.ManufacturerModelName = "Acme", "Scanner 3"
    found.NumberOfFrames, found.Rows, found.Columns = frames.shape
    bits = 8 * frames.itemsize
    found.BitsAllocated, found.BitsStored, found.HighBit = bits, bits, bits - 1
    found.SamplesPerPixel, found.PixelRepresentation, found.PhotometricInterpretation = 1, 0, "MONOCHROME2"
    found.PixelData = frames.tobytes()
    found["PixelData"].VR = "OB" if bits == 8 else "OW"
    for name, value in changes.items():
        setattr(found, name, value)
    return found


def write_dicom(path: Path, frames: np.ndarray, **changes: Any) -> Path:
    """Write an uncompressed file."""
    dataset(frames, **changes).save_as(path, enforce_file_format=True)
    return path


def write_rle(path: Path, frames: np.ndarray, **changes: Any) -> Path:
    """Write a file compressed with RLE by pydicom's own encoder."""
    found = dataset(frames, **changes)
    found.compress(RLELossless, encoding_plugin="pydicom")
    found.save_as(path, enforce_file_format=True)
    return path


def write_compressed(path: Path, frames: np.ndarray, syntax: str, **changes: Any) -> Path:
    """Write a file compressed by GDCM: `syntax` is the name of one of its transfer syntaxes."""
    write_dicom(path, frames, **changes)
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(path))
    assert writer.Write()
    return path


def write_streams(path: Path, frames: np.ndarray, streams: list[bytes], syntax: str, **changes: Any) -> Path:
    """Write a file with these compressed streams, one per frame, whatever they hold."""
    found = dataset(frames, **changes)
    found.file_meta.TransferSyntaxUID = UID(syntax)
    found.PixelData = encapsulate(streams)
    found["PixelData"].is_undefined_length = True
    found.save_as(path, enforce_file_format=True)
    return path
