"""PNG and JPEG files in memory to squares: every kind of file, values, EXIF, limits, and what is refused."""

import base64
import io
import json
import struct
import tracemalloc
import zlib
from dataclasses import replace

import numpy as np
import pytest
from medimageparse_client.formats.shown_picture import decode_picture
from medimageparse_serving.image.geometry import Geometry, Intensity
from medimageparse_serving.image.image_file import decode_image
from medimageparse_serving.image.limits import Limits
from PIL import Image
from PIL.PngImagePlugin import PngInfo

PARTS = {"max_scans": 20, "max_parts": 1000, "max_metadata_bytes": 10**6}
LIMITS = Limits(max_image_bytes=10**6, max_pixels=10**5, max_side=1000, **PARTS)
RGB = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)
GREY = RGB[:, :, 0]
SECRET = b"zebrafish-7391"


def save(picture, kind="PNG", **options):
    content = io.BytesIO()
    picture = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    picture.save(content, kind, **options)
    return content.getvalue()


def smooth():
    """Colours that JPEG keeps almost as they are."""
    rows, columns = np.mgrid[0:120, 0:80]
    return np.stack([rows * 2, columns * 3, 255 - rows - columns], -1).astype(np.uint8)


def chunk(name, content=b""):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width, height, bits, colour, rows, *before):
    """A PNG written by hand, for kinds that Pillow does not write."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(before) + pixels + chunk(b"IEND")


def decode(image, limits=LIMITS):
    """What the file shows, cut out of the square, and the geometry."""
    square, geometry = decode_image(image, limits)
    assert square.dtype == np.uint8
    assert square.shape == (geometry.side, geometry.side, 3)
    rows = slice(geometry.top, geometry.top + geometry.height)
    columns = slice(geometry.left, geometry.left + geometry.width)
    around = square.copy()
    around[rows, columns] = 0
    assert not around.any()
    return square[rows, columns], geometry


def grey(values):
    return np.stack([values] * 3, -1)


def on_black(rgb, alpha):
    return np.rint(np.float64(rgb) * alpha[..., None] / 255)


@pytest.mark.parametrize(
    ("shape", "top", "left"),
    [
        ((9, 14), 2, 0),
        ((14, 9), 0, 2),
        ((9, 12), 1, 0),
        ((12, 9), 0, 1),
        ((7, 7), 0, 0),
        ((1, 6), 2, 0),
        ((1, 1), 0, 0),
    ],
)
def test_the_shorter_axis_is_padded_on_both_sides(shape, top, left):
    rgb = np.full((*shape, 3), 9, np.uint8)
    found, geometry = decode(save(rgb))
    assert np.array_equal(found, rgb)
    assert (geometry.height, geometry.width, geometry.side) == (*shape, max(shape))
    assert (geometry.top, geometry.left) == (top, left)


def test_a_square_stays_as_it_is():
    rgb = smooth()[:80]
    square, geometry = decode_image(save(rgb), LIMITS)
    assert np.array_equal(square, rgb)
    assert geometry == Geometry(
        format="PNG",
        mode="RGB",
        pages=1,
        exif_orientation=1,
        height=80,
        width=80,
        side=80,
        top=0,
        left=0,
        intensity=Intensity("none", None, []),
        warnings=[],
    )


def test_grey():
    found, geometry = decode(save(GREY))
    assert np.array_equal(found, grey(GREY))
    assert geometry.mode == "L"


def test_one_bit():
    found, geometry = decode(save(Image.fromarray(GREY > 100)))
    assert np.array_equal(found, grey((GREY > 100) * np.uint8(255)))
    assert geometry.mode == "1"


@pytest.mark.parametrize(("bits", "row", "values"), [(2, 0b00011011, [0, 85, 170, 255]), (4, 0x0F, [0, 255])])
def test_few_bits_of_grey_reach_from_black_to_white(bits, row, values):
    found, _ = decode(png(len(values), 2, bits, 0, [bytes([row])] * 2))
    assert np.array_equal(found, grey(np.uint8([values] * 2)))


def test_palette():
    palette = Image.fromarray(RGB).quantize(16)
    found, geometry = decode(save(palette))
    assert np.array_equal(found, np.asarray(palette.convert("RGB")))
    assert geometry.mode == "P"


@pytest.mark.parametrize("transparency", [3, bytes([255, 0, 255, 128] * 4)], ids=["one colour", "every colour"])
def test_palette_with_transparency(transparency):
    palette = Image.fromarray(RGB).quantize(16)
    alphas = transparency if isinstance(transparency, bytes) else [0 if index == 3 else 255 for index in range(16)]
    found, _ = decode(save(palette, transparency=transparency))
    alpha = np.uint8(list(alphas))[np.asarray(palette)]
    assert len(np.unique(alpha)) > 1
    assert np.abs(found - on_black(palette.convert("RGB"), alpha)).max() <= 1
    assert not found[alpha == 0].any()
    assert np.array_equal(found[alpha == 255], np.asarray(palette.convert("RGB"))[alpha == 255])


@pytest.mark.parametrize("colours", [GREY, RGB], ids=["LA", "RGBA"])
def test_alpha_is_composited_on_black(colours):
    alpha = np.random.default_rng(1).integers(0, 256, GREY.shape, dtype=np.uint8)
    alpha[:2], alpha[-2:] = 0, 255
    found, geometry = decode(save(np.dstack([colours, alpha])))
    expected = on_black(colours if colours.ndim == 3 else grey(colours), alpha)
    assert np.abs(found - expected).max() <= 1
    assert np.array_equal(found[[0, 1, -2, -1]], expected[[0, 1, -2, -1]])
    assert geometry.mode == ("LA" if colours.ndim == 2 else "RGBA")


def test_a_transparent_colour_becomes_black():
    found, _ = decode(save(RGB, transparency=tuple(RGB[3, 4].tolist())))
    assert not found[3, 4].any()
    assert np.array_equal(found[3, 5:], RGB[3, 5:])
    assert not decode(save(GREY, transparency=int(GREY[3, 4])))[0][GREY[3, 4] == GREY].any()


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_transparent_grey_of_few_bits_becomes_black(bits):
    """tRNS counts in the file's own levels."""
    levels = np.arange(2**bits)
    row = int("".join(f"{level:0{bits}b}" for level in levels).ljust(8, "0"), 2).to_bytes(max(1, bits * 2**bits // 8))
    for see_through in levels:
        found, _ = decode(png(2**bits, 1, bits, 0, [row], chunk(b"tRNS", struct.pack(">H", see_through))))
        shown = levels * 255 // (2**bits - 1)
        assert np.array_equal(found[0, :, 0], np.where(levels == see_through, 0, shown))


def test_a_transparent_16_bit_colour_becomes_black():
    stored = np.uint16([[[300, 300, 300], [65535, 65535, 65535], [60000, 1000, 513]]])
    rows = [row.astype(">u2").tobytes() for row in stored]
    for place in range(3):
        found, _ = decode(png(3, 1, 16, 2, rows, chunk(b"tRNS", stored[0, place].astype(">u2").tobytes())))
        expected = stored[0] >> 8
        expected[place] = 0
        assert np.array_equal(found[0], expected)


def test_16_bit_grey_is_scaled_from_percentiles_of_what_is_over_zero():
    stored = np.random.default_rng(2).integers(800, 4096, (60, 70), dtype=np.uint16)
    stored[:30] = 0
    stored[40, 40] = 65535
    found, geometry = decode(save(stored))
    low, high = np.percentile(stored[stored > 0], (0.5, 99.5))
    clipped = np.clip(np.float64(stored), low, high)
    expected = (clipped - clipped.min()) / (clipped.max() - clipped.min()) * 255
    assert np.array_equal(found, grey(expected.astype(np.uint8)))
    assert geometry.intensity == Intensity("percentile", [low, high], [])
    assert (found.min(), found.max()) == (0, 255)


@pytest.mark.parametrize(
    ("stored", "expected"),
    [([[0, 0, 7], [0, 7, 7]], [[0, 0, 255], [0, 255, 255]]), ([[0] * 3] * 2, 0), ([[900] * 3] * 2, 0)],
    ids=["mask", "zeros", "constant"],
)
def test_16_bit_grey_without_contrast(stored, expected):
    found, _ = decode(save(np.uint16(stored)))
    assert np.array_equal(found, grey(np.broadcast_to(np.uint8(expected), (2, 3))))


def test_a_transparent_16_bit_grey_becomes_black_and_does_not_count():
    stored = np.uint16([[60000, 1000, 2000], [60000, 3000, 4000]])
    rows = [row.astype(">u2").tobytes() for row in stored]
    found, geometry = decode(png(3, 2, 16, 0, rows, chunk(b"tRNS", struct.pack(">H", 60000))))
    assert not found[:, 0].any()
    assert geometry.intensity.bounds == np.percentile([1000, 2000, 3000, 4000], (0.5, 99.5)).tolist()


@pytest.mark.parametrize(("colour", "channels"), [(2, 3), (4, 2), (6, 4)], ids=["RGB", "LA", "RGBA"])
def test_of_16_bit_colours_the_high_byte_is_taken_and_said(colour, channels):
    stored = np.random.default_rng(3).integers(0, 2**16, (5, 6, channels), dtype=np.uint16)
    if channels != 3:
        stored[:, :, -1] = 65535
    found, geometry = decode(png(6, 5, 16, colour, [row.astype(">u2").tobytes() for row in stored]))
    high = (stored >> 8).astype(np.uint8)
    assert np.array_equal(found, high[:, :, :3] if channels > 2 else grey(high[:, :, 0]))
    assert geometry.intensity == Intensity("high byte", None, [])


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}], ids=str
)
def test_jpeg(options):
    found, geometry = decode(save(smooth(), "JPEG", quality=95, **options))
    assert np.abs(found.astype(int) - smooth()).mean() < 2
    assert (geometry.format, geometry.height, geometry.width) == ("JPEG", 120, 80)


def test_grey_and_cmyk_jpeg():
    found, geometry = decode(save(smooth()[:, :, 0], "JPEG", quality=95))
    assert geometry.mode == "L"
    assert np.abs(found.astype(int) - grey(smooth()[:, :, 0])).mean() < 2
    found, geometry = decode(save(Image.fromarray(smooth()).convert("CMYK"), "JPEG", quality=95))
    assert geometry.mode == "CMYK"
    assert np.abs(found.astype(int) - smooth()).mean() < 4


def without_adobe(jpeg):
    start = jpeg.index(b"\xff\xee")
    return jpeg[:start] + jpeg[start + 2 + int.from_bytes(jpeg[start + 2 : start + 4]) :]


def test_cmyk_that_does_not_say_whether_it_is_inverted_is_doubted():
    content = save(Image.fromarray(smooth()).convert("CMYK"), "JPEG", quality=95)
    assert decode(content)[1].warnings == []
    found, geometry = decode(without_adobe(content))
    assert np.array_equal(found, decode(content)[0])
    assert "CMYK" in the_warning(geometry)


def the_warning(geometry):
    (warning,) = geometry.warnings
    assert 40 < len(warning) < 300
    assert "send" in warning or "set it" in warning
    return warning


def test_of_a_jpeg_with_several_pictures_the_first_is_taken():
    several = save(smooth(), "MPO", save_all=True, append_images=[Image.new("RGB", (80, 120))], quality=95)
    found, geometry = decode(several)
    assert np.abs(found.astype(int) - smooth()).mean() < 2
    assert geometry.format == "JPEG"


# where the stored picture's first row and first column lie in the upright picture (EXIF 2.3, table of Orientation)
STORED_AS = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: upright[:, ::-1].transpose(1, 0, 2),
    7: lambda upright: upright[::-1, ::-1].transpose(1, 0, 2),
    8: lambda upright: upright[::-1].transpose(1, 0, 2),
}


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("orientation", STORED_AS)
def test_every_exif_orientation_is_turned_upright(orientation, kind):
    upright = smooth()
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(STORED_AS[orientation](upright))
    found, geometry = decode(save(stored, kind, exif=exif, **({"quality": 95} if kind == "JPEG" else {})))
    assert geometry.exif_orientation == orientation
    assert (geometry.height, geometry.width) == (120, 80)
    assert np.abs(found.astype(int) - upright).mean() < (2 if kind == "JPEG" else 1e-9)


@pytest.mark.parametrize(
    "exif",
    [b"Exif\0\0no such thing", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0II*\0"],
    ids=range(4),
)
def test_a_damaged_exif_is_no_exif(exif):
    for kind in ("PNG", "JPEG"):
        assert decode(save(smooth(), kind, exif=exif))[1].exif_orientation == 1
    text = PngInfo()
    text.add_text("Raw profile type exif", "\nexif\n   4\nno hexadecimal\n")
    assert decode(save(RGB, pnginfo=text))[1].exif_orientation == 1


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_unknown_exif_orientation_is_upright(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    found, geometry = decode(save(RGB, exif=exif))
    assert np.array_equal(found, RGB)
    assert geometry.exif_orientation == 1


def exif_of(kind, content, count=1):
    """EXIF whose orientation is of another type than it should be: 1 byte, 3 short, 4 long, 5 rational, 11 float."""
    entry = struct.pack("<HHI", 0x0112, kind, count) + content
    return b"II*\0\x08\0\0\0\1\0" + entry + b"\0\0\0\0" + struct.pack("<II", 6, 1)


@pytest.mark.parametrize(
    "exif",
    [
        exif_of(3, b"\6\0\0\0"),
        exif_of(3, b"\6\0\6\0", 2),
        exif_of(4, b"\6\0\0\0"),
        exif_of(5, b"\x1a\0\0\0"),
        exif_of(9, b"\6\0\0\0"),
        exif_of(11, struct.pack("<f", 6)),
    ],
    ids=["short", "shorts", "long", "rational", "signed", "float"],
)
@pytest.mark.parametrize("place", ["before", "after"])
def test_an_orientation_in_any_number_is_read(exif, place):
    """eXIf may stand before or behind the pixels."""
    content = save(RGB)
    at = content.index(b"IDAT") - 4 if place == "before" else content.index(b"IEND") - 4
    found, geometry = decode(content[:at] + chunk(b"eXIf", exif) + content[at:])
    assert json.dumps(geometry.exif_orientation) == "6"
    assert np.array_equal(found, np.rot90(RGB, -1))


@pytest.mark.parametrize("exif", [exif_of(2, b"6\0\0\0", 2), exif_of(7, b"\6\0\0\0"), exif_of(3, bytes(4), 0)])
def test_an_orientation_that_is_no_number_is_upright(exif):
    found, geometry = decode(save(RGB, exif=b"Exif\0\0" + exif))
    assert np.array_equal(found, RGB)
    assert geometry.exif_orientation == 1


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize(
    "encode", [base64.b64encode, base64.encodebytes, lambda data: b" \r\n" + base64.b64encode(data)]
)
def test_base64_gives_the_same(kind, encode):
    content = save(RGB, kind)
    assert np.array_equal(decode(encode(content))[0], decode(content)[0])


def refusal(image, limits=LIMITS):
    with pytest.raises(ValueError, match=r"^image [^\n]*; (send|crop) [^\n]*$") as refused:
        decode_image(image, limits)
    sentence = str(refused.value)
    assert 20 < len(sentence) < 250
    for unwanted in ("/", "Error", ".py", "0x", SECRET.decode()):
        assert unwanted not in sentence
    return sentence


NOT_BASE64 = {
    "cut short": base64.b64encode(save(np.zeros((8, 8), np.uint8)))[:-3],
    "padding within": base64.b64encode(save(RGB)[:50]) + base64.b64encode(save(RGB)[50:]),
    "text": b"this is " + SECRET + b", a text file named .png\n",
    "path": b"images/" + SECRET + b".png",
    "JSON": b'{"image": "' + SECRET + b'"}',
    "URL-safe text": SECRET + b"-_",
}


@pytest.mark.parametrize("image", NOT_BASE64.values(), ids=NOT_BASE64)
def test_base64_mistakes_are_named(image):
    assert "nor valid base64" in refusal(image)


@pytest.mark.parametrize(
    "start", [b"data:image/png;base64,", b"data:;base64,", b" DATA:image/jpeg;charset=utf-8;base64,", b"data:,"]
)
def test_a_data_url_is_named(start):
    assert refusal(start + base64.b64encode(save(RGB))) == "image is a data URL; send only what follows the comma"


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_url_safe_base64_is_named(kind):
    encoded = base64.urlsafe_b64encode(save(RGB, kind))
    assert set(b"-_") & set(encoded)
    assert refusal(encoded).startswith("image is URL-safe base64")


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize(
    "change",
    [lambda file: file.decode("latin-1").encode(), lambda file: file.decode("utf-8", "replace").encode()],
    ids=["Latin-1", "UTF-8"],
)
def test_a_file_that_went_through_text_is_named(kind, change):
    changed = change(save(RGB, kind))
    for image in (changed, base64.b64encode(changed)):
        assert refusal(image).startswith("image was changed on its way as if it were text")


@pytest.mark.parametrize("change", [(b"\r\n", b"\n"), (b"\n", b"\r\n"), (b"\x89", b"\t")], ids=str)
def test_a_png_with_changed_ends_of_line_is_named(change):
    assert refusal(save(RGB).replace(*change)).startswith("image was changed on its way as if it were text")


@pytest.mark.parametrize("image", [b"", b"   ", b"text", b"BM", base64.b64encode(SECRET * 9), b"\x88PNG\r\n\x1a\n"])
def test_something_else_is_refused(image):
    assert refusal(image).startswith(("image is neither a file that is read here nor", "image is no file of a kind"))


OTHERS = {
    "a GIF": save(RGB, "GIF"),
    "a BigTIFF": b"II+\0\x08\0\0\0" + bytes(40),
    "a BigTIFF (big-endian)": b"MM\0+\0\x08\0\0" + bytes(40),
    "a HEIC or AVIF": b"\0\0\0\x18ftypheic" + bytes(40),
    "a HEIC or AVIF (AVIF)": b"\0\0\0\x1cftypavif" + bytes(40),
    "an MP4 or QuickTime": b"\0\0\0\x18ftypisom" + bytes(40),
    "a JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40),
    "a JPEG 2000 (codestream)": b"\xff\x4f\xff\x51\0\x2f" + bytes(40),
    "a JPEG XL": b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40),
    "a JPEG XL (codestream)": b"\xff\x0a" + bytes(40),
    "a PDF": b"%PDF-1.7\n" + SECRET,
    "a ZIP": b"PK\3\4" + SECRET,
    "a gzip": b"\x1f\x8b\x08" + SECRET,
    "a PGM": b"P5\n3 3\n255\n" + bytes(9),
    "an HTML": b"<!DOCTYPE html>\n<html>" + SECRET,
    "an HTML (plain)": b"\n <html lang='en'>" + SECRET,
    "an SVG": b"<svg xmlns=''>" + SECRET,
    "an XML or SVG": b"\xef\xbb\xbf<?xml version='1.0'?><svg>" + SECRET,
    "a DICOM": bytes(128) + b"DICM" + SECRET,
    "a DICOM (no preamble)": b"\2\0\0\0UL\4\0" + bytes(40),
    "a NIfTI": struct.pack("<i", 348) + bytes(340) + b"n+1\0" + bytes(100),
    "a NIfTI (version 2)": struct.pack("<i", 540) + b"n+2\0\r\n\x1a\n" + bytes(600),
    "an NRRD": b"NRRD0005\n" + SECRET,
    "a NumPy": b"\x93NUMPY\1\0" + SECRET,
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_format_is_named(name):
    for image in (OTHERS[name], base64.encodebytes(OTHERS[name])):
        what = name.partition(" (")[0]
        assert (
            refusal(image) == f"image is {what} file; send a PNG, JPEG, TIFF, BMP or WebP file, as it is or in base64"
        )


PNG, JPEG, PROGRESSIVE = save(RGB), save(smooth(), "JPEG"), save(smooth(), "JPEG", progressive=True)


@pytest.mark.parametrize("image", [PNG, JPEG, PROGRESSIVE], ids=["PNG", "JPEG", "progressive JPEG"])
def test_a_file_that_is_cut_short_is_refused_wherever_it_is_cut(image):
    for length in sorted({*range(8, len(image), len(image) // 25), *range(len(image) - 20, len(image))}):
        if length < len(image) - (4 if image is PNG else 0):  # the checksum of a PNG's end mark, which is empty
            assert "cut short" in refusal(image[:length])


def test_a_damaged_png_is_refused():
    for position in range(8, len(PNG), 7):
        damaged = bytearray(PNG)
        damaged[position] ^= 0x55
        refusal(bytes(damaged))


@pytest.mark.parametrize("name", [b"IHDR", b"IDAT", b"tEXt"])
def test_a_wrong_checksum_is_called_that(name):
    text = PngInfo()
    text.add_text("Comment", "none")
    content = bytearray(save(RGB, pnginfo=text))
    at = content.index(name)
    end = at + 4 + int.from_bytes(content[at - 4 : at])
    content[end + 3] ^= 1
    assert refusal(bytes(content)).startswith(
        "image cannot be decoded: a checksum in the PNG does not match, so it was"
    )


FRAME = b"\xff\xc0\x00\x11\x08"  # of JPEG: baseline, 8 bits
UNREADABLE = {
    "no width": (png(0, 4, 8, 0, [b""] * 4), "has no pixels"),
    "no height": (png(4, 0, 8, 0, []), "has no pixels"),
    "header and end": (PNG[:33] + PNG[-12:], "has no pixels"),
    "no palette": (png(4, 1, 2, 3, [b"\x1b"]), "the palette is missing"),
    "unknown colour type": (png(4, 2, 8, 5, [bytes(4)] * 2), "is damaged"),
    "pixels that are not packed": (PNG[:33] + chunk(b"IDAT", SECRET) + PNG[-12:], "is damaged"),
    "PNG that ends in text": (PNG[:60] + SECRET * 20, "cut short"),
    "12-bit JPEG": (JPEG.replace(FRAME, b"\xff\xc1\x00\x11\x0c"), "is a JPEG of 12 bits"),
    "lossless JPEG": (JPEG.replace(FRAME, b"\xff\xc3\x00\x11\x08"), "is a JPEG of the lossless kind"),
    "lossless JPEG of 16 bits": (JPEG.replace(FRAME, b"\xff\xc3\x00\x11\x10"), "is a JPEG of the lossless kind"),
    "lossless arithmetic JPEG": (JPEG.replace(FRAME, b"\xff\xcb\x00\x11\x08"), "is a JPEG of the lossless kind"),
    "hierarchical JPEG": (JPEG.replace(FRAME, b"\xff\xc5\x00\x11\x08"), "is a JPEG of the hierarchical kind"),
    "JPEG-LS": (JPEG.replace(FRAME, b"\xff\xf7\x00\x11\x08"), "is a JPEG of the kind JPEG-LS"),
    "JPEG of two channels": (JPEG.replace(FRAME + b"\0\x78\0\x50\3", FRAME + b"\0\x78\0\x50\2"), "of 2 channels"),
    "JPEG without height": (JPEG.replace(FRAME + b"\0\x78", FRAME + b"\0\0"), "has no pixels"),
    "JPEG without tables": (JPEG.replace(b"\xff\xdb", b"\xff\xe9"), "is damaged"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_damage_is_said_of_damage_only(name):
    image, reason = UNREADABLE[name]
    assert image not in (PNG, JPEG)
    sentence = refusal(image)
    assert sentence.startswith("image cannot be decoded: it")
    assert reason in sentence
    assert ("damaged" in sentence) == (reason in ("is damaged", "cut short"))


def packed_rows(picture, adam7):
    """The bytes of a PNG's pixels; in Adam7's order as seven small pictures."""
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    parts = [picture[y::down, x::right] for x, y, right, down in passes] if adam7 else [picture]
    return b"".join(b"\0" + row.tobytes() for part in parts if part.shape[1] for row in part)


@pytest.mark.parametrize("adam7", [False, True], ids=["plain", "interlaced"])
@pytest.mark.parametrize("shape", [(9, 14), (8, 8), (3, 1), (1, 9)], ids=str)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_png_with_too_few_pixels_is_refused(bits, channels, shape, adam7):
    """The stream of pixels is whole, but ends before the picture does: decoders leave the rest black."""
    picture = np.random.default_rng(5).integers(1, 2**bits, (*shape, channels)).astype(">u2" if bits == 16 else "u1")
    picture[-1] = 0  # black at the end, as many scans are
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *shape[::-1], bits, colour, 0, 0, adam7))
    rows = packed_rows(picture, adam7)

    def file_of(stream, part_size=11):
        parts = [stream[start : start + part_size] for start in range(0, len(stream), part_size)]
        return PNG[:8] + header + b"".join(chunk(b"IDAT", part) for part in parts) + chunk(b"IEND")

    found, _ = decode(file_of(zlib.compress(rows + b"too much")))
    assert found.shape[:2] == shape
    for missing in (1, len(rows) // 3, len(rows) - 1):
        assert "cannot be decoded: it" in refusal(file_of(zlib.compress(rows[:-missing])))
    last_row = packed_rows(picture[-1:], False)
    if not adam7 and shape[0] > 1:  # Pillow itself says nothing of whole rows that are missing
        assert "fewer rows" in refusal(file_of(zlib.compress(rows.removesuffix(last_row)), 10**6))


def test_a_jpeg_that_was_cut_short_and_closed_again_is_doubted():
    start = JPEG.index(b"\xff\xda")
    for share in (0.1, 0.5, 0.9):
        length = start + int((len(JPEG) - start) * share)
        assert "cut short" in the_warning(decode(JPEG[:length] + b"\xff\xd9")[1])
    assert decode(JPEG)[1].warnings == []


@pytest.mark.parametrize("image", [PNG, JPEG, PROGRESSIVE], ids=["PNG", "JPEG", "progressive JPEG"])
@pytest.mark.parametrize(
    "behind",
    [b"\0" * 9, b"\r\n", SECRET, b"\xff\xda" * 99, np.random.default_rng(4).bytes(2**19), "another"],
    ids=["zeros", "end of line", "text", "scans", "anything", "another"],
)
def test_what_stands_behind_the_end_does_not_matter(image, behind):
    behind = image if behind == "another" else behind
    found, geometry = decode(image + behind)
    assert np.array_equal(found, decode(image)[0])
    assert geometry.warnings == []


def test_scans_within_other_segments_do_not_count():
    """A thumbnail in EXIF has its own scan, and a colour profile may hold any bytes."""
    segment = b"\xff\xe2" + struct.pack(">H", 402) + b"\xff\xda" * 200
    assert np.array_equal(decode(JPEG[:2] + segment + JPEG[2:])[0], decode(JPEG)[0])


@pytest.mark.parametrize("profile", [b"gAMA", b"cHRM", b"sRGB", b"sBIT", b"bKGD", b"pHYs"])
def test_colour_chunks_change_nothing(profile):
    content = {"gAMA": struct.pack(">I", 100000), "cHRM": bytes(32), "sRGB": b"\0", "sBIT": b"\5" * 3, "bKGD": bytes(6)}
    extra = chunk(profile, content.get(profile.decode(), struct.pack(">IIB", 9, 9, 1)))
    assert np.array_equal(decode(PNG[:33] + extra + PNG[33:])[0], RGB)


def test_an_animated_png_is_refused():
    frames = save(RGB, save_all=True, append_images=[Image.fromarray(255 - RGB)])
    assert refusal(frames) == "image is an animated PNG; send one of its frames"
    assert np.array_equal(decode(save(RGB, save_all=True))[0], RGB)


def scan(seed, highest=1.0):
    """A smooth picture of 0..highest on black."""
    rows, columns = np.mgrid[-1:1:90j, -1:1:110j]
    noise = np.random.default_rng(seed).normal(0, 0.03, rows.shape)
    tissue = 0.45 + 0.3 * np.sin(3 * rows + seed) + 0.2 * np.cos(5 * columns) + noise
    return np.where(rows**2 + columns**2 < 0.8, np.clip(tissue, 0.02, 1), 0) * highest


def hounsfield(seed):
    """A slice of CT: air, fat, soft tissue, bone."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[-1:1:90j, -1:1:110j]
    from_middle = np.hypot(rows, columns)
    tissue = np.select([from_middle < 0.1, from_middle < 0.6, from_middle < 0.75], [600, 50, -100], -1000)
    return np.rint(tissue + generator.normal(0, 20, rows.shape)).clip(-1024)


def as_uint16(values):
    return np.rint(values).astype(np.uint16)


SEEDS = range(4)
EDGE = np.hypot(*np.mgrid[-1:1:90j, -1:1:110j]) > 1.1
MARKER = np.zeros((90, 110), bool)
MARKER[4:12, 4:16] = True
DOUBTFUL = {
    "all black": (lambda seed: np.zeros((9, 9), np.uint8), "of one colour"),
    "all white": (lambda seed: np.full((9, 9, 3), 255, np.uint8), "of one colour"),
    "all red": (lambda seed: np.full((9, 9, 3), [200, 30, 40], np.uint8), "of one colour"),
    "all 900 in 16 bits": (lambda seed: np.full((9, 9), 900, np.uint16), "of one colour"),
    "all transparent": (lambda seed: np.dstack([RGB, np.zeros(GREY.shape, np.uint8)]), "transparent counts as black"),
    "mask of 0 and 1": (lambda seed: (scan(seed) > 0.5).astype(np.uint8), "only 2 colours"),
    "mask of 0 and 255": (lambda seed: (scan(seed) > 0.5) * np.uint8(255), "only 2 colours"),
    "mask of one bit": (lambda seed: Image.fromarray(scan(seed) > 0.5), "only 2 colours"),
    "mask in 16 bits": (lambda seed: (scan(seed) > 0.5) * np.uint16(1), "only 2 colours"),
    "label map": (lambda seed: (scan(seed) * 6).astype(np.uint8), "colours, as a mask"),
    "label map in 16 bits": (lambda seed: (scan(seed) * 6).astype(np.uint16), "colours, as a mask"),
    "label map in colour": (lambda seed: with_palette((scan(seed) * 6).astype(np.uint8)), "colours, as a mask"),
    "12 bits cut to their high byte": (
        lambda seed: (as_uint16(scan(seed, 4095)) >> 8).astype(np.uint8),
        "hardly any contrast",
    ),
    "many labels": (lambda seed: (scan(seed) * 25).astype(np.uint8), "hardly any contrast"),
    "nearly black": (lambda seed: scan(seed, 30).astype(np.uint8), "hardly any contrast"),
    "nearly black with a marker": (
        lambda seed: np.where(MARKER & (scan(seed) > 2), 255, scan(seed, 30)).astype(np.uint8),
        "hardly any contrast",
    ),
    "nearly black in colour": (lambda seed: np.dstack([scan(seed, 30).astype(np.uint8)] * 3), "hardly any contrast"),
    "nearly white": (lambda seed: (240 + scan(seed, 14)).astype(np.uint8), "hardly any contrast"),
    "12 bits in 16 bits of colour": (lambda seed: colour_of_16_bits(scan(seed, 4095)), "hardly any contrast"),
    "12 bits in 16 bits with alpha": (lambda seed: grey_with_alpha(scan(seed, 4095)), "hardly any contrast"),
    "padded with 65535": (lambda seed: as_uint16(np.where(EDGE, 65535, scan(seed, 3000))), "the value 65535"),
    "padded with 63536": (lambda seed: as_uint16(np.where(EDGE, 63536, hounsfield(seed) + 1024)), "the value 63536"),
    "padded with 1, far below": (lambda seed: as_uint16(np.where(EDGE, 1, 30000 + scan(seed, 2000))), "the value 1,"),
    "a lead marker": (lambda seed: as_uint16(np.where(MARKER, 65535, scan(seed, 3000))), "the value 65535"),
    "signed as unsigned": (lambda seed: hounsfield(seed).astype(np.int16).view(np.uint16), "without their sign"),
    "HU + 1024": (lambda seed: as_uint16(hounsfield(seed) + 1024), "Hounsfield units + 1024"),
    "HU + 1000": (lambda seed: as_uint16((hounsfield(seed) + 1000).clip(0)), "Hounsfield units + 1024"),
    "HU + 32768": (lambda seed: as_uint16(hounsfield(seed) + 32768), "Hounsfield units + 32768"),
    "HU + 1024, clipped in air": (
        lambda seed: as_uint16(hounsfield(seed).clip(-500) + 1024),
        "Hounsfield units + 1024",
    ),
    "HU + 1024 in 0": (lambda seed: as_uint16(np.where(EDGE, 0, hounsfield(seed) + 1024)), "Hounsfield units + 1024"),
}


def with_palette(labels):
    picture = Image.fromarray(labels)
    picture.putpalette(np.random.default_rng(0).bytes(3 * 256))
    return picture


@pytest.mark.parametrize(
    ("value", "place", "content"),
    [(65535, EDGE, scan(0, 3000)), (63536, EDGE, hounsfield(0) + 1024), (1, EDGE, 30000 + scan(0, 2000)),
     (65535, MARKER, scan(0, 3000)), (9000, MARKER, scan(0, 3000))],
    ids=["65535", "63536", "far below", "marker", "less far"],
)  # fmt: skip
def test_padding_of_16_bits_is_black_and_left_out_of_percentiles(value, place, content):
    padded = np.where(place, value, as_uint16(content))
    found, geometry = decode(save(padded.astype(np.uint16)))
    without, expected = decode(save(np.where(place, 0, as_uint16(content)).astype(np.uint16)))
    assert geometry.intensity == replace(expected.intensity, padding=[value])
    assert np.array_equal(found, without)


def colour_of_16_bits(values):
    return png(110, 90, 16, 2, [row.repeat(3).tobytes() for row in as_uint16(values).astype(">u2")])


def grey_with_alpha(values):
    rows = np.dstack([as_uint16(values), np.full(values.shape, 65535)]).astype(">u2")
    return png(110, 90, 16, 4, [row.tobytes() for row in rows])


@pytest.mark.parametrize("name", DOUBTFUL)
def test_doubtful_grey_values_are_answered_with_a_warning(name):
    make, reason = DOUBTFUL[name]
    for seed in SEEDS:
        picture = make(seed)
        _, geometry = decode(picture if isinstance(picture, bytes) else save(picture))
        assert reason in the_warning(geometry)


CERTAIN = {
    "picture": lambda seed: scan(seed, 255).astype(np.uint8),
    "rather dark picture": lambda seed: scan(seed, 80).astype(np.uint8),
    "picture of low contrast": lambda seed: (90 + scan(seed, 60)).astype(np.uint8),
    "colours": lambda seed: np.dstack([scan(seed + i, 255).astype(np.uint8) for i in range(3)]),
    "one colour channel": lambda seed: np.dstack([scan(seed, 255).astype(np.uint8), *np.zeros((2, 90, 110), np.uint8)]),
    "palette": lambda seed: Image.fromarray(scan(seed, 255).astype(np.uint8)).quantize(64),
    "16 bits of 0..255": lambda seed: as_uint16(scan(seed, 255)),
    "16 bits of 0..1000": lambda seed: as_uint16(scan(seed, 1000)),
    "16 bits of 0..4095": lambda seed: as_uint16(scan(seed, 4095)),
    "16 bits of 0..65535": lambda seed: as_uint16(scan(seed, 65535)),
    "16 bits, saturated": lambda seed: as_uint16(scan(seed, 5000).clip(0, 3500)),
    "16 bits, a few hot pixels": lambda seed: as_uint16(
        np.where(np.random.default_rng(seed).random((90, 110)) < 0.001, 65535, scan(seed, 3000))
    ),
    "CT in a window": lambda seed: ((hounsfield(seed).clip(-160, 240) + 160) / 400 * 255).astype(np.uint8),
    "CT in a window, 16 bits": lambda seed: as_uint16((hounsfield(seed).clip(-160, 240) + 160) / 400 * 65535),
    "colours of 16 bits": lambda seed: colour_of_16_bits(scan(seed, 65535)),
}


@pytest.mark.parametrize("name", CERTAIN)
def test_usual_grey_values_get_no_warning(name):
    for seed in SEEDS:
        picture = CERTAIN[name](seed)
        assert decode(picture if isinstance(picture, bytes) else save(picture))[1].warnings == []


def exif_6():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


ALPHA = np.random.default_rng(1).integers(0, 256, GREY.shape, dtype=np.uint8)
STORED_16 = np.random.default_rng(2).integers(0, 4096, (9, 14), dtype=np.uint16)
SHOWN = {
    **{f"certain: {name}": make(0) for name, make in CERTAIN.items()},
    **{f"doubtful: {name}": make(0) for name, (make, _) in DOUBTFUL.items()},
    "1 bit": Image.fromarray(GREY > 100),
    "1 bit, white transparent": png(8, 1, 1, 0, [b"\x35"], chunk(b"tRNS", b"\0\1")),
    "2 bits": png(4, 1, 2, 0, [b"\x1b"]),
    "2 bits, white transparent": png(4, 1, 2, 0, [b"\x1b"], chunk(b"tRNS", b"\0\3")),
    "4 bits, one transparent": png(2, 1, 4, 0, [b"\x5f"], chunk(b"tRNS", b"\0\5")),
    "8 bits, one transparent": save(GREY, transparency=int(GREY[3, 4])),
    "colour, one transparent": save(RGB, transparency=tuple(RGB[3, 4].tolist())),
    "palette": Image.fromarray(RGB).quantize(16),
    "palette, one transparent": save(Image.fromarray(RGB).quantize(16), transparency=3),
    "palette with alpha": save(Image.fromarray(RGB).quantize(16), transparency=bytes([255, 0, 9, 128] * 4)),
    "palette too short": png(4, 1, 2, 3, [b"\x1b"], chunk(b"PLTE", bytes(range(100, 106)))),
    "LA": np.dstack([GREY, ALPHA]),
    "RGBA": np.dstack([RGB, ALPHA]),
    "16 bits, one transparent": png(
        14,
        9,
        16,
        0,
        [row.astype(">u2").tobytes() for row in STORED_16],
        chunk(b"tRNS", STORED_16[2, 2].astype(">u2").tobytes()),
    ),
    "16 bits of one or two values": np.uint16([[7, 7, 8], [8, 8, 8]]),
    "16-bit colour, one transparent": png(
        2, 1, 16, 2, [np.uint16([300, 300, 300, 65535, 9, 70]).astype(">u2").tobytes()], chunk(b"tRNS", b"\1\x2c" * 3)
    ),
    "gamma": PNG[:33] + chunk(b"gAMA", struct.pack(">I", 100000)) + PNG[33:],
    "PNG on its side": save(RGB, exif=exif_6()),
    "16 bits on their side": save(STORED_16, exif=exif_6()),
    "JPEG": JPEG,
    "JPEG on its side": save(smooth(), "JPEG", exif=exif_6()),
    "JPEG with broken EXIF": save(smooth(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"),
    "progressive JPEG": PROGRESSIVE,
    "grey JPEG": save(smooth()[:, :, 0], "JPEG"),
    "CMYK JPEG": save(Image.fromarray(smooth()).convert("CMYK"), "JPEG"),
    "CMYK JPEG without a mark": without_adobe(save(Image.fromarray(smooth()).convert("CMYK"), "JPEG")),
    "JPEG of several pictures": save(smooth(), "MPO", save_all=True, append_images=[Image.new("RGB", (80, 120))]),
    "bytes behind the end": JPEG + SECRET,
}


@pytest.mark.parametrize("name", SHOWN)
def test_the_clients_preview_shows_what_the_networks_see(name):
    file = SHOWN[name] if isinstance(SHOWN[name], bytes) else save(SHOWN[name])
    seen, geometry = decode(file)
    bounds, padding = geometry.intensity.bounds, geometry.intensity.padding
    shown = np.asarray(decode_picture(file, geometry.exif_orientation, bounds, padding))
    assert np.array_equal(shown, seen)


def test_colours_that_the_palette_lacks_are_told():
    short = [chunk(b"PLTE", bytes(range(100, 106)))]
    found, geometry = decode(png(4, 1, 2, 3, [b"\x1b"], *short))
    assert found[0, :, 0].tolist() == [100, 103, 0, 0]
    assert "palette" in the_warning(geometry)
    assert not any("palette" in warning for warning in decode(png(4, 1, 2, 3, [b"\x11"], *short))[1].warnings)


def test_a_file_over_the_byte_limit_is_refused():
    limits = Limits(max_image_bytes=len(PNG), max_pixels=10**5, max_side=1000, **PARTS)
    decode(PNG, limits)
    with pytest.raises(ValueError, match=f"^image has more than {len(PNG)} bytes, the limit of this server$"):
        decode_image(PNG + b"x", limits)


def test_a_jpeg_of_endless_scans_is_refused():
    content = save(RGB, "JPEG", progressive=True)
    decode(content)
    last_scan = content[content.rindex(b"\xff\xda") : -2]
    assert refusal(content[:-2] + last_scan * 20 + content[-2:]) == (
        "image is a JPEG of more than 20 scans; send it as a plain JPEG, or as PNG"
    )


def jpeg_of_size(width, height):
    start = JPEG.index(b"\xff\xc0") + 5
    return JPEG[:start] + struct.pack(">HH", height, width) + JPEG[start + 4 :]


BOMBS = {
    "PNG": png(2**31 - 1, 2**31 - 1, 8, 6, [bytes(10)]),
    "16-bit PNG": png(60000, 60000, 16, 0, [bytes(10)]),
    "long PNG": png(1001, 1, 8, 0, [bytes(1001)]),
    "PNG of many pixels": png(320, 320, 1, 0, [bytes(40)] * 320),
    "JPEG": jpeg_of_size(65535, 65535),
}


@pytest.mark.parametrize("image", BOMBS.values(), ids=BOMBS)
def test_an_image_over_the_size_limits_takes_no_memory(image):
    tracemalloc.start()
    try:
        sentence = refusal(image)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sentence == "image is larger than this server takes, 100000 pixels and 1000 along a side; crop or shrink it"
    assert peak < 2**20


def test_text_that_unpacks_to_much_takes_no_memory():
    packed = zlib.compress(bytes(50 * 2**20))
    tracemalloc.start()
    try:
        for name, content in ((b"zTXt", b"key\0\0" + packed), (b"iCCP", b"icc\0\0" + packed)):
            bomb = png(4, 2, 8, 0, [bytes(4)] * 2, *[chunk(name, content)] * 3)
            try:
                decode_image(bomb, LIMITS)
            except ValueError as refused:
                assert "cannot be decoded" in str(refused)  # noqa: PT017 - an unread profile is no mistake
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * 2**20
