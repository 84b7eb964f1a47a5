"""A PNG or JPEG file in memory -> an upright RGB square for the networks, and the geometry that leads back."""

import binascii
import contextlib
import io
import struct
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from medimageparse_contract import exif
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from medimageparse_serving.image.geometry import Geometry, Intensity
from medimageparse_serving.image.image_doubts import count_values, find_doubts, find_padding
from medimageparse_serving.image.image_faults import (
    NO_PALETTE,
    PNG_MARK,
    SEND,
    TOO_FEW_ROWS,
    fault_of_base64,
    fault_of_jpeg,
    fault_of_png,
    has_all_rows,
    refuse_other_formats,
)
from medimageparse_serving.image.image_parts import check_parts
from medimageparse_serving.refused import Refused

READERS = {PNG_MARK: PngImageFile, b"\xff\xd8\xff": JpegImageFile}
PERCENTILES = (0.5, 99.5)
UPRIGHT = {orientation: Image.Transpose[name] for orientation, name in exif.UPRIGHT.items()}


@dataclass(frozen=True)
class Limits:
    """The largest image that is taken. It is checked before memory is taken."""

    max_image_bytes: int
    max_pixels: int
    max_side: int
    max_scans: int
    max_parts: int  # segments of a JPEG, chunks of a PNG
    max_metadata_bytes: int


def decode_image(image: bytes, limits: Limits) -> tuple[NDArray[np.uint8], Geometry]:
    """File -> RGB [side,side,3], padded with black, and its geometry."""
    if len(image) > limits.max_image_bytes:
        raise Refused(f"image has more than {limits.max_image_bytes} bytes, the limit of this server")
    file = find_file(image)
    check_parts(file, limits.max_parts, limits.max_metadata_bytes, limits.max_scans)
    check_header(file, limits)
    picture = read_picture(file)
    rgb, intensity = to_rgb(picture, bits_of(file))
    doubts = find_doubts(picture, rgb, intensity.padding)
    orientation = exif_orientation(picture)
    if orientation in UPRIGHT:
        rgb = rgb.transpose(UPRIGHT[orientation])
    width, height = rgb.size
    square = pad_to_square(np.asarray(rgb))
    top, left = margins(height, width)
    geometry = Geometry(
        format=str(picture.format),
        mode=picture.mode,
        exif_orientation=orientation,
        height=height,
        width=width,
        side=len(square),
        top=top,
        left=left,
        intensity=intensity,
        warnings=doubts,
    )
    return square, geometry


def margins(height: int, width: int) -> tuple[int, int]:
    """Black rows above and columns to the left of the picture in its square; one more may lie on the other side."""
    side = max(height, width)
    return (side - height) // 2, (side - width) // 2


def pad_to_square(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[H,W,...] -> [side,side,...], black around it."""
    height, width = picture.shape[:2]
    side = max(height, width)
    top, left = margins(height, width)
    square = np.zeros((side, side, *picture.shape[2:]), np.uint8)
    square[top : top + height, left : left + width] = picture
    return square


def find_file(image: bytes) -> bytes:
    """The PNG or JPEG file as it was before base64."""
    if reader_of(image) is None:
        refuse_other_formats(image)
        try:
            image = binascii.a2b_base64(image.translate(None, b" \t\r\n"), strict_mode=True)
        except binascii.Error as error:
            raise Refused(fault_of_base64(image)) from error
        refuse_other_formats(image)
    if reader_of(image) is None:
        raise Refused(f"image is neither a PNG nor a JPEG file; {SEND}")
    return image


def reader_of(image: bytes) -> type[ImageFile.ImageFile] | None:
    """By the first bytes of a file: Pillow is not asked to guess, so no other of its readers ever runs."""
    return next((reader for start, reader in READERS.items() if image.startswith(start)), None)


def check_header(file: bytes, limits: Limits) -> None:
    """The size as the header states it, and the checksums of a PNG. What Pillow keeps of them goes at the end."""
    with refusing_unreadable(file):
        header = open_file(file)
    width, height = header.size
    if width * height > limits.max_pixels or max(width, height) > limits.max_side:
        raise Refused(
            f"image is larger than this server takes, {limits.max_pixels} pixels and {limits.max_side} along a side; "
            "crop or shrink it"
        )
    if getattr(header, "is_animated", False):
        raise Refused("image is an animated PNG; send one of its frames")
    with refusing_unreadable(file):
        header.verify()  # it reads to the end, so the file has to be opened again


def read_picture(file: bytes) -> ImageFile.ImageFile:
    """The decoded picture, not yet upright."""
    with refusing_unreadable(file):
        picture = open_file(file)
        picture.load()
    if may_lack_rows(picture, file) and not has_all_rows(file):
        raise Refused(f"image cannot be decoded: {TOO_FEW_ROWS}")
    if picture.mode == "P" and picture.palette is None:
        raise Refused(f"image cannot be decoded: {NO_PALETTE}")
    return picture


def may_lack_rows(picture: Image.Image, file: bytes) -> bool:
    """Whether a PNG's last row is black or transparent, as missing rows are; in interlaced files any row may be one."""
    last_row = (0, picture.height - 1, picture.width, picture.height)
    return reader_of(file) is PngImageFile and (bool(file[28]) or picture.crop(last_row).getbbox() is None)


def open_file(file: bytes) -> ImageFile.ImageFile:
    reader = reader_of(file)
    assert reader is not None
    return reader(io.BytesIO(file))


@contextlib.contextmanager
def refusing_unreadable(file: bytes) -> Iterator[None]:
    """What Pillow raises for a file that it cannot read is the caller's mistake; what it warns of does no harm."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except (OSError, SyntaxError, ValueError, IndexError, EOFError, struct.error) as error:
            fault = fault_of_png(file) if reader_of(file) is PngImageFile else fault_of_jpeg(file)
            raise Refused(f"image cannot be decoded: {fault}") from error


def bits_of(file: bytes) -> int:
    """The bits of each channel, as the file stores it."""
    return file[24] if reader_of(file) is PngImageFile else 8


def to_rgb(picture: Image.Image, bits: int) -> tuple[Image.Image, Intensity]:
    """8-bit RGB on black, and what was done to its values."""
    if picture.mode == "I;16":  # 16-bit grey, the only kind whose lower bits Pillow keeps
        stored = np.array(picture)
        if "transparency" in picture.info:
            stored[stored == picture.info["transparency"]] = 0
        padding = find_padding(count_values(stored))
        bounds = find_bounds(stored[~np.isin(stored, padding)] if padding else stored)
        grey_of = to_grey(np.arange(2**16), *bounds)
        grey_of[padding] = 0
        return Image.fromarray(grey_of[stored]).convert("RGB"), Intensity("percentile", list(bounds), padding)
    if picture.has_transparency_data:
        see_through = picture.info.get("transparency")
        if isinstance(see_through, int | tuple) and picture.mode in ("L", "RGB"):
            picture.info["transparency"] = to_8_bits(see_through, bits)
        rgba = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)
    return picture.convert("RGB"), Intensity("high byte" if bits == 16 else "none", None, [])


def to_8_bits(see_through: int | tuple[int, ...], bits: int) -> int | tuple[int, ...]:
    """The transparent colour as the decoded pixels have it: Pillow leaves it as it stands in a file of other bits."""
    if isinstance(see_through, tuple):
        return tuple(value >> max(0, bits - 8) & 255 for value in see_through)
    return see_through * 255 // (2**bits - 1) if see_through < 2**bits else see_through & 255


def find_bounds(stored: NDArray[Any]) -> tuple[float, float]:
    """The values that become 0 and 255: percentiles of what is over 0; all values if that shows no contrast."""
    positive = stored[stored > 0]
    low, high = np.percentile(positive, PERCENTILES).tolist() if positive.size else (0.0, 0.0)
    return (low, high) if low < high else (float(stored.min()), float(stored.max()))


def to_grey(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """low..high -> 0..255, fractions cut off; all 0 if nothing differs."""
    if high <= low:
        return np.zeros(values.shape, np.uint8)
    return ((np.clip(values, low, high) - low) / (high - low) * 255).astype(np.uint8)


def exif_orientation(picture: Image.Image) -> int:
    """1 to 8; 1 if the file does not say, or says it in a way that cannot be read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
        except (OSError, SyntaxError, ValueError, TypeError, KeyError, EOFError, struct.error):
            return 1
    return int(orientation) if orientation in UPRIGHT else 1
