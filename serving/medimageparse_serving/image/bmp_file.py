"""What a BMP file says of itself, looked at before Pillow sees it."""

import struct

from medimageparse_serving.image.image_faults import CUT_SHORT, DAMAGED, NO_PIXELS, NOT_DECODED
from medimageparse_serving.image.limits import Limits
from medimageparse_serving.refused import Refused

FILE_HEADER = 14  # bytes
OLDEST = 12  # bytes of the header without a compression
KINDS = {0: "", 1: "run lengths", 2: "run lengths", 3: "", 4: "a JPEG", 5: "a PNG"}  # what BMPs are made of
WAY_OUT = "send it as PNG, or as BMP of 24 bits"


def check_bmp(file: bytes, limits: Limits) -> None:
    """Refuses compressed ones, and those whose pixels end early."""
    try:
        start, header = struct.unpack_from("<II", file, 10)
        width, height, bits = struct.unpack_from("<HHxxH" if header == OLDEST else "<IixxH", file, FILE_HEADER + 4)
        (kind,) = (0,) if header == OLDEST else struct.unpack_from("<I", file, FILE_HEADER + 16)
    except struct.error as error:
        raise Refused(f"image cannot be decoded: {CUT_SHORT}") from error
    if kind not in KINDS:
        raise Refused(f"image cannot be decoded: {DAMAGED}")
    if KINDS[kind]:
        raise Refused(f"image is a BMP of {KINDS[kind]}, which is not read here; send it as PNG or plain BMP")
    if not width or not height:
        raise Refused(f"image cannot be decoded: {NO_PIXELS}")
    limits.check_size(width, abs(height))
    if max(start, FILE_HEADER + header) + (width * bits + 31) // 32 * 4 * abs(height) > len(file):
        raise Refused(f"image cannot be decoded: {CUT_SHORT}")


def fault_of_bmp(file: bytes) -> str:
    """Nothing is missing, or `check_bmp` had said so."""
    return NOT_DECODED.format(WAY_OUT)
