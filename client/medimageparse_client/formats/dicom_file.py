"""The bytes of a DICOM file -> its header and the stored values of its one slice of grey pixels.

Needs the extra `dicom`. Of the header only TAGS are read.
"""

import struct
import subprocess
import sys
import zlib
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.pixels.decoders.base import Decoder, get_decoder
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSTransferSyntaxes,
    MediaStorageDirectoryStorage,
    MPEGTransferSyntaxes,
)

from medimageparse_client.errors import InvalidImage

# what it takes to know the pixels; nothing about the patient
TAGS: list[Any] = [
    "Modality",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PresentationLUTShape",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
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
    "PixelData",
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
GDCM_PROGRAM = str(Path(__file__).with_name("dicom_gdcm.py"))
GDCM_TIMEOUT_S = 120
DAMAGED = "the DICOM file is damaged or cut short; send it again, whole"
UNCOMPRESSED = "send it uncompressed (for example by gdcmconv --raw), or a PNG of it"


@dataclass(frozen=True, eq=False)
class StoredPixels:
    """What stands in the file, before any rescaling.

    values: [H,W]
    whole: the same with what stands in the bits above `n_bits`; `values` itself where nothing does
    n_bits: how many bits of each pixel count
    warnings: sentences for the report
    """

    values: npt.NDArray[Any] = field(repr=False)
    whole: npt.NDArray[Any] = field(repr=False)
    n_bits: int
    warnings: list[str]


def read_header(data: bytes) -> pydicom.Dataset:
    """TAGS of a DICOM file, with or without preamble, that holds one slice of grey pixels."""
    try:
        header = pydicom.dcmread(BytesIO(data), force=True, specific_tags=TAGS)
    except PYDICOM_ERRORS:
        raise InvalidImage(DAMAGED) from None  # pydicom's words can hold bytes of the header
    check_is_grey_slice(header)
    return header


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


def read_pixels(data: bytes, header: pydicom.Dataset) -> StoredPixels:
    """The slice [H,W] as it is stored."""
    syntax = find_transfer_syntax(header)
    warnings: list[str] = []
    try:
        if choose_decoder(syntax, header) == "gdcm":
            pixels = decode_apart(data, warnings)
        else:
            header.pixel_array_options(decoding_plugin=choose_decoder(syntax, header), correct_unused_bits=False)
            pixels = header.pixel_array
    except PYDICOM_ERRORS:
        if not syntax.is_encapsulated:
            raise InvalidImage(DAMAGED) from None
        raise InvalidImage(
            f"the pixels of the DICOM file cannot be decoded as {syntax.name}: they are damaged, or compressed in a "
            f"rare way; send the file again, or {UNCOMPRESSED}"
        ) from None
    if pixels.ndim != 2 or not pixels.size:
        raise InvalidImage("the DICOM file's pixels are not one slice; send a PNG of it")
    if not syntax.is_encapsulated and (n_left_out := bytes_left_out(header)) > 1:
        warnings.append(
            f"the file holds {n_left_out} bytes more than its header's Rows and Columns need, which were left out; "
            "if the preview looks wrong, send a PNG"
        )
    n_bits = 8 * pixels.dtype.itemsize
    is_exact = pixels.dtype.kind == "f" or syntax in (*JPEG2000TransferSyntaxes, *JPEGLSTransferSyntaxes)
    if is_exact or header.BitsAllocated == 1 or not 0 < header.BitsStored < n_bits:
        return StoredPixels(pixels, pixels, n_bits, warnings)
    return StoredPixels(*without_unused_bits(pixels, header), header.BitsStored, warnings)


def choose_decoder(syntax: UID, header: pydicom.Dataset) -> str:
    """pydicom's name of a decoder that is installed, of several not GDCM; "" for what needs none."""
    names = decoder_of(syntax, header).available_plugins
    return min(names, key=lambda name: name == "gdcm", default="")


def decoder_of(syntax: UID, header: pydicom.Dataset) -> Decoder:
    """Pillow names itself for 12-bit JPEG too and then refuses; what decodes JPEG Lossless takes both."""
    is_12_bit = syntax == JPEGExtended12Bit and (value_of(header, "BitsStored") or 0) > 8
    return get_decoder(JPEGLosslessSV1 if is_12_bit else syntax)


def decode_apart(data: bytes, warnings: list[str]) -> npt.NDArray[Any]:
    """The pixels by GDCM, whose end is not ours: it gives up its process at some damaged files."""
    command = [sys.executable, "-P", GDCM_PROGRAM]
    done = subprocess.run(command, input=data, capture_output=True, timeout=GDCM_TIMEOUT_S, check=True)
    if b"Premature end" in done.stderr:
        raise ValueError("the stream ends too soon")
    if b"Corrupt" in done.stderr:
        warnings.append("the decoder met damage in the file's pixels; look at the preview, or send the file again")
    return np.asarray(np.load(BytesIO(done.stdout)))


def find_transfer_syntax(header: pydicom.Dataset) -> UID:
    """The file's, one that can be decoded here; a file that names none is as its elements are."""
    syntax: UID | None = value_of(header.file_meta, "TransferSyntaxUID")
    if syntax is None:
        is_implicit, is_little_endian = header.original_encoding
        explicit = ExplicitVRLittleEndian if is_little_endian else ExplicitVRBigEndian
        syntax = ImplicitVRLittleEndian if is_implicit else explicit
        header.file_meta.TransferSyntaxUID = syntax
    check_can_decode(syntax, header)
    if not syntax.is_encapsulated and "PixelData" in header and header["PixelData"].is_undefined_length:
        raise InvalidImage(f"the DICOM file does not say how its pixels are compressed; {UNCOMPRESSED}")
    return syntax


def check_can_decode(syntax: UID, header: pydicom.Dataset) -> None:
    """Refuses a transfer syntax for which there is no decoder."""
    name = syntax.name if syntax.is_valid else "unknown"  # a damaged one can hold bytes of the header
    try:
        is_available = decoder_of(syntax, header).is_available
    except NotImplementedError:
        raise InvalidImage(
            f"the DICOM file's transfer syntax is {name}, which cannot be read; {UNCOMPRESSED}"
        ) from None
    if not is_available:
        raise InvalidImage(
            f"the DICOM file's transfer syntax is {name}, whose decoder is not installed: "
            f"pip install 'medimageparse-client[dicom]', or {UNCOMPRESSED}"
        )


def bytes_left_out(header: pydicom.Dataset) -> int:
    """How many bytes of uncompressed pixels the header does not account for."""
    name = next(name for name in PIXELS if name in header)
    n_bits: int = header.Rows * header.Columns * header.BitsAllocated
    return len(value_of(header, name) or b"") - (n_bits + 7) // 8


def without_unused_bits(pixels: npt.NDArray[Any], header: pydicom.Dataset) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """The BitsStored bits up to HighBit, and the same with the bits above: an overlay, a padding, or anything."""
    n_bits, n_stored = 8 * pixels.dtype.itemsize, header.BitsStored
    is_signed = pixels.dtype.kind == "i"
    lowest, highest = (-(2 ** (n_stored - 1)), 2 ** (n_stored - 1) - 1) if is_signed else (0, 2**n_stored - 1)
    if lowest <= pixels.min() and pixels.max() <= highest:
        return pixels, pixels  # whatever HighBit says
    high_bit = value_of(header, "HighBit")
    high_bit = n_stored - 1 if high_bit is None else high_bit
    if not n_stored <= high_bit + 1 <= n_bits:
        raise InvalidImage("the DICOM file's BitsStored and HighBit contradict each other; send a PNG of the slice")
    values = (pixels << (n_bits - 1 - high_bit)) >> (n_bits - n_stored)
    return values, pixels if high_bit == n_stored - 1 else values
