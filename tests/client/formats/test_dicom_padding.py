"""PixelPaddingValue: pixels that are no part of the picture are black, and count nowhere."""

import numpy as np
import pydicom
import pytest
from helpers.dicom_files import dicom_bytes, dicom_file, dicom_header, grey_file
from medimageparse_client import Client, InvalidImage
from medimageparse_client.formats.dicom_slice import WINDOWS, read_slice
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

INSIDE = np.zeros((48, 40), bool)
INSIDE[8:40, 6:34] = True

# pixels' type, BitsStored -> what a writer may put around the picture, and how it may write that number
PADDINGS = [
    ("u2", 16, 65535, ("US", 65535)),
    ("u2", 16, 65535, ("SS", -1)),
    ("u2", 16, 63536, ("US", 63536)),
    ("u2", 16, 63536, ("SS", -2000)),
    ("u2", 16, 63536, ("OW", b"\x30\xf8")),
    ("u2", 16, 63536, ("IS", "63536")),
    ("u2", 16, 0, ("US", 0)),
    ("u2", 12, 4095, ("US", 4095)),
    ("u2", 12, 63536, ("US", 63536)),  # in bits that BitsStored leaves out
    ("u2", 12, 63536, ("SS", -2000)),
    ("u1", 8, 255, ("US", 255)),
    ("i2", 16, -2000, ("SS", -2000)),
    ("i2", 16, -2000, ("US", 63536)),
    ("i2", 16, -2000, ("SL", -2000)),
    ("i2", 16, -32768, ("SS", -32768)),
    ("i2", 16, -32768, ("US", 32768)),
    ("i2", 16, 32767, ("SS", 32767)),
    ("i2", 12, -2048, ("SS", -2048)),
    ("i2", 12, -2000, ("US", 2096)),  # the 12 bits of it
    ("i1", 8, -128, ("SS", -128)),
    ("i4", 32, -2000, ("SS", -2000)),
    ("u4", 32, 65535, ("US", 65535)),
]


def tissue(dtype, n_bits, seed=0):
    """Values well inside the range."""
    low, high = {8: (5, 90), 12: (100, 2000)}.get(n_bits, (100, 3000))
    return np.random.default_rng(seed).integers(low, high, INSIDE.shape).astype(dtype)


def expected_grey(inside, is_low_bright):
    """The rule for all but CT, told once more: on the pixels inside alone."""
    values = inside.max() - inside if is_low_bright else inside
    clipped = np.clip(values, *np.percentile(values[values > 0], (0.5, 99.5)))
    return (clipped - clipped.min()) / (clipped.max() - clipped.min()) * 255


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("modality", ["MR", "DX", "US", "PT"])
@pytest.mark.parametrize(("dtype", "n_bits", "padding", "tag"), PADDINGS)
def test_padding_is_black_and_counts_nowhere(dtype, n_bits, padding, tag, modality, photometric):
    pixels = tissue(dtype, n_bits)
    file = grey_file(
        np.where(INSIDE, pixels, padding).astype(dtype),
        Modality=modality,
        BitsStored=n_bits,
        PhotometricInterpretation=photometric,
        PixelPaddingValue=tag,
    )
    read = read_slice(file, None)
    assert (read.grey[~INSIDE] == 0).all()
    inside = pixels[INSIDE].astype(np.float64)
    np.testing.assert_allclose(read.grey[INSIDE], expected_grey(inside, photometric == "MONOCHROME1"))
    assert read.padding == (padding, padding)
    assert not read.warnings


@pytest.mark.parametrize("seed", range(60))
def test_padding_of_any_kind(seed):
    """Ranges of padding, in any order and encoding, with any rescaling that leaves pixels above 0."""
    rng = np.random.default_rng(seed)
    is_signed = bool(rng.integers(2))
    low, high = sorted(rng.choice([-30000, -2000, -1024, -1] if is_signed else [5000, 40000, 63536, 65535], 2, False))
    ends = [int(low), int(high)] if rng.integers(2) else [int(high), int(low)]
    if rng.integers(2):  # as the other type has it
        ends = [end % 2**16 if is_signed else (end + 2**15) % 2**16 - 2**15 for end in ends]
        vr = "US" if is_signed else "SS"
    else:
        vr = "SS" if is_signed else "US"
    pixels = rng.integers(1, 4000, INSIDE.shape)
    pixels[~INSIDE] = rng.integers(low, high + 1, (~INSIDE).sum())
    is_low_bright = bool(rng.integers(2))
    slope, intercept = float(rng.choice([0.5, 1, 2, 7.25])), float(rng.choice([0, 100, -50]))
    header = dicom_header(
        pixels.astype(np.int16 if is_signed else np.uint16),
        Modality=str(rng.choice(["MR", "DX", "CR", "NM", "PT"])),
        PhotometricInterpretation="MONOCHROME1" if is_low_bright else "MONOCHROME2",
        RescaleSlope=slope,
        RescaleIntercept=intercept,
        PixelPaddingValue=(vr, ends[0]),
        PixelPaddingRangeLimit=(vr, ends[1]),
    )
    if rng.integers(2):
        header.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    read = read_slice(dicom_bytes(header), None)
    assert read.padding == (low, high)
    assert (read.grey[~INSIDE] == 0).all()
    np.testing.assert_allclose(
        read.grey[INSIDE], expected_grey(pixels[INSIDE] * slope + intercept, is_low_bright), atol=1e-9
    )


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize(
    ("dtype", "padding", "tag"),
    [("i2", -2000, ("SS", -2000)), ("i2", -2000, ("US", 63536)), ("u2", 63536, ("US", 63536)), ("u2", 0, ("US", 0))],
)
def test_the_lowest_and_highest_of_a_ct_slice_are_not_its_padding(window, dtype, padding, tag):
    """The darkest tissue is black and the brightest white, as in a slice without a surround."""
    rng = np.random.default_rng(1)
    hounsfield = rng.integers(-20, 60, INSIDE.shape)  # within every window
    intercept = 0 if dtype == "i2" else -1024
    stored = np.where(INSIDE, hounsfield - intercept, padding).astype(dtype)
    read = read_slice(dicom_file(stored, RescaleIntercept=intercept, PixelPaddingValue=tag), window)
    inside = hounsfield[INSIDE]
    np.testing.assert_allclose(read.grey[INSIDE], (inside - inside.min()) / np.ptp(inside) * 255)
    assert (read.grey[~INSIDE] == 0).all()
    assert not read.warnings


def test_monochrome1_does_not_turn_hounsfield_units_round():
    stored = np.where(INSIDE, np.arange(40)[None] * 10 - 150, -2000).astype(np.int16)
    tags = {"PixelPaddingValue": ("SS", -2000)}
    turned = read_slice(dicom_file(stored, PhotometricInterpretation="MONOCHROME1", **tags), "abdomen")
    np.testing.assert_array_equal(turned.grey, read_slice(dicom_file(stored, **tags), "abdomen").grey)


@pytest.mark.parametrize("window", [None, "lung"])
@pytest.mark.parametrize(
    "tags",
    [
        {"PixelPaddingValue": ("US", 63536)},
        {"PixelPaddingValue": ("SS", -2000)},
        {"PixelPaddingValue": ("US", 4095)},
        {"PixelPaddingValue": ("US", 50000), "PixelPaddingRangeLimit": ("US", 60000)},
        {"PixelPaddingRangeLimit": ("US", 500)},  # a limit alone limits nothing
        {"PixelPaddingValue": ("US", None)},
    ],
)
def test_padding_that_no_pixel_has_changes_nothing(tags, window):
    pixels = np.random.default_rng(0).integers(0, 4000, (30, 30)).astype(np.uint16)
    kept = {"RescaleIntercept": -1024} if window else {"Modality": "MR", "RescaleSlope": None, "RescaleIntercept": None}
    plain, padded = (read_slice(dicom_file(pixels, **kept, **more), window) for more in ({}, tags))
    np.testing.assert_array_equal(padded.grey, plain.grey)
    assert (padded.bounds, padded.padding, padded.warnings) == (plain.bounds, None, ())


def test_a_value_that_only_8_bits_make_equal_is_no_padding():
    """63536 is 48 in its lowest 8 bits."""
    pixels = np.random.default_rng(0).integers(1, 255, (30, 30)).astype(np.uint8)
    assert read_slice(grey_file(pixels, PixelPaddingValue=("US", 63536)), None).padding is None


def test_a_range_that_covers_all_in_one_reading_is_taken_in_the_other():
    """-2000 to 0 in unsigned pixels: not 0 to 63536."""
    pixels = np.where(INSIDE, tissue("u2", 16), 0).astype(np.uint16)
    tags = {"PixelPaddingValue": ("SS", -2000), "PixelPaddingRangeLimit": ("SS", 0)}
    read = read_slice(grey_file(pixels, **tags), None)
    assert read.padding == (-2000, 0)
    assert (read.grey[INSIDE] > 0).any()


@pytest.mark.parametrize("window", [None, "lung"])
def test_a_slice_of_nothing_but_padding_is_not_sent(window):
    """No pixel is known to be measured, so nothing is guessed from them."""
    modality = "CT" if window else "MR"
    constant = np.full((20, 20), -2000, np.int16)
    with pytest.raises(InvalidImage, match="every pixel of the slice is padding"):
        read_slice(dicom_file(constant, Modality=modality, PixelPaddingValue=("SS", -2000)), window)
    varied = np.random.default_rng(0).integers(0, 100, (20, 20)).astype(np.int16)
    tags = {"PixelPaddingValue": ("SS", -1), "PixelPaddingRangeLimit": ("SS", 1000)}
    with pytest.raises(InvalidImage, match="every pixel of the slice is padding"):
        read_slice(dicom_file(varied, Modality=modality, **tags), window)


@pytest.mark.parametrize(("value", "sentence"), [(0, "no pixel above 0"), (7, "all one grey")])
def test_one_grey_within_padding_is_not_sent(value, sentence):
    pixels = np.where(INSIDE, value, 65535).astype(np.uint16)
    with pytest.raises(InvalidImage, match=sentence):
        read_slice(grey_file(pixels, PixelPaddingValue=("US", 65535)), None)


def test_padding_in_the_midst_of_the_values_is_black_and_doubted():
    pixels = np.where(INSIDE, tissue("u2", 16), 1000).astype(np.uint16)
    read = read_slice(grey_file(pixels, PixelPaddingValue=("US", 1000)), None)
    assert (read.grey[~INSIDE] == 0).all()
    (warning,) = read.warnings
    assert "PixelPaddingValue lies between" in warning
    assert "send a PNG" in warning


@pytest.mark.parametrize("tag", [("LO", "none"), ("US", [1, 2, 3]), ("OB", b"\1\2\3\4")])
def test_padding_that_is_not_one_number_is_told(tag):
    pixels = tissue("u2", 16)
    read = read_slice(grey_file(pixels, PixelPaddingValue=tag), None)
    assert read.padding is None
    (warning,) = read.warnings
    assert "PixelPaddingValue is not one number" in warning


@pytest.mark.parametrize(("keyword", "dtype"), [("FloatPixelData", "f4"), ("DoubleFloatPixelData", "f8")])
@pytest.mark.parametrize(("padding", "limit"), [(-1000.5, None), (np.nan, None), (1e9, 9e8)])
def test_padding_of_floats(keyword, dtype, padding, limit):
    pixels = tissue("f8", 16) / 7
    stored = np.where(INSIDE, pixels, padding).astype(dtype)
    prefix = keyword.removesuffix("Data")
    tags = {f"{prefix}PaddingValue": padding, f"{prefix}PaddingRangeLimit": limit}
    header = dicom_header(stored, Modality="MR", PixelData=None, BitsStored=None, PixelRepresentation=None, **tags)
    header.add_new(pydicom.datadict.tag_for_keyword(keyword), {"f4": "OF", "f8": "OD"}[dtype], stored.tobytes())
    read = read_slice(dicom_bytes(header), None)
    assert (read.grey[~INSIDE] == 0).all()
    np.testing.assert_allclose(read.grey[INSIDE], expected_grey(stored[INSIDE].astype(np.float64), False))


@pytest.mark.parametrize("syntax", [ExplicitVRBigEndian, ImplicitVRLittleEndian])
def test_padding_in_other_transfer_syntaxes(syntax):
    stored = np.where(INSIDE, tissue("i2", 16), -2000).astype(np.int16)
    swapped = stored.astype(">i2") if syntax == ExplicitVRBigEndian else stored
    header = dicom_header(swapped, Modality="MR", PixelPaddingValue=("SS", -2000))
    header.PixelData = swapped.tobytes()
    header.file_meta.TransferSyntaxUID = syntax
    read = read_slice(dicom_bytes(header), None)
    assert read.padding == (-2000, -2000)
    plain = read_slice(grey_file(stored, PixelPaddingValue=("SS", -2000)), None)
    np.testing.assert_array_equal(read.grey, plain.grey)


def test_the_report_tells_of_padding_and_of_doubts(triton):
    pixels = np.where(INSIDE, tissue("u2", 16), 1000).astype(np.uint16)
    with Client() as client:
        result = client.segment_image(grey_file(pixels, PixelPaddingValue=("US", 1000)), "bright")
    assert result.report["dicom"]["padding"] == [1000, 1000]
    assert any("PixelPaddingValue lies between" in warning for warning in result.report["warnings"])
