"""Files of very many or large parts are refused by one look at each part, before Pillow sees them."""

import io
import re
import struct
import zlib

import numpy as np
import pytest
from helpers.places import ROOT
from medimageparse_serving.image.image_file import decode_image
from medimageparse_serving.image.image_kinds import kind_of
from medimageparse_serving.image.image_parts import check_parts
from medimageparse_serving.image.limits import Limits
from medimageparse_serving.refused import Refused
from PIL import Image, JpegImagePlugin, PngImagePlugin

LIMITS = Limits(2 * 10**7, 10**6, 1000, max_scans=20, max_parts=1000, max_metadata_bytes=10**5)
RGB = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
MANY = 10**6


def save(kind, **options):
    file = io.BytesIO()
    Image.fromarray(RGB).save(file, kind, **options)
    return file.getvalue()


JPEG, PNG = save("JPEG"), save("PNG")
START = JPEG.index(b"\xff\xdb")  # the first table; what stands before it is read too


def chunk(name, content=b""):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def jpeg_with(content, place=START):
    return JPEG[:place] + content + JPEG[place:]


def png_with(content, name=b"IDAT"):
    place = PNG.index(name) - 4
    return PNG[:place] + content + PNG[place:]


MANY_PARTS = {
    "empty application segments": jpeg_with(b"\xff\xe5\0\2" * MANY),
    "empty comments": jpeg_with(b"\xff\xfe\0\2" * MANY),
    "empty tables": jpeg_with(b"\xff\xdb\0\2" * MANY),
    "fill bytes": jpeg_with(b"\xff" * MANY),
    "junk between segments": jpeg_with(b"\1" * MANY),
    "escaped bytes": jpeg_with(b"\xff\0" * MANY),
    "end marks": jpeg_with(b"\xff\xd9" * MANY),
    "segments behind an end mark": jpeg_with(b"\xff\xd9" + b"\xff\xe5\0\2" * MANY),
    "restart marks": jpeg_with(b"\xff\xd0" * MANY),
    "segments in what Pillow does not pass over": jpeg_with((b"\xff\xf0\xff\xff" + b"\xff\xe5\0\2" * 16383) * 50),
    "segments of no length": jpeg_with(b"\xff\xe5\0\0" * MANY),
    "segments between scans": jpeg_with(b"\xff\xe5\0\2" * MANY, len(JPEG) - 2),
    "empty private chunks": png_with(chunk(b"prVt") * MANY),
    "empty chunks of pixels": png_with(chunk(b"IDAT") * MANY),
    "empty chunks behind the pixels": png_with(chunk(b"prVt") * MANY, b"IEND"),
    "texts": png_with(chunk(b"tEXt", b"a\0b") * MANY),
}
MUCH_METADATA = {
    "application segments": jpeg_with((b"\xff\xe5\xff\xff" + bytes(65533)) * 2),
    "comments": jpeg_with((b"\xff\xfe\x40\0" + bytes(0x3FFE)) * 8),
    "a private chunk": png_with(chunk(b"prVt", bytes(10**5 + 1))),
    "a chunk behind the pixels": png_with(chunk(b"prVt", bytes(10**5 + 1)), b"IEND"),
    "an EXIF": png_with(chunk(b"eXIf", bytes(10**5 + 1))),
}


def parts_of(image):
    return kind_of(image).parts(image)


@pytest.fixture
def _without_pillow(monkeypatch):
    """Pillow's readers must not even be asked."""
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "_open", lambda self: pytest.fail("Pillow saw the file"))
    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "_open", lambda self: pytest.fail("Pillow saw the file"))


@pytest.mark.usefixtures("_without_pillow")
@pytest.mark.parametrize("image", MANY_PARTS.values(), ids=MANY_PARTS)
def test_many_parts_are_refused(image):
    sentence = "^image has more than 1000 segments, chunks or strips; send it as a plain PNG or JPEG$"
    with pytest.raises(Refused, match=sentence):
        decode_image(image, LIMITS)


@pytest.mark.usefixtures("_without_pillow")
@pytest.mark.parametrize("image", MUCH_METADATA.values(), ids=MUCH_METADATA)
def test_much_besides_the_pixels_is_refused(image):
    sentence = "^image has more than 100000 bytes besides its pixels, such as comments or previews; send it "
    with pytest.raises(Refused, match=sentence):
        decode_image(image, LIMITS)


def test_the_look_ends_at_the_limit():
    """However long the file is: nothing behind the part over the limit is looked at."""
    behind = b"\xff\xe5\0\2" * 1000
    for image in (jpeg_with(behind + b"\xff\xe5"), png_with(chunk(b"prVt") * 1001 + b"no chunk")):
        with pytest.raises(Refused, match="more than 1000 segments, chunks or strips"):
            check_parts(parts_of(image), 1000, 10**5, 20)


@pytest.mark.parametrize(
    "image",
    [
        JPEG,
        PNG,
        save("JPEG", progressive=True),
        save("JPEG", restart_marker_rows=1),
        save("JPEG", icc_profile=bytes(90_000)),
        jpeg_with(b"\xff\xe5\0\2" * 900),
        png_with(chunk(b"prVt", b"x") * 900),
        jpeg_with(b"\xff\xd9" * 1000, len(JPEG)),  # behind the end mark
    ],
    ids=["JPEG", "PNG", "progressive", "restarts", "profile", "segments", "chunks", "behind the end"],
)
def test_what_is_within_the_limits_is_read(image):
    with Image.open(io.BytesIO(image)) as picture:
        expected = np.asarray(picture.convert("RGB"))
    square, geometry = decode_image(image, LIMITS)
    assert np.array_equal(square[geometry.top : geometry.top + geometry.height], expected)


def test_as_many_chunks_as_a_large_png_has_are_within_the_limit_that_is_shipped():
    config = (ROOT / "model_repository" / "decode_image" / "config.pbtxt").read_text()
    shipped = {name: int(value) for name, value in re.findall(r'key: "(\w+)" value { string_value: "(\d+)" }', config)}
    n_chunks = shipped["max_image_bytes"] // 8192  # the usual size of one
    chunks = chunk(b"IHDR", bytes(13)) + chunk(b"IDAT", bytes(8)) * n_chunks + chunk(b"IEND")
    check_parts(
        parts_of(PNG[:8] + chunks), *(shipped[name] for name in ("max_parts", "max_metadata_bytes", "max_scans"))
    )
