"""Which files are DICOM slices: by their content, whatever they are called."""

import gzip
import importlib.util
import io
import itertools
import os
import random
import re
import sys
import zipfile
from collections import defaultdict
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from helpers.dicom_files import STORAGE, dicom_bytes, dicom_file, dicom_header, grey_file
from medimageparse_client import InvalidImage
from medimageparse_client.formats import grey_slice
from medimageparse_client.formats.dicom_header import read_header
from medimageparse_client.formats.dicom_pixels import read_pixels
from medimageparse_client.formats.dicom_slice import read_slice
from medimageparse_client.formats.first_bytes import is_dicom
from medimageparse_client.formats.picture import encode_image, is_dicom_without_picture, recognizes
from PIL import Image
from pydicom.pixels import apply_modality_lut
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGExtended12Bit,
    MediaStorageDirectoryStorage,
)

NAMES = [
    "slice.dcm",
    "slice.DCM",
    "slice",
    "IM000001",
    "1",
    "slice.IMA",
    "a.dicom",
    "1.2.840.113619.2.5",
    "x.jpg",
    "x.nii",
]
PIXELS = np.random.default_rng(0).integers(1, 4000, (30, 20)).astype(np.uint16)

# what has pixels to segment, and what has none; SOP class -> tags besides
NO_IMAGES = {
    "structured report": (STORAGE + "88.11", {"Modality": "SR"}),
    "key objects": (STORAGE + "88.59", {"Modality": "KO"}),
    "presentation state": (STORAGE + "11.1", {"Modality": "PR"}),
    "structures": (STORAGE + "481.3", {"Modality": "RTSTRUCT"}),
    "plan": (STORAGE + "481.5", {"Modality": "RTPLAN"}),
    "PDF": (STORAGE + "104.1", {"Modality": "DOC"}),
    "raw data": (STORAGE + "66", {"Modality": "MR"}),
    "list of files": (MediaStorageDirectoryStorage, {}),
}


def file_of(picture, kind):
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()


def bare(data_set, syntax):
    """A data set alone, as ACR-NEMA and some scanners write it: no preamble, no mark, no meta elements."""
    file = io.BytesIO()
    is_implicit, is_little = syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian
    del data_set.file_meta
    pydicom.dcmwrite(file, data_set, implicit_vr=is_implicit, little_endian=is_little)
    return file.getvalue()


@pytest.fixture(autouse=True)
def _small_pictures(monkeypatch):
    """Values are compared before they are resized for the network, which takes longest."""
    monkeypatch.setattr(grey_slice, "SIDE", 64)


def without_pixels(sop_class, **tags):
    header = dicom_header(PIXELS, **{"PixelData": None, "Rows": None, "Columns": None, "Modality": None} | tags)
    header.SOPClassUID = sop_class
    return dicom_bytes(header)


@pytest.mark.parametrize("name", NAMES)
def test_names_do_not_matter(name, tmp_path):
    data = grey_file(PIXELS)
    (tmp_path / name).write_bytes(data)
    assert recognizes(tmp_path / name)
    for source in (tmp_path / name, str(tmp_path / name)):
        assert encode_image(source).data == encode_image(data).data
    (tmp_path / name).write_bytes(file_of(Image.new("L", (3, 3)), "PNG"))
    assert recognizes(tmp_path / name)
    assert encode_image(tmp_path / name).made_of is None


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("first", ["group length", "length to end", "character set", "class"])
def test_files_without_preamble(syntax, first, tmp_path):
    swapped = PIXELS.astype(">u2") if syntax == ExplicitVRBigEndian else PIXELS
    header = dicom_header(swapped, Modality="MR", RescaleSlope=None, RescaleIntercept=None)
    if first == "group length":
        header.add_new(0x00080000, "UL", 300)
    elif first == "length to end":
        header.add_new(0x00080001, "UL", 3000)
    elif first == "character set":
        header.SpecificCharacterSet = "ISO_IR 100"
    data = bare(header, syntax)
    path = tmp_path / "17"
    path.write_bytes(data)
    assert data[128:132] != b"DICM"
    assert recognizes(path)
    np.testing.assert_array_equal(encode_image(path).made_of.grey, read_slice(grey_file(PIXELS), None).grey)


def test_meta_elements_without_preamble(tmp_path):
    (tmp_path / "17").write_bytes(grey_file(PIXELS)[132:])
    assert recognizes(tmp_path / "17")
    expected = read_slice(grey_file(PIXELS), None).grey
    np.testing.assert_array_equal(encode_image(tmp_path / "17").made_of.grey, expected)


def test_a_preamble_that_is_another_format(tmp_path):
    """As in files that TIFF readers can read too."""
    for mark in (b"II*\0", b"MM\0*", b"\x89PNG\r\n\x1a\n"):
        (tmp_path / "both").write_bytes(mark + grey_file(PIXELS)[len(mark) :])
        assert recognizes(tmp_path / "both")
        assert encode_image(tmp_path / "both").made_of is not None


@pytest.mark.parametrize("kind", NO_IMAGES)
def test_dicom_files_without_pixels_are_no_images(kind, tmp_path):
    sop_class, tags = NO_IMAGES[kind]
    path = tmp_path / "17.dcm"
    path.write_bytes(without_pixels(sop_class, **tags))
    assert not recognizes(path)
    assert is_dicom_without_picture(path)
    with pytest.raises(InvalidImage, match="holds no picture|is a DICOMDIR"):
        encode_image(path)


@pytest.mark.parametrize("modality", ["SEG", "RTDOSE"])
def test_masks_and_doses_are_no_images_of_a_folder(modality, tmp_path):
    (tmp_path / "17.dcm").write_bytes(grey_file(PIXELS, Modality=modality))
    assert not recognizes(tmp_path / "17.dcm")


@pytest.mark.parametrize("kept", [350, 500, 900, 1200])
def test_a_slice_cut_short_is_an_image_of_a_folder(kept, tmp_path):
    """So that it is told of, and not left out in silence."""
    path = tmp_path / "17"
    path.write_bytes(dicom_file(PIXELS)[:kept])
    assert recognizes(path)
    assert not is_dicom_without_picture(path)
    with pytest.raises(InvalidImage, match="cut short|damaged"):
        encode_image(path, "lung")


def other_files():
    """Name -> content that is neither PNG, JPEG nor DICOM, and what it is called."""
    nifti = nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)).to_bytes()
    nifti_2 = nib.Nifti2Image(np.zeros((4, 4, 4), np.int16), np.eye(4)).to_bytes()
    picture = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    archive, array = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.txt", "hello")
    np.save(array, np.zeros(3))
    return {
        "nothing": (b"", None),
        "one byte": (b"\x08", None),
        "text": ("The liver is unremarkable.\n" * 40, None),
        "JSON": ('{"a": 1}', None),
        "zeros": (bytes(4000), None),
        "NIfTI": (nifti, "a NIfTI file"),
        "NIfTI of the other byte order": (nib.Nifti1Image.from_bytes(nifti).to_bytes()[3::-1] + bytes(400), "a NIfTI"),
        "NIfTI 2": (nifti_2, "a NIfTI file"),
        "NIfTI, packed": (gzip.compress(nifti), "a gzip file"),
        "GIF": (file_of(picture, "GIF"), "a GIF file"),
        "BigTIFF": (b"II+\0\x08\0\0\0" + bytes(40), "a BigTIFF file"),
        "JPEG 2000": (file_of(picture, "JPEG2000"), "a JPEG 2000 file"),
        "AVIF": (file_of(picture.convert("RGB"), "AVIF"), "a HEIC, AVIF or video file"),
        "PDF": (file_of(picture, "PDF"), "a PDF file"),
        "ZIP": (archive.getvalue(), "a ZIP file"),
        "numpy": (array.getvalue(), "a numpy file"),
        "NRRD": (b"NRRD0004\ntype: short\n", "an NRRD file"),
        "MetaImage": (b"ObjectType = Image\nNDims = 3\n", "a MetaImage file"),
        "PPM": (b"P6 3 3 255\n" + bytes(27), None),
    }


@pytest.mark.parametrize("kind", other_files())
@pytest.mark.parametrize("name", ["file", "file.dcm", "file.png"])
def test_other_files_are_called_what_they_are(kind, name, tmp_path):
    content, called = other_files()[kind]
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    assert not recognizes(path)
    with pytest.raises(InvalidImage, match=f"this is {called}" if called else "this is not a PNG") as caught:
        encode_image(path)
    assert "not a PNG, JPEG, TIFF, BMP, WebP or DICOM file" in str(caught.value)


def test_random_bytes_are_no_images(tmp_path):
    rng = random.Random(0)
    path = tmp_path / "file"
    for start in (b"", b"\x08\0", b"\x02\0", b"\0\x08", b"\x08\0\x05\0", b"\x08\0\x08\0CS", b"\xff\xd8", b"\x89PN"):
        for _ in range(150):
            path.write_bytes(start + rng.randbytes(600))
            assert not recognizes(path)


def test_the_library_of_python_holds_no_dicom():
    """Files of every ending, forty of each at most."""
    of_ending = defaultdict(list)
    for folder, _, names in os.walk(Path(os.__file__).parent):
        for name in names if "pydicom" not in folder else ():
            of_ending[os.path.splitext(name)[1]].append(os.path.join(folder, name))
    heads = []
    for name in itertools.chain.from_iterable(names[:40] for names in of_ending.values()):
        with open(name, "rb") as file:
            heads.append(file.read(400))
    assert len(heads) > 100
    assert not any(map(is_dicom, heads))


def test_what_cannot_be_read_is_no_image(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path in (tmp_path, tmp_path / "none", tmp_path / "pipe", tmp_path / "loop", Path("/dev/null"), Path("a\0b")):
        assert not recognizes(path)
    (tmp_path / "locked").write_bytes(grey_file(PIXELS))

    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(Path, "open", refuse)
    assert not recognizes(tmp_path / "locked")


def test_without_pydicom_dicom_files_are_found_all_the_same(tmp_path, monkeypatch):
    """And the message about each says what to install."""
    monkeypatch.delitem(sys.modules, "medimageparse_client.formats.dicom_header", raising=False)
    monkeypatch.delitem(sys.modules, "medimageparse_client.formats.dicom_slice", raising=False)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    for name, data in (("a", grey_file(PIXELS)), ("b", grey_file(PIXELS)[132:])):
        (tmp_path / name).write_bytes(data)
        assert recognizes(tmp_path / name)
        with pytest.raises(InvalidImage, match=r"pip install 'medimageparse-client\[dicom\]'"):
            encode_image(tmp_path / name)


def shipped_files():
    """Those in pydicom's package, and of pydicom-data where it is installed."""
    folders = [Path(pydicom.__file__).parent / "data" / "test_files"]
    if found := importlib.util.find_spec("data_store"):
        folders.append(Path(found.origin).parent / "data")
    return sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())


@pytest.mark.usefixtures("gdcm_within")
@pytest.mark.filterwarnings("ignore")  # pydicom is asked too
@pytest.mark.parametrize("path", [pytest.param(path, id=path.name) for path in shipped_files()])
def test_a_file_that_pydicom_ships_is_read_as_pydicom_does_or_refused_in_true_words(path):
    try:
        is_ct = pydicom.dcmread(path, force=True, stop_before_pixels=True).get("Modality") == "CT"
        window = "lung" if is_ct else None
    except Exception:  # pydicom itself gives it up
        window = None
    dicom_slice, refusal = outcome(path, window)
    if refusal:
        assert is_true(refusal, path), refusal
    else:
        assert recognizes(path) or pydicom.dcmread(path).Modality == "RTDOSE"
        check_picture(dicom_slice, path)


def outcome(path, window):
    try:
        return encode_image(path, window).made_of, None
    except InvalidImage as error:
        return None, str(error)


def check_picture(dicom_slice, path):
    header = pydicom.dcmread(path, force=True)
    if header.file_meta.TransferSyntaxUID == JPEGExtended12Bit:  # pydicom has no decoder; these are its tests' values
        pixels = read_pixels(path.read_bytes(), read_header(path.read_bytes())).values
        assert (pixels.max(), pixels[420, 140], pixels[230, 120]) == (264, 244, 95)
        return
    values = apply_modality_lut(header.pixel_array, header).astype(np.float64)
    is_shown = header.pixel_array != header.get("PixelPaddingValue", np.inf)
    shown = values[is_shown]
    if header.PhotometricInterpretation == "MONOCHROME1":
        shown = shown.max() - shown
    bounds = (-1000, 1000) if header.get("Modality") == "CT" else np.percentile(shown[shown > 0], (0.5, 99.5))
    clipped = np.clip(shown, *bounds)
    np.testing.assert_allclose(dicom_slice.grey[is_shown], (clipped - clipped.min()) / np.ptp(clipped) * 255, atol=1e-9)
    assert (dicom_slice.grey[~is_shown] == 0).all()


def is_true(sentence, path):
    """Whether pydicom, asked otherwise, says the same of the file."""
    if "not a PNG, JPEG, TIFF, BMP, WebP or DICOM file" in sentence:
        return path.suffix in (".txt", ".json", ".dump", ".icc", ".gz") or "Rows" not in pydicom.dcmread(
            path, force=True
        )
    try:
        header = pydicom.dcmread(path, force=True)
    except Exception:
        return "damaged" in sentence
    if "in colour" in sentence:
        return header.SamplesPerPixel == 3 or header.PhotometricInterpretation == "PALETTE COLOR"
    if "frames" in sentence:
        return f"holds {header.NumberOfFrames} frames" in sentence and header.NumberOfFrames > 1
    if "holds no picture" in sentence:
        return not {"PixelData", "FloatPixelData", "DoubleFloatPixelData"} & set(header.dir())
    if "DICOMDIR" in sentence:
        return "DirectoryRecordSequence" in header
    if lacking := re.search(r"header lacks ([\w, ]+);", sentence):
        return not set(lacking[1].split(", ")) & set(header.dir())
    if "is all one grey" in sentence:
        return len(np.unique(header.pixel_array)) <= 2
    try:
        assert "damaged" in sentence or "is not one finite number" in sentence
        float(header.get("NumberOfFrames") or 1)
        header.decompress() if header.file_meta.TransferSyntaxUID.is_encapsulated else header.pixel_array
    except (ValueError, TypeError, RuntimeError):
        return True
    return False
