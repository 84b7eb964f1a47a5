"""What the client takes as an image."""

import io

import numpy as np
import pytest
from helpers.tiff_files import PHOTOMETRIC, tiff_of
from medimageparse_client import InvalidImage
from medimageparse_client.formats.picture import encode_image
from medimageparse_client.formats.shown_picture import decode_picture
from PIL import Image


def file_of(picture, kind="PNG", **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture
def rgb():
    return np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)


@pytest.mark.parametrize("name", ["a.png", "a.PNG", "a.jpg", "a.jpeg"])
def test_files_and_bytes_travel_as_they_are(name, rgb, tmp_path):
    stored = file_of(Image.fromarray(rgb), "PNG" if name.lower().endswith("png") else "JPEG")
    path = tmp_path / name
    path.write_bytes(stored)
    for source in (path, str(path), stored, bytearray(stored), memoryview(stored)):
        assert encode_image(source).data == stored


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3), (1, 1), (1, 9, 3)])
def test_arrays(shape):
    array = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    for kind in (array, np.asfortranarray(array), array[::-1][::-1]):
        with Image.open(io.BytesIO(encode_image(kind).data)) as picture:
            assert picture.format == "PNG"
            np.testing.assert_array_equal(np.asarray(picture), array)


@pytest.mark.parametrize(
    "array",
    [
        *(np.zeros(shape, np.uint8) for shape in [(4,), (), (4, 4, 4), (4, 4, 1), (4, 4, 2), (3, 4, 4), (1, 4, 4, 3)]),
        *(np.zeros((4, 4), dtype) for dtype in (bool, np.int8, np.uint16, ">u2", np.int64, np.float32, float, object)),
    ],
)
def test_other_arrays_are_refused(array):
    with pytest.raises(InvalidImage, match=r"uint8 \[H,W\] or \[H,W,3\]"):
        encode_image(array)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_pil_images(mode, rgb):
    picture = Image.fromarray(rgb).convert("L" if mode == "I;16" else mode)
    picture = Image.fromarray(np.asarray(picture, np.uint16) * 200) if mode == "I;16" else picture
    with Image.open(io.BytesIO(encode_image(picture).data)) as sent:
        assert sent.mode == mode
        np.testing.assert_array_equal(np.asarray(sent), np.asarray(picture))


def test_a_pil_image_is_its_pixels_as_they_lie(rgb):
    """Its masks fit numpy.asarray(image), whatever the file said about the way up."""
    exif = Image.Exif()
    exif[274] = 6
    with Image.open(io.BytesIO(file_of(Image.fromarray(rgb), "JPEG", exif=exif))) as picture:
        sent = encode_image(picture).data
        assert decode_picture(sent).size == picture.size == (7, 5)
    assert b"eXIf" not in sent


def test_masked_arrays_are_refused():
    """What lies under the mask is no part of the picture, and its values would be sent."""
    array = np.ma.masked_less(np.arange(16, dtype=np.uint8).reshape(4, 4), 7)
    with pytest.raises(InvalidImage, match=r"masked array.*array\.filled\(0\)"):
        encode_image(array)
    assert encode_image(array.filled(0)).data == encode_image(np.where(array.mask, 0, array.data)).data


@pytest.mark.parametrize(
    "mode", ["F", "CMYK", "I", "I;16B", "I;16L", "LAB", "YCbCr", "HSV", "PA", "La", "RGBa", "RGBX"]
)
def test_other_pil_images_are_refused(mode):
    with pytest.raises(InvalidImage, match=f"mode {mode} .* convert"):
        encode_image(Image.new(mode, (3, 3)))


@pytest.mark.parametrize("photometric", [0, 1], ids=["0 is white", "0 is black"])
@pytest.mark.parametrize(
    ("dtype", "sample_format"), [("u1", 1), ("i1", 2), ("<u2", 1), (">u2", 1), ("<i2", 2), ("<u4", 1), ("<f4", 3)]
)
def test_a_tiff_through_pil_is_right_or_refused(dtype, sample_format, photometric):
    """Pillow turns 8 bits round where 0 is white, 16 bits not, and takes signed bytes for unsigned."""
    array = (np.arange(48).reshape(6, 8) - 20 * (sample_format == 2)).astype(dtype)
    order = ">" if array.dtype.byteorder == ">" else "<"
    try:
        picture = Image.open(io.BytesIO(tiff_of(array, {PHOTOMETRIC: [photometric]}, order)))
    except OSError:  # Pillow refuses it
        return
    if sample_format == 1 and (dtype == "u1" or (dtype == "<u2" and photometric == 1)):
        with Image.open(io.BytesIO(encode_image(picture).data)) as sent:
            np.testing.assert_array_equal(np.asarray(sent), array if photometric else 255 - array)
    else:
        with pytest.raises(InvalidImage, match="convert it"):
            encode_image(picture)


@pytest.mark.parametrize("mode", ["P", "L", "RGB", "1"])
def test_what_is_see_through_stays_so(mode, rgb):
    stored = file_of(Image.fromarray(rgb).convert(mode), transparency=(1, 2, 3) if mode == "RGB" else 1)
    with Image.open(io.BytesIO(stored)) as picture, Image.open(io.BytesIO(encode_image(picture).data)) as sent:
        np.testing.assert_array_equal(np.asarray(sent.convert("RGBA")), np.asarray(picture.convert("RGBA")))


def test_a_jpeg_for_print_travels_as_it_is_but_not_through_pil(rgb):
    """Its inks are stored turned round by some programs; the server's decoder looks at that."""
    stored = file_of(Image.fromarray(rgb).convert("CMYK"), "JPEG")
    assert encode_image(stored).data == stored
    with Image.open(io.BytesIO(stored)) as picture, pytest.raises(InvalidImage, match="mode CMYK"):
        encode_image(picture)


def test_a_pil_image_whose_file_is_damaged(rgb):
    with (
        Image.open(io.BytesIO(file_of(Image.fromarray(rgb))[:-40])) as picture,
        pytest.raises(InvalidImage, match="cannot be read"),
    ):
        encode_image(picture)


@pytest.mark.parametrize("empty", [np.zeros((0, 3), np.uint8), Image.new("RGB", (0, 3))])
def test_images_without_pixels(empty):
    with pytest.raises(InvalidImage, match="no pixels"):
        encode_image(empty)


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"GIF89a" + bytes(200), bytes(400), b"II+\0" + bytes(40), b"BM" + bytes(40)]
)
def test_other_bytes_are_refused(data):
    with pytest.raises(InvalidImage, match="not a PNG, JPEG, TIFF, BMP, WebP or DICOM file"):
        encode_image(data)


@pytest.mark.parametrize(
    ("name", "sentence"), [("no.png", "No such file"), ("no.tif", "No such file"), ("folder.png", "Is a directory")]
)
def test_files_that_cannot_be_sent(name, sentence, tmp_path):
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(InvalidImage, match=sentence) as error:
        encode_image(tmp_path / name)
    assert name not in str(error.value)


def test_other_types_are_refused(rgb):
    with pytest.raises(InvalidImage, match="a path, bytes"):
        encode_image(rgb.tolist())


def test_a_window_is_for_dicom_only(rgb):
    with pytest.raises(InvalidImage, match="window belongs to CT slices"):
        encode_image(rgb, "lung")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright(orientation):
    """As EXIF means it: where row 0 and column 0 of the file lie on the upright picture."""
    sides = {1: "tl", 2: "tr", 3: "br", 4: "bl", 5: "lt", 6: "rt", 7: "rb", 8: "lb"}[orientation]
    stored = np.zeros((20, 30), np.uint8)
    stored[:5, :5] = 255  # the corner of row 0 and column 0
    upright = np.asarray(decode_picture(file_of(Image.fromarray(stored)), orientation))[..., 0]
    assert upright.shape == ((20, 30) if orientation < 5 else (30, 20))
    rows, columns = np.nonzero(upright)
    assert ("t" in sides) == (rows.min() == 0)
    assert ("l" in sides) == (columns.min() == 0)


def test_pictures_on_black(rgb):
    see_through = np.dstack([rgb, np.zeros((5, 7), np.uint8)])
    see_through[2:, :, 3] = 255
    shown = np.asarray(decode_picture(file_of(Image.fromarray(see_through))))
    assert (shown[:2] == 0).all()
    np.testing.assert_array_equal(shown[2:], rgb[2:])


def test_pictures_of_16_bits():
    stored = np.array([[0, 1000, 2000, 3000, 65535]], np.uint16)
    shown = np.asarray(decode_picture(file_of(Image.fromarray(stored)), grey_range=(1000, 3000)))
    assert shown[0, :, 0].tolist() == [0, 0, 127, 255, 255]
    assert np.asarray(decode_picture(file_of(Image.fromarray(stored))))[0, :, 0].tolist() == [0, 3, 7, 11, 255]
