"""DICOM files and their headers -> the stored values of their slices.

Needs the extra `dicom`.
"""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
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
)

from medimageparse_client.errors import InvalidImage
from medimageparse_client.formats.dicom_header import DAMAGED, PIXEL_TAGS, PIXELS, PYDICOM_ERRORS, value_of

GDCM_PROGRAM = str(Path(__file__).with_name("dicom_gdcm.py"))
GDCM_TIMEOUT_S = 120
UNCOMPRESSED = "send it uncompressed (for example by gdcmconv --raw), or a PNG of it"


@dataclass(frozen=True, eq=False)
class StoredPixels:
    """What stands in the file, before any rescaling.

    values: [H,W], or [F,H,W] of several frames
    whole: the same with what stands in the bits above `n_bits`; `values` itself where nothing does
    n_bits: how many bits of each pixel count
    warnings: sentences for the report
    """

    values: npt.NDArray[Any] = field(repr=False)
    whole: npt.NDArray[Any] = field(repr=False)
    n_bits: int
    warnings: list[str]


def read_pixels(data: bytes, header: pydicom.Dataset) -> StoredPixels:
    """The slice [H,W] as it is stored."""
    [stored] = read_frames([(data, header)])
    if stored.values.ndim != 2:
        raise InvalidImage("the DICOM file's pixels are not one slice; send a PNG of it")
    return stored


def read_frames(files: Sequence[tuple[bytes, pydicom.Dataset]]) -> list[StoredPixels]:
    """The same of several files with one header each; of a file with several frames [F,H,W]."""
    syntaxes = [find_transfer_syntax(header) for _, header in files]
    warnings: list[list[str]] = [[] for _ in files]
    for_gdcm = [n for n, (_, header) in enumerate(files) if choose_decoder(syntaxes[n], header) == "gdcm"]
    decoded: dict[int, npt.NDArray[Any]] = {}
    syntax = syntaxes[0]
    try:
        if for_gdcm:
            syntax, shared = syntaxes[for_gdcm[0]], warnings[for_gdcm[0]]
            decoded.update(zip(for_gdcm, decode_apart([files[n][0] for n in for_gdcm], shared), strict=True))
        for n, (_, header) in enumerate(files):
            if n not in decoded:
                syntax = syntaxes[n]
                header.pixel_array_options(decoding_plugin=choose_decoder(syntax, header), correct_unused_bits=False)
                decoded[n] = header.pixel_array
    except PYDICOM_ERRORS:
        if not syntax.is_encapsulated:
            raise InvalidImage(DAMAGED) from None
        raise InvalidImage(
            f"the pixels of the DICOM file cannot be decoded as {syntax.name}: they are damaged, or compressed in a "
            f"rare way; send the file again, or {UNCOMPRESSED}"
        ) from None
    return [stored_pixels(decoded[n], syntaxes[n], files[n][1], warnings[n]) for n in range(len(files))]


def stored_pixels(pixels: npt.NDArray[Any], syntax: UID, header: pydicom.Dataset, warnings: list[str]) -> StoredPixels:
    """What was decoded, without the bits that do not count."""
    if pixels.ndim not in (2, 3) or not pixels.size:
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


def decode_apart(files: Sequence[bytes], warnings: list[str]) -> list[npt.NDArray[Any]]:
    """The pixels by GDCM, whose end is not ours: it gives up its process at some damaged files."""
    command = [sys.executable, "-P", GDCM_PROGRAM, *PIXEL_TAGS]
    sent = b"".join(part for data in files for part in (len(data).to_bytes(8, "little"), data))
    done = subprocess.run(command, input=sent, capture_output=True, timeout=GDCM_TIMEOUT_S, check=True)
    if b"Premature end" in done.stderr:
        raise ValueError("the stream ends too soon")
    if b"Corrupt" in done.stderr:
        warnings.append("the decoder met damage in the file's pixels; look at the preview, or send the file again")
    answer = BytesIO(done.stdout)
    return [np.asarray(np.load(answer)) for _ in files]


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
    n_bits: int = header.Rows * header.Columns * header.BitsAllocated * int(value_of(header, "NumberOfFrames") or 1)
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
