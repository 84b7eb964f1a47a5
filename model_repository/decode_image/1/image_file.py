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
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

OUTPUTS = ("probabilities", "masks")
SEND = "send a PNG or JPEG file, as it is or in base64"

READERS = {b"\x89PNG\r\n\x1a\n": PngImageFile, b"\xff\xd8\xff": JpegImageFile}
START_OF_SCAN = b"\xff\xda"  # each one goes over the whole picture again; coded pixels cannot hold these bytes
# what else is sent now and then: where its mark stands, the mark, what to call it
OTHER_FORMATS = (
    (0, b"GIF8", "a GIF"),
    (0, b"II*\0", "a TIFF"),
    (0, b"MM\0*", "a TIFF"),
    (0, b"BM", "a BMP"),
    (0, b"RIFF", "a WebP"),
    (0, b"\0\0\0\x0cjP", "a JPEG 2000"),
    (4, b"ftyp", "a HEIC or AVIF"),
    (0, b"\x1f\x8b", "a gzip"),
    (128, b"DICM", "a DICOM"),
    (344, b"n+1\0", "a NIfTI"),
)
PERCENTILES = (0.5, 99.5)
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Limits:
    """The largest image that is taken; checked before memory for it is."""

    max_image_bytes: int
    max_pixels: int
    max_side: int
    max_scans: int


def decode_image(
    image: bytes, limits: Limits, output: str = "probabilities"
) -> tuple[NDArray[np.uint8], dict[str, Any]]:
    """File -> RGB [side,side,3], padded with black, and its geometry."""
    if output not in OUTPUTS:
        raise ValueError(f"output is unknown; send one of {', '.join(OUTPUTS)}, or leave it out")
    if len(image) > limits.max_image_bytes:
        raise ValueError(f"image has more than {limits.max_image_bytes} bytes, the limit of this server")
    file = find_file(image)
    if reader_of(file) is JpegImageFile and file.count(START_OF_SCAN) > limits.max_scans:
        raise ValueError(f"image is a JPEG of more than {limits.max_scans} scans; send it as a plain JPEG, or as PNG")
    picture = read_picture(file, limits)
    rgb, intensity = to_rgb(picture, is_16_bit(file))
    orientation = exif_orientation(picture)
    if orientation in UPRIGHT:
        rgb = rgb.transpose(UPRIGHT[orientation])
    width, height = rgb.size
    square = pad_to_square(np.asarray(rgb))
    side = len(square)
    top, left = margins(height, width)
    geometry = {
        "format": picture.format,
        "mode": picture.mode,
        "exif_orientation": orientation,
        "height": height,
        "width": width,
        "side": side,
        "top": top,
        "left": left,
        "intensity": intensity,
        "output": output,
    }
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
            raise ValueError(
                "image is neither a PNG or JPEG file nor valid base64 (A-Z, a-z, 0-9, + and slash, no data: prefix); "
                + SEND
            ) from error
        refuse_other_formats(image)
    if reader_of(image) is None:
        raise ValueError(f"image is neither a PNG nor a JPEG file; {SEND}")
    return image


def reader_of(image: bytes) -> type[ImageFile.ImageFile] | None:
    """By the first bytes of a file: Pillow is not asked to guess, so no other of its readers ever runs."""
    return next((reader for start, reader in READERS.items() if image.startswith(start)), None)


def refuse_other_formats(image: bytes) -> None:
    for offset, mark, name in OTHER_FORMATS:
        if image.startswith(mark, offset):
            raise ValueError(f"image is {name} file; {SEND}")


def read_picture(file: bytes, limits: Limits) -> ImageFile.ImageFile:
    """The decoded picture, not yet upright; its size is checked as the header states it."""
    with refusing_damaged():
        header = open_file(file)
    width, height = header.size
    if width * height > limits.max_pixels or max(width, height) > limits.max_side:
        raise ValueError(
            f"image is larger than this server takes, {limits.max_pixels} pixels and {limits.max_side} along a side; "
            "crop or shrink it"
        )
    if getattr(header, "is_animated", False):
        raise ValueError("image is an animated PNG; send one of its frames")
    with refusing_damaged():
        header.verify()  # the checksums of a PNG; it reads to the end and has to be opened again
        picture = open_file(file)
        picture.load()
    return picture


def open_file(file: bytes) -> ImageFile.ImageFile:
    reader = reader_of(file)
    assert reader is not None
    return reader(io.BytesIO(file))


@contextlib.contextmanager
def refusing_damaged() -> Iterator[None]:
    """What Pillow raises for a file that it cannot read is the caller's mistake; what it warns of does no harm."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except (OSError, SyntaxError, ValueError, IndexError, EOFError, struct.error) as error:
            raise ValueError(
                "image cannot be decoded: it is cut short, damaged, without pixels, or a JPEG of a rare kind "
                "(lossless, 12-bit); send the whole file again, or a PNG"
            ) from error


def is_16_bit(file: bytes) -> bool:
    return reader_of(file) is PngImageFile and file[24] == 16


def to_rgb(picture: Image.Image, is_16_bit: bool) -> tuple[Image.Image, dict[str, Any]]:
    """8-bit RGB on black, and what was done to its values."""
    if picture.mode == "I;16":  # 16-bit grey, the only kind whose lower bits Pillow keeps
        stored = np.array(picture)
        if "transparency" in picture.info:
            stored[stored == picture.info["transparency"]] = 0
        bounds = find_bounds(stored)
        grey = to_grey(np.arange(2**16), *bounds)[stored]
        return Image.fromarray(grey).convert("RGB"), {"used": "percentile", "bounds": list(bounds)}
    if picture.has_transparency_data:
        rgba = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)
    return picture.convert("RGB"), {"used": "high byte" if is_16_bit else "none", "bounds": None}


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
    return orientation if orientation in UPRIGHT else 1
