"""What the numbers of a DICOM slice mean: bits, signs, rescaling, lookup tables, and which end is bright."""

import numpy as np
import pytest
from helpers.dicom_files import STORAGE, dicom_bytes, dicom_file, dicom_header, grey_file
from medimageparse_client import InvalidImage
from medimageparse_client.formats.dicom_slice import WINDOWS, read_slice, scale_to_255
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut
from pydicom.sequence import Sequence

RNG = np.random.default_rng(3)


def ramp(dtype, low, high):
    """All values between two, in no order."""
    return RNG.permutation(np.linspace(low, high, 24 * 20)).reshape(24, 20).astype(dtype)


def lookup_table(entries, first=0, depth=16, kind="US", vr="US"):
    item = Dataset()
    item.add_new("LUTDescriptor", vr, [len(entries) % 2**16, first, depth])
    item.ModalityLUTType = kind
    item.LUTData = np.asarray(entries, np.uint16).tobytes()
    item["LUTData"].VR = "OW"
    return Sequence([item])


def same_picture(file, pixels, window=None):
    """Whether a file gives what these numbers of a plain MR, or in CT these Hounsfield units, give."""
    read = read_slice(file, window)
    if window:
        expected = scale_to_255(np.asarray(pixels, np.float64), WINDOWS[window])
    else:
        expected = read_slice(grey_file(pixels), None).grey
    np.testing.assert_allclose(read.grey, expected, atol=1e-9)
    return read


@pytest.mark.parametrize(
    ("dtype", "n_bits", "low", "high"),
    [
        ("u1", 8, 1, 255),
        ("u1", 7, 1, 127),
        ("i1", 8, -128, 127),
        ("u2", 10, 0, 1023),
        ("u2", 12, 0, 4095),
        ("u2", 16, 0, 65535),
        ("i2", 12, -2048, 2047),
        ("i2", 16, -32768, 32767),
        ("u4", 32, 0, 4e9),
        ("i4", 24, -8e6, 8e6),
        ("i4", 32, -2e9, 2e9),
    ],
)
def test_pixels_of_any_type(dtype, n_bits, low, high):
    pixels = ramp(dtype, low, high)
    read = same_picture(grey_file(pixels, BitsStored=n_bits), pixels.astype(np.int64).astype("i8"))
    assert read.bounds == tuple(np.percentile(pixels[pixels > 0], (0.5, 99.5)))
    assert not read.warnings


@pytest.mark.parametrize("n_bits", [10, 12, 14])
def test_an_overlay_in_the_upper_bits_is_no_grey(n_bits):
    """As ACR-NEMA and early DICOM files keep graphics there."""
    pixels = ramp("u2", 0, 2**n_bits - 1)
    overlay = RNG.integers(0, 2 ** (16 - n_bits), pixels.shape).astype(np.uint16)
    read = same_picture(grey_file(pixels | (overlay << n_bits), BitsStored=n_bits), pixels)
    (warning,) = read.warnings
    assert "more bits than the file's BitsStored" in warning


@pytest.mark.parametrize("filler", [0, 1, "sign"])
def test_the_sign_of_12_bits(filler):
    """Whatever stands above the sign bit."""
    pixels = ramp("i2", -2048, 2047)
    above = {0: 0, 1: 0xF000, "sign": np.where(pixels < 0, 0xF000, 0)}[filler]
    stored = ((pixels.view(np.uint16) & 0xFFF) | above).astype(np.uint16).view(np.int16)
    same_picture(dicom_file(stored, BitsStored=12, RescaleIntercept=-100), pixels - 100.0, "lung")


@pytest.mark.parametrize("kind", ["u2", "i2"])
def test_pixels_in_the_upper_bits(kind):
    """HighBit 15 of 12 bits, with an overlay below."""
    pixels = ramp(kind, *((0, 4095) if kind == "u2" else (-2048, 2047)))
    stored = ((pixels.astype(np.int32) << 4) | RNG.integers(0, 16, pixels.shape)).astype(kind)
    same_picture(grey_file(stored, BitsStored=12, HighBit=15), pixels)


@pytest.mark.parametrize("high_bit", [None, 0, 7, 11, 12, 15, 40])
def test_a_wrong_high_bit_does_no_harm_where_the_values_fit(high_bit):
    pixels = ramp("u2", 0, 4095)
    same_picture(grey_file(pixels, BitsStored=12, HighBit=high_bit), pixels)


@pytest.mark.parametrize("high_bit", [3, 16, 200])
def test_bits_that_contradict_each_other(high_bit):
    with pytest.raises(InvalidImage, match="BitsStored and HighBit contradict"):
        read_slice(grey_file(ramp("u2", 0, 65535), BitsStored=12, HighBit=high_bit), None)


def test_masks_of_single_bits_are_one_grey():
    bits = np.packbits(RNG.integers(0, 2, (16, 16)), bitorder="little").reshape(16, 2)
    with pytest.raises(InvalidImage, match="all one grey"):
        read_slice(grey_file(bits, Columns=16, BitsAllocated=1, BitsStored=1, HighBit=0), None)


@pytest.mark.parametrize("n_bits", [0, 2, 12, 24, 128])
def test_pixels_of_odd_widths_are_named(n_bits):
    with pytest.raises(InvalidImage, match=f"pixels of {n_bits} bits"):
        read_slice(grey_file(ramp("u2", 0, 4095), BitsAllocated=n_bits), None)


@pytest.mark.parametrize(
    ("slope", "intercept"), [("2", "0"), ("0.25", "-3"), ("-1", "5000"), ("1e-3", "0"), ("3", "7")]
)
def test_rescaled_values(slope, intercept):
    pixels = ramp("u2", 0, 4095)
    values = pixels * float(slope) + float(intercept)
    read = read_slice(grey_file(pixels, RescaleSlope=slope, RescaleIntercept=intercept), None)
    bounds = np.percentile(values[values > 0], (0.5, 99.5))
    np.testing.assert_allclose(read.bounds, bounds)
    np.testing.assert_allclose(read.grey, scale_to_255(values, tuple(bounds)))


@pytest.mark.parametrize("window", [None, "lung"])
@pytest.mark.parametrize(
    ("tags", "sentence"),
    [
        ({"RescaleSlope": 0}, "RescaleSlope is 0"),
        ({"RescaleSlope": ("DS", ["1", "2"])}, "RescaleSlope is not one finite number"),
        ({"RescaleIntercept": ("FD", np.nan)}, "RescaleIntercept is not one finite number"),
        ({"RescaleSlope": ("FD", np.inf)}, "RescaleSlope is not one finite number"),
        ({"RescaleSlope": ("LO", "many")}, "RescaleSlope is not one finite number"),
        ({"RescaleSlope": ("FD", 1e307)}, "finite numbers"),
    ],
)
def test_rescale_tags_that_say_nothing(tags, sentence, window):
    file = dicom_file(ramp("u2", 0, 4095), Modality="CT" if window else "MR", **tags)
    with pytest.raises(InvalidImage, match=sentence):
        read_slice(file, window)


@pytest.mark.parametrize("group", ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"])
def test_rescale_tags_of_enhanced_files(group):
    """An enhanced CT with one frame."""
    transformation, functional = Dataset(), Dataset()
    transformation.RescaleSlope, transformation.RescaleIntercept, transformation.RescaleType = 2, -1024, "HU"
    functional.PixelValueTransformationSequence = Sequence([transformation])
    pixels = ramp("u2", 0, 1000)
    tags = {"RescaleSlope": None, "RescaleIntercept": None, group: Sequence([functional])}
    same_picture(dicom_file(pixels, NumberOfFrames=1, **tags), pixels * 2.0 - 1024, "lung")


@pytest.mark.parametrize("modality", [None, "", "CT"])
@pytest.mark.parametrize("storage", ["2", "2.1", "2.2"])
def test_ct_without_a_modality_is_ct(modality, storage):
    header = dicom_header(ramp("i2", -1000, 1000), Modality=modality)
    header.SOPClassUID = STORAGE + storage
    file = dicom_bytes(header)
    assert read_slice(file, "abdomen").bounds == WINDOWS["abdomen"]
    with pytest.raises(InvalidImage, match="a CT slice needs a window"):
        read_slice(file, None)


@pytest.mark.parametrize("unit", [None, "HU", "HU_MOD", "US"])
def test_ct_in_hounsfield_units(unit):
    pixels = ramp("i2", -1000, 1000)
    same_picture(dicom_file(pixels, RescaleType=unit), pixels, "lung")


@pytest.mark.parametrize("unit", ["Z_EFF", "ED", "EDW", "MGML", "PCT", "OD"])
def test_ct_in_other_units_is_not_windowed(unit):
    """As dual-energy CT makes them."""
    pixels = ramp("i2", 1, 1000)
    with pytest.raises(InvalidImage, match="not Hounsfield units"):
        read_slice(dicom_file(pixels, RescaleType=unit), "lung")
    lut = lookup_table(np.arange(1001), kind=unit, vr="SS")
    with pytest.raises(InvalidImage, match="not Hounsfield units"):
        read_slice(dicom_file(pixels, ModalityLUTSequence=lut), "lung")
    same_picture(grey_file(pixels, RescaleType=unit), pixels)


@pytest.mark.parametrize(
    ("dtype", "low", "high", "first"),
    [
        ("u2", 0, 999, 0),
        ("u2", 0, 2000, 500),
        ("i2", -500, 499, -500),
        ("i2", -32768, 32767, -32768),
        ("u1", 0, 255, 0),
    ],
)
@pytest.mark.parametrize("shape", ["rising", "falling", "curved"])
def test_a_modality_lut_changes_the_values(dtype, low, high, first, shape):
    pixels = ramp(dtype, low, high)
    entries = {
        "rising": np.arange(1000) * 3 + 1,
        "falling": 3001 - np.arange(1000) * 3,
        "curved": np.arange(1000) ** 2 // 20,
    }
    entries = entries[shape]
    values = entries[np.clip(pixels.astype(np.int64) - first, 0, 999)]
    vr = "SS" if dtype[0] == "i" else "US"
    same_picture(grey_file(pixels, ModalityLUTSequence=lookup_table(entries, first, vr=vr)), values.astype(np.uint16))


@pytest.mark.parametrize("depth", [10, 12, 16])
def test_a_modality_lut_of_any_depth(depth):
    pixels = ramp("u2", 0, 1023)
    entries = np.arange(1024)[::-1]
    file = grey_file(pixels, ModalityLUTSequence=lookup_table(entries, depth=depth))
    same_picture(file, entries[pixels].astype(np.uint16))


def test_a_modality_lut_in_hounsfield_units():
    """Its entries are unsigned, so these are 0 and above."""
    pixels = ramp("u2", 0, 999)
    lut = lookup_table(np.arange(1000) // 2, kind="HU")
    file = dicom_file(pixels, ModalityLUTSequence=lut, RescaleSlope=None, RescaleIntercept=None)
    same_picture(file, pixels // 2, "abdomen")


def test_a_modality_lut_is_pydicoms():
    pixels = ramp("u2", 0, 999)
    header = dicom_header(pixels, Modality="XA", ModalityLUTSequence=lookup_table(np.arange(1000) ** 2 // 16))
    same_picture(dicom_bytes(header), apply_modality_lut(pixels, header))


def test_a_modality_lut_that_cannot_be_read_is_told():
    lut = lookup_table(np.arange(1000))
    lut[0].LUTData = lut[0].LUTData[:100]
    with pytest.raises(InvalidImage, match="Modality LUT cannot be read"):
        read_slice(grey_file(ramp("u2", 0, 999), ModalityLUTSequence=lut), None)


@pytest.mark.parametrize(
    ("photometric", "shape", "falls", "is_low_bright", "is_doubtful"),
    [
        ("MONOCHROME2", None, None, False, False),
        ("MONOCHROME2", "IDENTITY", None, False, False),
        ("MONOCHROME2", "INVERSE", None, True, True),
        ("MONOCHROME1", None, None, True, False),
        ("MONOCHROME1", "INVERSE", None, True, False),  # both say the same, once
        ("MONOCHROME1", "IDENTITY", None, True, True),
        ("MONOCHROME2", None, False, False, False),
        ("MONOCHROME1", None, False, True, False),
        ("MONOCHROME2", None, True, True, False),
        ("MONOCHROME1", "INVERSE", True, False, False),
    ],
)
@pytest.mark.parametrize("modality", ["DX", "CR", "MG"])
def test_which_end_is_bright(photometric, shape, falls, is_low_bright, is_doubtful, modality):
    pixels = ramp("u2", 1, 1000)
    voi = None if falls is None else lookup_table(np.arange(1001)[:: -1 if falls else 1])
    file = grey_file(
        pixels, Modality=modality, PhotometricInterpretation=photometric, PresentationLUTShape=shape, VOILUTSequence=voi
    )
    read = same_picture(file, pixels.max() - pixels if is_low_bright else pixels)
    assert read.is_inverted == is_low_bright
    assert [("contradict each other" in warning) for warning in read.warnings] == [True] * is_doubtful


@pytest.mark.parametrize("shape", ["IDENTITY", "INVERSE"])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_hounsfield_units_have_one_bright_end(photometric, shape):
    pixels = ramp("i2", -1000, 1000)
    file = dicom_file(pixels, PhotometricInterpretation=photometric, PresentationLUTShape=shape)
    read = same_picture(file, pixels, "lung")
    assert (read.is_inverted, read.warnings) == (False, ())


def test_pixels_that_the_header_does_not_account_for_are_told():
    pixels = ramp("u2", 0, 4095)
    read = same_picture(grey_file(pixels, PixelData=pixels.tobytes() + bytes(40)), pixels)
    (warning,) = read.warnings
    assert "40 bytes more" in warning
    odd = ramp("u1", 1, 255)[:23, :19]
    assert not read_slice(grey_file(odd, PixelData=odd.tobytes() + b"\0"), None).warnings
