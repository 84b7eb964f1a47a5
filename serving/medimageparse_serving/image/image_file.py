"""An image's file in memory -> an upright RGB square for the networks, and the geometry that leads back."""

import binascii
import contextlib
import io
import struct
import warnings
from collections.abc import Iterator

import numpy as np
from medimageparse_contract import exif
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile
from PIL.PngImagePlugin import PngImageFile

from medimageparse_serving.image.colours import to_rgb
from medimageparse_serving.image.geometry import Geometry
from medimageparse_serving.image.image_doubts import GREY_16, find_doubts
from medimageparse_serving.image.image_faults import (
    NO_PALETTE,
    SEND,
    TOO_FEW_ROWS,
    fault_of_base64,
    has_all_rows,
    refuse_other_formats,
)
from medimageparse_serving.image.image_kinds import Kind, kind_of
from medimageparse_serving.image.image_parts import check_parts
from medimageparse_serving.image.limits import Limits
from medimageparse_serving.image.tiff_file import count_pages
from medimageparse_serving.refused import Refused

MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", *GREY_16)  # Pillow's, all that is made RGB here
UPRIGHT = {orientation: Image.Transpose[name] for orientation, name in exif.UPRIGHT.items()}


def decode_image(image: bytes, limits: Limits) -> tuple[NDArray[np.uint8], Geometry]:
    """File -> RGB [side,side,3], padded with black, and its geometry."""
    if len(image) > limits.max_image_bytes:
        raise Refused(f"image has more than {limits.max_image_bytes} bytes, the limit of this server")
    file, kind = find_file(image)
    check_parts(kind.parts(file), limits.max_parts, limits.max_metadata_bytes, limits.max_scans)
    kind.check(file, limits)
    check_header(file, kind, limits)
    picture, orientation = read_picture(file, kind)
    rgb, intensity = to_rgb(picture, kind.bits(file))
    pages = count_pages(file) if picture.format == "TIFF" else 1
    doubts = [f"the TIFF has {pages} pages, and the first is read; send each of the others by itself"] * (pages > 1)
    doubts += find_doubts(picture, rgb, intensity.padding)
    if orientation in UPRIGHT and picture.format != "TIFF":  # Pillow turns those when it decodes them
        rgb = rgb.transpose(UPRIGHT[orientation])
    width, height = rgb.size
    square = pad_to_square(np.asarray(rgb))
    top, left = margins(height, width)
    geometry = Geometry(
        format=str(picture.format),
        mode=picture.mode,
        pages=pages,
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


def find_file(image: bytes) -> tuple[bytes, Kind]:
    """The file as it was before base64, and its kind."""
    if kind_of(image) is None:
        refuse_other_formats(image)
        try:
            image = binascii.a2b_base64(image.translate(None, b" \t\r\n"), strict_mode=True)
        except binascii.Error as error:
            raise Refused(fault_of_base64(image)) from error
        refuse_other_formats(image)
    kind = kind_of(image)
    if kind is None:
        raise Refused(f"image is no file of a kind that is read here; {SEND}")
    return image, kind


def check_header(file: bytes, kind: Kind, limits: Limits) -> None:
    """The size as the header states it, and the checksums of a PNG. What Pillow keeps of them goes at the end."""
    with refusing_unreadable(file, kind):
        header = kind.reader(io.BytesIO(file))
    limits.check_size(*header.size)
    if isinstance(header, PngImageFile):
        if getattr(header, "is_animated", False):
            raise Refused("image is an animated PNG; send one of its frames")
        with refusing_unreadable(file, kind):
            header.verify()  # it reads to the end, so the file has to be opened again


def read_picture(file: bytes, kind: Kind) -> tuple[ImageFile.ImageFile, int]:
    """The decoded picture, and its EXIF orientation; a TIFF is upright already, all others lie as they are stored."""
    with refusing_unreadable(file, kind), kind.quiet():
        picture = kind.reader(io.BytesIO(file))
        # gone when Pillow has turned the TIFF
        orientation = exif_orientation(picture) if picture.format == "TIFF" else None
        picture.load()
    if picture.mode not in MODES:
        raise Refused(f"image cannot be decoded: {kind.fault(file)}")
    if may_lack_rows(picture, file) and not has_all_rows(file):
        raise Refused(f"image cannot be decoded: {TOO_FEW_ROWS}")
    if picture.mode == "P" and picture.palette is None:
        raise Refused(f"image cannot be decoded: {NO_PALETTE}")
    return picture, exif_orientation(picture) if orientation is None else orientation


def may_lack_rows(picture: Image.Image, file: bytes) -> bool:
    """Whether a PNG's last row is black or transparent, as missing rows are; in interlaced files any row may be one."""
    last_row = (0, picture.height - 1, picture.width, picture.height)
    return picture.format == "PNG" and (bool(file[28]) or picture.crop(last_row).getbbox() is None)


@contextlib.contextmanager
def refusing_unreadable(file: bytes, kind: Kind) -> Iterator[None]:
    """What Pillow raises for a file that it cannot read is the caller's mistake; what it warns of does no harm."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except (OSError, SyntaxError, ValueError, LookupError, EOFError, struct.error) as error:
            raise Refused(f"image cannot be decoded: {kind.fault(file)}") from error


def exif_orientation(picture: Image.Image) -> int:
    """1 to 8; 1 if the file does not say, or says it in a way that cannot be read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
        except (OSError, SyntaxError, ValueError, TypeError, KeyError, EOFError, struct.error):
            return 1
    return int(orientation) if orientation in UPRIGHT else 1
