"""The bytes of a DICOM file -> its header, of one slice of grey pixels.

Needs the extra `dicom`. Of the header only TAGS are read.
"""

import logging
import struct
import subprocess
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any, BinaryIO

import numpy as np
import pydicom
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.uid import (
    UID,
    MediaStorageDirectoryStorage,
    MPEGTransferSyntaxes,
)

from medimageparse_client.errors import InvalidImage

# what a decoder has to know
PIXEL_TAGS = [
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelData",
]
# what it takes to know the pixels; nothing about the patient
TAGS: list[Any] = [
    *PIXEL_TAGS,
    "Modality",
    "PresentationLUTShape",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "FloatPixelPaddingValue",
    "FloatPixelPaddingRangeLimit",
    "DoubleFloatPixelPaddingValue",
    "DoubleFloatPixelPaddingRangeLimit",
    "RescaleIntercept",
    "RescaleSlope",
    "RescaleType",
    "ModalityLUTSequence",
    "VOILUTSequence",
    "SharedFunctionalGroupsSequence",  # where enhanced files keep the rescale tags
    "PerFrameFunctionalGroupsSequence",
    "FloatPixelData",
    "DoubleFloatPixelData",
]
WHOLE_NUMBERS = (
    "SamplesPerPixel",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
)
PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
DERIVED = ("SEG", "RTDOSE")  # modalities: there are pixels, but they are no picture to segment

PYDICOM_ERRORS = (
    InvalidDicomError,
    ArithmeticError,
    AttributeError,
    BytesLengthException,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    subprocess.SubprocessError,
    zlib.error,
)
DAMAGED = "the DICOM file is damaged or cut short; send it again, whole"


@contextmanager
def without_pydicoms_warnings() -> Iterator[None]:
    """They are about odd tags, are no help to a caller, and can hold what stands in the file, as its logs can."""
    names = [
        name for name in list(logging.root.manager.loggerDict) if name.partition(".")[0] in ("pydicom", "highdicom")
    ]
    loggers = [logging.getLogger(name) for name in names]

    def is_told(record: logging.LogRecord) -> bool:  # one for each call, so that threads do not take away each other's
        return False

    for logger in loggers:
        logger.addFilter(is_told)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        for logger in loggers:
            logger.removeFilter(is_told)


def read_header(data: bytes) -> pydicom.Dataset:
    """TAGS of a DICOM file, with or without preamble, that holds one slice of grey pixels."""
    try:
        header = pydicom.dcmread(BytesIO(data), force=True, specific_tags=TAGS)
    except PYDICOM_ERRORS:
        raise InvalidImage(DAMAGED) from None  # pydicom's words can hold bytes of the header
    check_is_grey_slice(header)
    return header


@without_pydicoms_warnings()
def holds_picture(file: BinaryIO) -> bool:
    """Whether a DICOM file seems to hold a picture; a damaged one that says so counts."""
    try:
        header = pydicom.dcmread(file, force=True, stop_before_pixels=True, specific_tags=["Modality", "Rows"])
        if header.get("Modality") in DERIVED:
            return False
        return "Rows" in header or "Image Storage" in UID(header.file_meta.get("MediaStorageSOPClassUID") or "").name
    except PYDICOM_ERRORS:
        return True  # reading it tells what is wrong


def value_of(header: pydicom.Dataset, name: str) -> Any:
    """The value of a tag; None where it is left out or empty."""
    try:
        return header.get(name)
    except PYDICOM_ERRORS:
        raise InvalidImage(
            f"the DICOM file's {name} cannot be read; the file is damaged, or was written wrongly"
        ) from None


def number_of(header: pydicom.Dataset, name: str) -> float | None:
    """The same of a tag with one number."""
    value = value_of(header, name)
    try:
        number = None if value is None else float(value)
    except (TypeError, ValueError):
        number = np.nan
    if number is not None and not np.isfinite(number):
        raise InvalidImage(f"the DICOM file's {name} is not one finite number; correct the tag, or send a PNG of it")
    return number


def check_is_grey_slice(header: pydicom.Dataset) -> None:
    """Refuses what is not one slice of grey pixels."""
    if value_of(header.file_meta, "MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
        raise InvalidImage("the file is a DICOMDIR, a list of other files; send one of these")
    if not any(name in header for name in PIXELS):
        raise InvalidImage(
            "the DICOM file holds no picture or is cut short; send a whole file with one slice of an image"
        )
    syntax = value_of(header.file_meta, "TransferSyntaxUID")
    if syntax in MPEGTransferSyntaxes:
        raise InvalidImage(f"the DICOM file is a video ({syntax.name}); send one picture of it as PNG")
    frames = int(number_of(header, "NumberOfFrames") or 1)
    if frames > 1:
        raise InvalidImage(f"the DICOM file holds {frames} frames; send one slice as a file of its own, or a PNG of it")
    has_floats = "PixelData" not in header
    needed = ["PhotometricInterpretation", "Rows", "Columns", "BitsAllocated"]
    needed += [] if has_floats else ["BitsStored", "PixelRepresentation"]
    missing = [name for name in needed if value_of(header, name) is None]
    if missing:
        raise InvalidImage(f"the DICOM file's header lacks {', '.join(missing)}; add it, or send a PNG of the slice")
    for name in WHOLE_NUMBERS:
        if not isinstance(value_of(header, name), int | None):
            raise InvalidImage(
                f"the DICOM file's {name} is not one whole number; correct it, or send a PNG of the slice"
            )
    photometric = header.PhotometricInterpretation
    if (value_of(header, "SamplesPerPixel") or 1) != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise InvalidImage("the DICOM file is in colour; save the picture as PNG and send that")
    if not has_floats and header.BitsAllocated not in (1, 8, 16, 32, 64):
        raise InvalidImage(
            f"the DICOM file has pixels of {header.BitsAllocated} bits, which cannot be read; send a PNG of it"
        )
