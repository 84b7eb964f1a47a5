"""DICOM slices: what the network sees, and the way back to the slice's own pixels."""

import io
import json
import sys
import traceback

import numpy as np
import pydicom
import pytest
from helpers.dicom_files import dicom_file
from helpers.places import DATA, SHARED
from medimageparse_client import Client, InvalidImage
from medimageparse_client.formats.dicom_header import TAGS
from medimageparse_client.formats.dicom_slice import WINDOWS, DicomSlice, choose_bounds, read_slice
from medimageparse_client.formats.grey_slice import SIDE, margins, scale_to_255
from medimageparse_client.formats.picture import encode_image
from PIL import Image

SMALL = DATA / "v1_intensity_small.npz"


@pytest.fixture
def ct():
    """A tall CT slice in HU, with a bright block in the upper right corner and a less bright one below it."""
    pixels = np.full((120, 80), -1000, np.int16)
    pixels[10:110, 5:75] = 0
    pixels[10:40, 50:75] = 200
    pixels[70:90, 20:60] = 100
    return pixels


def intensity_cases(file):
    if not file.exists():
        return [pytest.param(file, 0, id="v1_post", marks=pytest.mark.skip(f"no {file.name}: shared/ is not here"))]
    with np.load(file) as golden:
        n_cases = len(json.loads(golden["info_json"].tobytes())["intensity_cases"])
    return [pytest.param(file, number, id=f"{file.stem}-{number}") for number in range(n_cases)]


@pytest.mark.parametrize(
    ("file", "number"), [*intensity_cases(SMALL), *intensity_cases(SHARED / "golden" / "v1_post.npz")]
)
def test_the_picture_is_that_of_the_original_to_the_byte(file, number):
    with np.load(file) as golden:
        info = json.loads(golden["info_json"].tobytes())
        pixels = golden[f"intensity/{number}/in"].astype(np.float64)
        expected = golden[f"intensity/{number}/out"]
    case, step = info["intensity_cases"][number], info.get("step", 1)
    bounds = choose_bounds(pixels, case["is_CT"], case["site"])
    square = DicomSlice(scale_to_255(pixels, bounds), bounds, case["site"], False).square()
    np.testing.assert_array_equal(square[::step, ::step], expected)


def test_the_picture_of_a_file_is_that_of_its_pixels(ct):
    stored = (ct.astype(np.int32) + 1024).astype(np.uint16)
    read = read_slice(dicom_file(stored, RescaleIntercept=-1024), "abdomen")
    np.testing.assert_array_equal(read.grey, scale_to_255(ct.astype(np.float64), WINDOWS["abdomen"]))
    half = read_slice(dicom_file(2 * stored, RescaleSlope="0.5", RescaleIntercept="-1024"), "abdomen")
    np.testing.assert_array_equal(half.grey, read.grey)


@pytest.mark.parametrize("shape", [(120, 80), (80, 121), (97, 64), (64, 64), (1500, 1100)])
def test_the_way_back_lies_on_the_slice(shape):
    """What goes forth as the slice comes back, but for what interpolation smooths away and for the dark rim."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    grey = 120 + 100 * np.sin(5 * rows / shape[0]) * np.cos(4 * columns / shape[1])
    dicom_slice = DicomSlice(grey, (0, 1), None, False)
    square = dicom_slice.square()
    assert square.shape == (SIDE, SIDE)
    returned = dicom_slice.own_grid(square)
    assert returned.shape == shape
    assert np.abs(returned[4:-4, 4:-4] - grey[4:-4, 4:-4]).max() < 2


def test_the_way_back_keeps_the_threshold():
    dicom_slice = DicomSlice(np.zeros((512, 512)), (0, 1), None, False)
    square = np.zeros((SIDE, SIDE), np.uint8)
    square[:, : SIDE // 2] = 255
    square[0:2, 0:2] = [[127, 127], [128, 128]]  # 127.5 is p = 0.5, which is not above it
    returned = dicom_slice.own_grid(square)
    assert returned[0, 0] == 127
    np.testing.assert_array_equal(returned[1:] > 127, np.broadcast_to(np.arange(512) < 256, (511, 512)))


def test_margins_are_equal_on_both_sides():
    assert margins((100, 60)) == (0, 20)
    assert margins((60, 101)) == (20, 0)
    assert margins((60, 60)) == margins((60, 61)) == (0, 0)


def test_segment_image(triton, ct, tmp_path):
    path = tmp_path / "slice.dcm"
    path.write_bytes(dicom_file(ct))
    with Client() as client:
        result = client.segment_image(path, ["bright", "dark"], window="abdomen")
    with Image.open(io.BytesIO(triton.images[0])) as sent:
        assert (sent.format, sent.mode, sent.size) == ("PNG", "L", (SIDE, SIDE))
        np.testing.assert_array_equal(np.asarray(sent), read_slice(path.read_bytes(), "abdomen").square())
    assert result.probabilities.shape == (2, *ct.shape)
    difference = result.mask("bright") != (ct > 50)  # (50 + 150) / 400 of 255 is 127.5
    assert not difference[10:-10, 6:-6].any()
    assert difference.mean() < 0.01
    with Image.open(io.BytesIO(result.image)) as shown:
        assert shown.size == (80, 120)
    result.preview(tmp_path / "overlay.png")
    result.save(tmp_path / "masks.png")
    with Image.open(tmp_path / "masks.png") as masks:
        np.testing.assert_array_equal(np.asarray(masks) == 1, result.mask("bright"))


def test_the_report_speaks_of_the_slices_own_pixels(triton, ct):
    with Client() as client:
        result = client.segment_image(dicom_file(ct), ["bright", "dark"], window="abdomen")
    for prompt in result.prompts:
        mask, described = result.mask(prompt), result.describe(prompt)
        rows, columns = np.nonzero(mask)
        assert described["area_pixels"] == mask.sum()
        assert described["box_pixels"] == [[rows.min(), columns.min()], [rows.max(), columns.max()]]
        assert described["category"] == "lung"
    assert result.report["dicom"] == {
        "height": 120,
        "width": 80,
        "window": "abdomen",
        "bounds": [-150, 250],
        "inverted": False,
        "padding": None,
    }


@pytest.mark.parametrize("recognized", [("left lung", "right lung"), ("left lung",), ()])
def test_recognition_keeps_masks_apart(triton, ct, recognized):
    triton.recognized = recognized
    with Client() as client:
        result = client.segment_image(dicom_file(ct), image_type="CT-Chest", window="lung")
    assert result.prompts == recognized
    assert result.probabilities.shape == (len(recognized), *ct.shape)
    assert ((result.probabilities > 127).sum(0) <= 1).all()


def test_nothing_about_the_patient_leaves_the_file(triton, ct):
    with Client() as client:
        result = client.segment_image(dicom_file(ct), "liver", window="abdomen")
    for text in (b"Doe", b"4711", b"secret"):
        assert text not in triton.images[0]
        assert text not in result.image
        assert text.decode() not in json.dumps(result.report)
    assert not any("Patient" in tag or "Name" in tag or "UID" in tag for tag in TAGS)


def test_no_bytes_of_a_damaged_header_are_shown(ct):
    data = bytearray(dicom_file(ct))
    data[138:140] = (101).to_bytes(2, "little")  # the length of the first element, which swallows others
    with pytest.raises(InvalidImage, match="damaged") as caught:
        read_slice(bytes(data), "abdomen")
    assert "1.2.840" in str(caught.value.__context__)
    assert "1.2.840" not in "".join(traceback.format_exception(caught.value))


def test_percentiles_where_it_is_no_ct():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 4000, (50, 70)).astype(np.uint16)
    read = read_slice(dicom_file(pixels, Modality="MR", RescaleSlope=None, RescaleIntercept=None), None)
    assert read.bounds == tuple(np.percentile(pixels[pixels > 0], (0.5, 99.5)))
    assert (read.window, read.is_inverted) == (None, False)


def test_monochrome1_is_turned_round_but_hounsfield_units_are_not(ct):
    pixels = np.random.default_rng(0).integers(0, 4000, (50, 70)).astype(np.uint16)
    xray = {"Modality": "DX", "RescaleSlope": None, "RescaleIntercept": None}
    negative = read_slice(dicom_file(pixels.max() - pixels, PhotometricInterpretation="MONOCHROME1", **xray), None)
    positive = read_slice(dicom_file(pixels - pixels.min(), **xray), None)
    assert negative.is_inverted
    np.testing.assert_array_equal(negative.grey, positive.grey)
    turned = read_slice(dicom_file(ct, PhotometricInterpretation="MONOCHROME1"), "abdomen")
    assert not turned.is_inverted
    np.testing.assert_array_equal(turned.grey, read_slice(dicom_file(ct), "abdomen").grey)


@pytest.mark.parametrize(
    ("tags", "window", "sentence"),
    [
        ({}, None, "a CT slice needs a window: one of abdomen, lung, pelvis, liver, colon, pancreas"),
        ({}, "bone", "a CT slice needs a window"),
        ({"Modality": "MR"}, "lung", "this DICOM file is none; leave it out"),
        ({"RescaleSlope": None}, "lung", "no rescale tags"),
        ({"RescaleIntercept": None}, "lung", "no rescale tags"),
        ({"RescaleSlope": 0}, "lung", "RescaleSlope is 0"),
        ({"RescaleIntercept": 3000}, "lung", "all one grey"),
        ({"Modality": "MR", "RescaleSlope": -1, "RescaleIntercept": -5000}, None, "no pixel above 0"),
        ({"NumberOfFrames": 3}, "lung", "holds 3 frames"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "lung", "in colour"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}, "lung", "in colour"),
        ({"PhotometricInterpretation": None}, "lung", "lacks PhotometricInterpretation"),
        ({"BitsStored": None}, "lung", "lacks BitsStored"),
        ({"Rows": 500}, "lung", "damaged"),
    ],
)
def test_slices_that_are_not_sent(tags, window, sentence, ct):
    with pytest.raises(InvalidImage, match=sentence):
        read_slice(dicom_file(ct, **tags), window)


def test_slices_of_one_value_are_not_sent():
    for value in (0, 7):
        pixels = np.full((20, 20), value, np.uint16)
        with pytest.raises(InvalidImage, match="no pixel above 0" if value == 0 else "all one grey"):
            read_slice(dicom_file(pixels, Modality="US"), None)


@pytest.mark.parametrize("kept", [140, 200, 400, -100])
def test_a_file_cut_short(kept, ct):
    with pytest.raises(InvalidImage, match="cut short|damaged"):
        read_slice(dicom_file(ct)[:kept], "lung")


def test_without_pydicom_the_extra_is_named(ct, monkeypatch):
    monkeypatch.delitem(sys.modules, "medimageparse_client.formats.dicom_slice")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(InvalidImage, match=r"need pydicom, .* pip install 'medimageparse-client\[dicom\]'"):
        encode_image(dicom_file(ct), "lung")


def test_a_real_slice(triton):
    path = SHARED / "data" / "images" / "CT_lung_nodule.dcm"
    if not path.exists():
        pytest.skip(f"no {path.name}: shared/ is not here")
    with Client() as client:
        result = client.segment_image(path, "nodule", window="lung")
    assert result.probabilities.shape == (1, 512, 512)
    hounsfield = pydicom.dcmread(path).pixel_array.astype(float) - 1024
    grey = scale_to_255(hounsfield, WINDOWS["lung"])
    assert np.abs(result.probabilities[0] - grey).mean() < 3  # the stub answers with the picture itself
