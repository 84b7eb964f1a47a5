"""The kinds of files that are read as images: what looks at each before Pillow does, and Pillow's reader of it.

Pillow is not asked to guess, so no other of its readers ever runs.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from medimageparse_contract.image_formats import format_of
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from medimageparse_serving.image.bmp_file import check_bmp, fault_of_bmp
from medimageparse_serving.image.image_faults import fault_of_jpeg, fault_of_png
from medimageparse_serving.image.image_parts import Part, jpeg_parts, png_parts
from medimageparse_serving.image.limits import Limits
from medimageparse_serving.image.tiff_file import bits_of_tiff, check_tiff, fault_of_tiff, silent_libtiff, tiff_parts
from medimageparse_serving.image.webp_file import check_webp, fault_of_webp, webp_parts


@dataclass(frozen=True)
class Kind:
    """parts: what is counted. check: what is refused besides. fault: why it cannot be decoded. bits: of a channel.

    quiet: around decoding.
    """

    reader: type[ImageFile]
    parts: Callable[[bytes], Iterator[Part]]
    check: Callable[[bytes, Limits], None]
    fault: Callable[[bytes], str]
    bits: Callable[[bytes], int] = lambda file: 8
    quiet: Callable[[], AbstractContextManager[None]] = nullcontext


def nothing_more(file: bytes, limits: Limits) -> None:
    """Pillow itself says what the header states, and takes no memory for it."""


KINDS = {
    "PNG": Kind(PngImageFile, png_parts, nothing_more, fault_of_png, lambda file: file[24]),
    "JPEG": Kind(JpegImageFile, jpeg_parts, nothing_more, fault_of_jpeg),
    "TIFF": Kind(TiffImageFile, tiff_parts, check_tiff, fault_of_tiff, bits_of_tiff, silent_libtiff),
    "BMP": Kind(BmpImageFile, lambda file: iter(()), check_bmp, fault_of_bmp),
    "WEBP": Kind(WebPImageFile, webp_parts, check_webp, fault_of_webp),
}


def kind_of(file: bytes) -> Kind | None:
    """By the first bytes of a file."""
    name = format_of(file)
    return KINDS[name] if name else None
