"""TIFF, BMP and WebP files to squares: values, what is refused, and that nothing of them is told."""

import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from helpers.image_answers import image_file
from helpers.tiff_files import (
    BITS,
    COLOURS,
    COMPRESSION,
    DESCRIPTION,
    EXIF,
    EXTRA,
    FORMAT,
    HEIGHT,
    KIND_OF_PAGE,
    ORIENTATION,
    PHOTOMETRIC,
    PLANES,
    ROWS,
    SAMPLES,
    STRIP_BYTES,
    TILE_HEIGHT,
    TILE_WIDTH,
    WIDTH,
    directory,
    tiff,
    tiff_of,
)
from medimageparse_client.formats.shown_picture import decode_picture, upright_size
from medimageparse_serving.image.image_file import decode_image
from medimageparse_serving.image.limits import Limits
from medimageparse_serving.refused import Refused
from PIL import Image
from PIL.TiffImagePlugin import OPEN_INFO

LIMITS = Limits(
    max_image_bytes=10**7, max_pixels=10**5, max_side=1000, max_scans=20, max_parts=1000, max_metadata_bytes=10**5
)
RGB = np.random.default_rng(0).integers(0, 256, (90, 140, 3), dtype=np.uint8)
GREY = RGB[..., 0]
GREY_16 = np.random.default_rng(1).integers(1, 4096, (90, 140)).astype(np.uint16)
SECRET = b"zebrafish-7391"
ORDERS = pytest.mark.parametrize("order", ["<", ">"], ids=["little endian", "big endian"])


@pytest.fixture(autouse=True)
def nothing_is_told(capfd, caplog):
    yield
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def decode(image):
    """What the file shows, and its geometry; the client's preview is the same picture."""
    square, geometry = decode_image(image, LIMITS)
    rows, columns = geometry.top + np.arange(geometry.height), geometry.left + np.arange(geometry.width)
    shown = square[rows][:, columns]
    bounds, padding = geometry.intensity.bounds, geometry.intensity.padding
    assert np.array_equal(np.asarray(decode_picture(image, geometry.exif_orientation, bounds, padding)), shown)
    assert upright_size(image, geometry.exif_orientation) == shown.shape[:2]
    return shown, geometry


def refusal(image):
    with pytest.raises(Refused, match=r"^image [^\n]*; (send|crop) [^\n]*$") as refused:
        decode_image(image, LIMITS)
    sentence = str(refused.value)
    assert len(sentence) < 250
    assert not any(unwanted in sentence for unwanted in ("/", "Error", "0x", SECRET.decode()))
    return sentence


def as_rgb(picture):
    return np.asarray(picture.convert("RGB"))


KINDS = {
    "BMP": ("BMP", {}, ("1", "L", "P", "RGB")),
    "WebP": ("WEBP", {"lossless": True, "exact": True}, ("RGB", "RGBA")),
    **{
        f"TIFF, {name}": ("TIFF", {"compression": name}, ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK"))
        for name in ("raw", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate", "packbits")
    },
}


@pytest.mark.parametrize(("kind", "mode"), [(kind, mode) for kind in KINDS for mode in KINDS[kind][2]])
def test_a_picture_is_read_as_the_same_png_is(kind, mode):
    name, options, _ = KINDS[kind]
    alpha = np.random.default_rng(2).integers(0, 256, GREY.shape, dtype=np.uint8)
    picture = Image.fromarray(np.dstack([RGB, alpha]) if "A" in mode else RGB).convert(mode)
    found, geometry = decode(image_file(picture, name, **options))
    expected, of_png = decode(image_file(picture.convert("RGB") if mode == "CMYK" else picture))
    assert np.array_equal(found, expected)
    assert (geometry.format, geometry.pages) == (name, 1)
    assert (geometry.height, geometry.width, geometry.warnings) == (90, 140, of_png.warnings)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate"])
def test_16_bit_grey_is_scaled_as_that_of_a_png_is(compression):
    found, geometry = decode(image_file(GREY_16, "TIFF", compression=compression))
    expected, of_png = decode(image_file(GREY_16))
    assert np.array_equal(found, expected)
    assert geometry.intensity == of_png.intensity


@ORDERS
def test_both_orders_of_bytes(order):
    of_grey, of_colours = decode(image_file(GREY_16)), np.uint16(RGB) * 257
    found, geometry = decode(tiff_of(GREY_16, order=order))
    assert np.array_equal(found, of_grey[0])
    assert geometry.intensity == of_grey[1].intensity
    found, geometry = decode(tiff_of(of_colours, order=order))
    assert np.array_equal(found, RGB)
    assert geometry.intensity.used == "high byte"


def test_a_lossy_webp_and_a_jpeg_within_a_tiff():
    rows, columns = np.mgrid[0:120, 0:80]
    smooth = np.stack([rows * 2, columns * 3, 255 - rows - columns], -1).astype(np.uint8)
    for image in (image_file(smooth, "WEBP", quality=95), image_file(smooth, "TIFF", compression="jpeg", quality=95)):
        assert np.abs(decode(image)[0].astype(int) - smooth).mean() < 3


@ORDERS
@pytest.mark.parametrize("compression", [1, 8], ids=["as they are", "Deflate"])
def test_tiles_and_planes(compression, order):
    pack = zlib.compress if compression == 8 else bytes
    padded = np.pad(RGB, ((0, 38), (0, 52), (0, 0)))
    tiles = [padded[y : y + 64, x : x + 64] for y in (0, 64) for x in (0, 64, 128)]
    shape = {WIDTH: [140], HEIGHT: [90], BITS: [8] * 3, COMPRESSION: [compression], PHOTOMETRIC: [2], SAMPLES: [3]}
    tiled = tiff([pack(tile.tobytes()) for tile in tiles], {**shape, TILE_WIDTH: [64], TILE_HEIGHT: [64]}, order)
    planes = [pack(RGB[y : y + 45, :, channel].tobytes()) for channel in range(3) for y in (0, 45)]
    assert np.array_equal(decode(tiled)[0], RGB)
    assert np.array_equal(decode(tiff(planes, {**shape, ROWS: [45], PLANES: [2]}, order))[0], RGB)


# where the stored picture's first row and first column lie in the upright picture
STORED_AS = {1: (1, 1, 0), 2: (1, -1, 0), 3: (-1, -1, 0), 4: (-1, 1, 0), 5: (1, 1, 1), 6: (1, -1, 1), 7: (-1, -1, 1),
             8: (-1, 1, 1)}  # fmt: skip


@pytest.mark.parametrize("orientation", STORED_AS)
@pytest.mark.parametrize("kind", ["TIFF", "TIFF of 16 bits", "packed TIFF", "WEBP"])
def test_every_orientation_is_turned_upright(kind, orientation):
    down, right, is_turned = STORED_AS[orientation]
    stored = GREY[::down, ::right]
    stored = np.ascontiguousarray(stored.T if is_turned else stored)
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    image = {
        "TIFF": lambda: tiff_of(stored, {ORIENTATION: [orientation]}),
        "TIFF of 16 bits": lambda: tiff_of(stored.astype(np.uint16), {ORIENTATION: [orientation]}, ">"),
        "packed TIFF": lambda: image_file(stored, "TIFF", compression="tiff_lzw", exif=tags),
        "WEBP": lambda: image_file(stored, "WEBP", lossless=True, exif=tags),
    }[kind]()
    found, geometry = decode(image)
    upright, _ = decode(image_file(GREY.astype(np.uint16) if kind == "TIFF of 16 bits" else GREY))
    assert geometry.exif_orientation == orientation
    assert np.array_equal(found, upright)


def test_the_first_page_is_read_and_the_others_are_told():
    found, geometry = decode(tiff_of(GREY, more_pages=[{}, {}]))
    assert np.array_equal(found[..., 0], GREY)
    assert geometry.pages == 3
    assert geometry.warnings == ["the TIFF has 3 pages, and the first is read; send each of the others by itself"]


@pytest.mark.parametrize("mark", [1, 4, 5], ids=["preview", "mask", "both"])
def test_previews_and_masks_are_no_pages(mark):
    assert decode(tiff_of(GREY, more_pages=[{KIND_OF_PAGE: [mark]}]))[1].pages == 1
    assert decode(tiff_of(GREY, {KIND_OF_PAGE: [mark]}, more_pages=[{KIND_OF_PAGE: [0]}]))[1].pages == 2


@pytest.mark.parametrize("key", OPEN_INFO, ids=str)
def test_every_kind_that_pillow_knows_is_read_or_refused_by_name(key):
    mark, colours, formats, fill_order, bits, extra = key
    n_bytes = (9 * sum(bits) + 7) // 8 * 6
    tags = {WIDTH: [9], HEIGHT: [6], BITS: bits, PHOTOMETRIC: [colours], SAMPLES: [len(bits)], ROWS: [6]}
    tags |= {FORMAT: formats * (len(bits) // len(formats)), 266: [fill_order], **({EXTRA: extra} if extra else {})}
    tags |= {COLOURS: list(range(3 * 2 ** bits[0]))} if colours == 3 else {}
    image = tiff([np.random.default_rng(3).bytes(n_bytes)], tags, "<" if mark == b"II" else ">")
    try:
        decode(image)
    except Refused as refused:
        rare = str(refused)
    else:
        return
    assert names_what_is_rare(rare, formats, bits, colours, fill_order, extra)


def names_what_is_rare(sentence, formats, bits, colours, fill_order, extra):
    """Whether a sentence says what is rare of a TIFF."""
    return (
        ("floats or signed" in sentence and formats != (1,))
        or ("32 bits" in sentence and bits == (32,))
        or ("0 is white" in sentence and colours == 0)
        or ("colours of kind 8" in sentence and colours == 8)
        or ("rare kind" in sentence and (fill_order == 2 or extra == (1,)))
    )


FILES = {
    "BMP": image_file(RGB, "BMP"),
    "WebP": image_file(RGB, "WEBP"),
    "lossless WebP": image_file(RGB, "WEBP", lossless=True),
    "TIFF": tiff_of(RGB),
    "packed TIFF": image_file(RGB, "TIFF", compression="tiff_lzw"),
    "Pillow's TIFF": image_file(RGB, "TIFF"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_cut_short_is_refused_wherever_it_is_cut(name):
    image = FILES[name]
    for length in sorted({*range(20, len(image), len(image) // 25), *range(len(image) - 8, len(image))}):
        assert "cut short" in refusal(image[:length])


@pytest.mark.parametrize("name", FILES)
def test_what_stands_behind_the_end_does_not_matter(name):
    assert np.array_equal(decode(FILES[name] + SECRET * 99)[0], decode(FILES[name])[0])


BMP = FILES["BMP"]
WEBP = image_file(RGB, "WEBP", exif=Image.Exif().tobytes())
LOSSLESS = FILES["lossless WebP"]
ANIMATED = image_file(RGB, "WEBP", save_all=True, append_images=[Image.fromarray(255 - RGB)])
LARGE, DAMAGED, MANY = "image is larger than this server takes", "content is damaged", "more than 1000 segments"
NO_COMPRESSION = image_file(GREY, "TIFF", compression="tiff_lzw")
TILED = {TILE_WIDTH: [2**15], TILE_HEIGHT: [2**15]}
WRONG = {
    "BMP of run lengths": (BMP[:30] + b"\1" + BMP[31:], "is a BMP of run lengths"),
    "BMP of a JPEG": (BMP[:30] + b"\4" + BMP[31:], "is a BMP of a JPEG"),
    "BMP of an unknown kind": (BMP[:30] + b"\x63" + BMP[31:], DAMAGED),
    "BMP of 2 bits": (BMP[:28] + b"\2" + BMP[29:], "rare kind"),
    "BMP without pixels": (BMP[:18] + bytes(4) + BMP[22:], "has no pixels"),
    "BMP bomb": (BMP[:18] + struct.pack("<ii", 2**31 - 1, -(2**31)) + BMP[26:], LARGE),
    "animated WebP": (ANIMATED, "is an animated WebP"),
    "WebP bomb": (WEBP[:24] + b"\xff" * 6 + WEBP[30:], LARGE),
    "WebP of damaged pixels": (LOSSLESS[:30] + SECRET * 9 + LOSSLESS[156:], DAMAGED),
    "WebP without a picture": (b"RIFF\x0c\0\0\0WEBPabcd" + bytes(4), DAMAGED),
    "WebP of many chunks": (b"RIFF" + struct.pack("<I", 8012) + b"WEBP" + (b"abcd" + bytes(4)) * 1001, MANY),
    "TIFF bomb": (tiff_of(GREY, {WIDTH: [60000], HEIGHT: [60000], ROWS: [60000]}), LARGE),
    "TIFF bomb, packed": (
        tiff([zlib.compress(bytes(10**6))], {WIDTH: [2**31], HEIGHT: [2**31], COMPRESSION: [8]}),
        LARGE,
    ),
    "TIFF of a huge tile": (
        tiff([zlib.compress(bytes(9))], {WIDTH: [9], HEIGHT: [9], COMPRESSION: [8], **TILED}),
        DAMAGED,
    ),
    "TIFF of many strips": (tiff([b"\0"] * 1001, {WIDTH: [1], HEIGHT: [1001], BITS: [8], ROWS: [1]}), MANY),
    "TIFF of many pages": (tiff_of(GREY, more_pages=[{}] * 101), MANY),
    "TIFF of much text": (tiff_of(GREY, {DESCRIPTION: SECRET * 10**4}), "bytes besides its pixels"),
    "TIFF of too few strips": (tiff_of(GREY, {ROWS: [45]}), "cut short"),
    "TIFF of too many strips": (tiff([GREY.tobytes()] * 2, {WIDTH: [140], HEIGHT: [90], BITS: [8]}), DAMAGED),
    "TIFF of a strip too long": (tiff_of(GREY, {STRIP_BYTES: [2**31]}), "cut short"),
    "TIFF of many samples": (tiff_of(GREY, {SAMPLES: [7]}), "a TIFF of 7 values a pixel"),
    "TIFF of fax": (tiff_of(GREY, {COMPRESSION: [4]}), "a TIFF of compression 4"),
    "TIFF of JPEG as it was before": (tiff_of(GREY, {COMPRESSION: [6]}), "a TIFF of compression 6"),
    "TIFF of 16 bits, 0 is white": (tiff_of(GREY_16, {PHOTOMETRIC: [0]}), "0 is white"),
    "TIFF without a palette": (tiff_of(GREY, {PHOTOMETRIC: [3]}), "the palette is missing"),
    "TIFF without width": (tiff([bytes(9)], {HEIGHT: [3]}), "has no pixels"),
    "TIFF of two widths": (tiff_of(GREY, {WIDTH: [140, 140]}), DAMAGED),
    "TIFF of a width in text": (tiff_of(GREY, {WIDTH: SECRET}), DAMAGED),
    "TIFF of an uneven number of bits": (tiff_of(RGB, {BITS: [8, 8, 16]}), "a TIFF of 16 bits"),
    "TIFF of damaged LZW": (NO_COMPRESSION[:400] + SECRET * 99 + NO_COMPRESSION[1786:], "damaged"),
    "TIFF of damaged Deflate": (tiff([b"x" * 99], {WIDTH: [9], HEIGHT: [9], BITS: [8], COMPRESSION: [8]}), "damaged"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named_and_takes_no_memory(name):
    image, reason = WRONG[name]
    tracemalloc.start()
    try:
        assert reason in refusal(image)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**21


def test_a_jpeg_of_endless_scans_within_a_tiff_is_refused():
    content = image_file(RGB, "JPEG", progressive=True)
    shape = {WIDTH: [140], HEIGHT: [90], BITS: [8] * 3, COMPRESSION: [7], PHOTOMETRIC: [6], SAMPLES: [3], ROWS: [90]}
    decode(tiff([content], shape))
    scan = content[content.rindex(b"\xff\xda") : -2]
    assert "more than 20 scans" in refusal(tiff([content[:-2] + scan * 20 + content[-2:]], shape))


def test_directories_that_lead_to_each_other_end():
    """A page after which it comes again, and an EXIF directory that is the page itself."""
    pixels, place = GREY.tobytes(), 8 + GREY.size
    tags = {
        WIDTH: [140],
        HEIGHT: [90],
        BITS: [8],
        COMPRESSION: [1],
        PHOTOMETRIC: [1],
        273: [8],
        STRIP_BYTES: [GREY.size],
    }
    for content in (directory(tags, place, "<", place), directory({**tags, EXIF: [place]}, place, "<")):
        found, geometry = decode(b"II" + struct.pack("<HI", 42, place) + pixels + content)
        assert np.array_equal(found[..., 0], GREY)
        assert geometry.pages == 1
