"""The bytes of an image file -> the picture as the server saw it."""

import warnings
from collections.abc import Sequence
from io import BytesIO

import numpy as np
from medimageparse_contract import exif
from medimageparse_contract.image_formats import FORMATS
from PIL import Image
from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, TiffImageFile

UPRIGHT = {orientation: Image.Transpose[name] for orientation, name in exif.UPRIGHT.items()}


def open_picture(data: bytes) -> Image.Image:
    """The picture in the bytes of an image file, not yet decoded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd chunks and tags, as the server does
        return Image.open(BytesIO(data), formats=FORMATS)


def upright_size(data: bytes, exif_orientation: int) -> tuple[int, int]:
    """Rows and columns of the picture in the bytes of an image file when it is turned upright."""
    picture = open_picture(data)
    columns, rows = picture.size
    if isinstance(
        picture, TiffImageFile
    ):  # some versions of PIL call its sides as they will be upright, some as stored
        columns, rows = picture.tag_v2[IMAGEWIDTH], picture.tag_v2[IMAGELENGTH]
    is_turned = exif_orientation in (5, 6, 7, 8)
    return (columns, rows) if is_turned else (rows, columns)


def decode_picture(
    data: bytes, exif_orientation: int = 1, grey_range: Sequence[float] | None = None, padding: Sequence[float] = ()
) -> Image.Image:
    """The picture (RGB) in the bytes of an image file as the server saw it: turned upright, on black.

    grey_range: the values of a 16-bit file that are black and white
    padding: those that are black wherever they lie
    """
    picture = open_picture(data)
    is_turned_by_pil = isinstance(picture, TiffImageFile)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        picture.load()
    see_through = picture.info.get("transparency")
    if picture.mode.startswith("I;16"):
        stored = np.array(picture, np.float64)
        if see_through is not None:
            stored[stored == see_through] = 0
        low, high = grey_range or (0, 2**16 - 1)
        grey = (np.clip(stored, low, high) - low) / ((high - low) or 1) * 255
        grey[np.isin(stored, padding)] = 0
        picture = Image.fromarray(grey.astype(np.uint8))
    elif picture.has_transparency_data:
        if isinstance(see_through, int | tuple) and picture.mode in ("L", "RGB"):
            picture.info["transparency"] = to_8_bits(see_through, data[24])  # only a PNG has such
        layer = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", layer.size, "black"), layer)
    picture = picture.convert("RGB")
    is_to_turn = exif_orientation in UPRIGHT and not is_turned_by_pil
    return picture.transpose(UPRIGHT[exif_orientation]) if is_to_turn else picture


def to_8_bits(see_through: int | tuple[int, ...], bits: int) -> int | tuple[int, ...]:
    """The transparent colour of a PNG as the decoded pixels have it: PIL leaves it as it stands in a file of `bits`."""
    if isinstance(see_through, tuple):
        return tuple(value >> max(0, bits - 8) & 255 for value in see_through)
    return see_through * 255 // (2**bits - 1) if see_through < 2**bits else see_through & 255
