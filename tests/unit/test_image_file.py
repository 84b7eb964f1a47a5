"""PNG and JPEG files in memory to squares: every kind of file, values, EXIF, limits, and what is refused."""

import base64
import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from image_file import Limits, decode_image
from PIL import Image
from PIL.PngImagePlugin import PngInfo

LIMITS = Limits(max_image_bytes=10**6, max_pixels=10**5, max_side=1000, max_scans=20)
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


def decode(image, limits=LIMITS, **options):
    """What the file shows, cut out of the square, and the geometry."""
    square, geometry = decode_image(image, limits, **options)
    assert square.dtype == np.uint8
    assert square.shape == (geometry["side"], geometry["side"], 3)
    rows = slice(geometry["top"], geometry["top"] + geometry["height"])
    columns = slice(geometry["left"], geometry["left"] + geometry["width"])
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
    assert (geometry["height"], geometry["width"], geometry["side"]) == (*shape, max(shape))
    assert (geometry["top"], geometry["left"]) == (top, left)


def test_a_square_stays_as_it_is():
    rgb = smooth()[:80]
    square, geometry = decode_image(save(rgb), LIMITS)
    assert np.array_equal(square, rgb)
    assert geometry == {
        "format": "PNG",
        "mode": "RGB",
        "exif_orientation": 1,
        "height": 80,
        "width": 80,
        "side": 80,
        "top": 0,
        "left": 0,
        "intensity": {"used": "none", "bounds": None},
        "output": "probabilities",
    }


def test_output_is_passed_on():
    assert decode_image(save(RGB), LIMITS, "masks")[1]["output"] == "masks"
    with pytest.raises(ValueError, match="^output is unknown; send one of probabilities, masks, or leave it out$"):
        decode_image(save(RGB), LIMITS, "labels")


def test_grey():
    found, geometry = decode(save(GREY))
    assert np.array_equal(found, grey(GREY))
    assert geometry["mode"] == "L"


def test_one_bit():
    found, geometry = decode(save(Image.fromarray(GREY > 100)))
    assert np.array_equal(found, grey((GREY > 100) * np.uint8(255)))
    assert geometry["mode"] == "1"


@pytest.mark.parametrize(("bits", "row", "values"), [(2, 0b00011011, [0, 85, 170, 255]), (4, 0x0F, [0, 255])])
def test_few_bits_of_grey_reach_from_black_to_white(bits, row, values):
    found, _ = decode(png(len(values), 2, bits, 0, [bytes([row])] * 2))
    assert np.array_equal(found, grey(np.uint8([values] * 2)))


def test_palette():
    palette = Image.fromarray(RGB).quantize(16)
    found, geometry = decode(save(palette))
    assert np.array_equal(found, np.asarray(palette.convert("RGB")))
    assert geometry["mode"] == "P"


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
    assert geometry["mode"] == ("LA" if colours.ndim == 2 else "RGBA")


def test_a_transparent_colour_becomes_black():
    found, _ = decode(save(RGB, transparency=tuple(RGB[3, 4].tolist())))
    assert not found[3, 4].any()
    assert np.array_equal(found[3, 5:], RGB[3, 5:])
    assert not decode(save(GREY, transparency=int(GREY[3, 4])))[0][GREY[3, 4] == GREY].any()


def test_16_bit_grey_is_scaled_from_percentiles_of_what_is_over_zero():
    stored = np.random.default_rng(2).integers(800, 4096, (60, 70), dtype=np.uint16)
    stored[:30] = 0
    stored[40, 40] = 65535
    found, geometry = decode(save(stored))
    low, high = np.percentile(stored[stored > 0], (0.5, 99.5))
    clipped = np.clip(np.float64(stored), low, high)
    expected = (clipped - clipped.min()) / (clipped.max() - clipped.min()) * 255
    assert np.array_equal(found, grey(expected.astype(np.uint8)))
    assert geometry["intensity"] == {"used": "percentile", "bounds": [low, high]}
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
    assert geometry["intensity"]["bounds"] == np.percentile([1000, 2000, 3000, 4000], (0.5, 99.5)).tolist()


@pytest.mark.parametrize(("colour", "channels"), [(2, 3), (4, 2), (6, 4)], ids=["RGB", "LA", "RGBA"])
def test_of_16_bit_colours_the_high_byte_is_taken_and_said(colour, channels):
    stored = np.random.default_rng(3).integers(0, 2**16, (5, 6, channels), dtype=np.uint16)
    if channels != 3:
        stored[:, :, -1] = 65535
    found, geometry = decode(png(6, 5, 16, colour, [row.astype(">u2").tobytes() for row in stored]))
    high = (stored >> 8).astype(np.uint8)
    assert np.array_equal(found, high[:, :, :3] if channels > 2 else grey(high[:, :, 0]))
    assert geometry["intensity"] == {"used": "high byte", "bounds": None}


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}], ids=str
)
def test_jpeg(options):
    found, geometry = decode(save(smooth(), "JPEG", quality=95, **options))
    assert np.abs(found.astype(int) - smooth()).mean() < 2
    assert (geometry["format"], geometry["height"], geometry["width"]) == ("JPEG", 120, 80)


def test_grey_and_cmyk_jpeg():
    found, geometry = decode(save(smooth()[:, :, 0], "JPEG", quality=95))
    assert geometry["mode"] == "L"
    assert np.abs(found.astype(int) - grey(smooth()[:, :, 0])).mean() < 2
    found, geometry = decode(save(Image.fromarray(smooth()).convert("CMYK"), "JPEG", quality=95))
    assert geometry["mode"] == "CMYK"
    assert np.abs(found.astype(int) - smooth()).mean() < 4


def test_of_a_jpeg_with_several_pictures_the_first_is_taken():
    several = save(smooth(), "MPO", save_all=True, append_images=[Image.new("RGB", (80, 120))], quality=95)
    found, geometry = decode(several)
    assert np.abs(found.astype(int) - smooth()).mean() < 2
    assert geometry["format"] == "JPEG"


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
    assert geometry["exif_orientation"] == orientation
    assert (geometry["height"], geometry["width"]) == (120, 80)
    assert np.abs(found.astype(int) - upright).mean() < (2 if kind == "JPEG" else 1e-9)


@pytest.mark.parametrize(
    "exif",
    [b"Exif\0\0no such thing", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0II*\0"],
    ids=range(4),
)
def test_a_damaged_exif_is_no_exif(exif):
    for kind in ("PNG", "JPEG"):
        assert decode(save(smooth(), kind, exif=exif))[1]["exif_orientation"] == 1
    text = PngInfo()
    text.add_text("Raw profile type exif", "\nexif\n   4\nno hexadecimal\n")
    assert decode(save(RGB, pnginfo=text))[1]["exif_orientation"] == 1


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_unknown_exif_orientation_is_upright(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    found, geometry = decode(save(RGB, exif=exif))
    assert np.array_equal(found, RGB)
    assert geometry["exif_orientation"] == 1


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
    "URL-safe": base64.urlsafe_b64encode(b"\x89PNG\r\n\x1a\n\xff\xef" + bytes(range(256))),
    "data URL": b"data:image/png;base64," + base64.b64encode(save(RGB)),
    "cut short": base64.b64encode(save(np.zeros((8, 8), np.uint8)))[:-3],
    "padding within": base64.b64encode(save(RGB)[:50]) + base64.b64encode(save(RGB)[50:]),
    "text": b"this is " + SECRET + b", a text file named .png\n",
    "path": b"images/" + SECRET + b".png",
    "JSON": b'{"image": "' + SECRET + b'"}',
}


@pytest.mark.parametrize("image", NOT_BASE64.values(), ids=NOT_BASE64)
def test_base64_mistakes_are_named(image):
    assert "nor valid base64" in refusal(image)


@pytest.mark.parametrize(
    "image", [b"", b"   ", b"text", base64.b64encode(SECRET * 9), b"\x89PNG", b"\x89PNX\r\n\x1a\n"]
)
def test_something_else_is_refused(image):
    assert refusal(image).startswith("image is neither a PNG ")


OTHERS = {
    "a GIF": save(RGB, "GIF"),
    "a TIFF": save(RGB, "TIFF"),
    "a BMP": save(RGB, "BMP"),
    "a WebP": save(RGB, "WEBP"),
    "a HEIC or AVIF": b"\0\0\0\x18ftypheic" + bytes(40),
    "a JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40),
    "a gzip": b"\x1f\x8b\x08" + SECRET,
    "a DICOM": bytes(128) + b"DICM" + SECRET,
    "a NIfTI": struct.pack("<i", 348) + bytes(340) + b"n+1\0" + bytes(100),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_format_is_named(name):
    for image in (OTHERS[name], base64.encodebytes(OTHERS[name])):
        assert refusal(image) == f"image is {name} file; send a PNG or JPEG file, as it is or in base64"


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


DAMAGED = {
    "no width": png(0, 4, 8, 0, [b""] * 4),
    "no height": png(4, 0, 8, 0, []),
    "unknown colour type": png(4, 2, 8, 5, [bytes(4)] * 2),
    "no pixels": png(4, 2, 8, 0, []).replace(b"IDAT", b"tEXt"),
    "12-bit JPEG": JPEG.replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c"),
    "lossless JPEG": JPEG.replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc3\x00\x11\x08"),
    "PNG that ends in text": PNG[:60] + SECRET * 20,
}


@pytest.mark.parametrize("image", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_refused(image):
    assert image not in (PNG, JPEG)
    assert "cannot be decoded" in refusal(image)


def test_an_animated_png_is_refused():
    frames = save(RGB, save_all=True, append_images=[Image.fromarray(255 - RGB)])
    assert refusal(frames) == "image is an animated PNG; send one of its frames"
    assert np.array_equal(decode(save(RGB, save_all=True))[0], RGB)


def test_a_file_over_the_byte_limit_is_refused():
    limits = Limits(max_image_bytes=len(PNG), max_pixels=10**5, max_side=1000, max_scans=20)
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
