"""Values of series: rescale per slice, multi-frame files, every transfer syntax, real files of other makers."""

import io
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from helpers.dicom_files import compressed as gdcm_compressed
from helpers.dicom_files import dicom_bytes
from helpers.dicom_series import (
    MR,
    PET,
    affine_of,
    compressed,
    enhanced,
    make_series,
    phantom,
    save_series,
    with_echoes,
)
from medimageparse_client import InvalidVolume
from medimageparse_client.formats.dicom_series import read_series
from pydicom.data import get_testdata_file
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

SLOPES = [0.5 + z for z in range(8)]


def voxels_of(series):
    return np.asarray(series.volume.dataobj)


def test_pet_is_rescaled_slice_by_slice(tmp_path):
    made = make_series(**PET, RescaleSlope=SLOPES, RescaleIntercept=0)
    series = read_series(save_series(made, tmp_path))
    expected = (phantom() + 1024) * np.array(SLOPES, np.float32)
    assert voxels_of(series).dtype == np.float32
    np.testing.assert_allclose(voxels_of(series), expected, rtol=1e-6)
    assert (series.modality, series.intensity) == ("PT", "percentile")


def test_real_world_values_stand_for_mr(tmp_path):
    made = make_series(**MR, RescaleSlope=None, RescaleIntercept=None)
    for z, header in enumerate(made):
        mapping = pydicom.Dataset()
        mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept = SLOPES[z], 3.0
        header.RealWorldValueMappingSequence = [mapping]
    expected = (phantom() + 1024) * np.array(SLOPES) + 3
    np.testing.assert_allclose(voxels_of(read_series(save_series(made, tmp_path))), expected, rtol=1e-6)


@pytest.mark.parametrize("orientation", ["axial", "oblique"])
@pytest.mark.parametrize(("modality", "tags"), [("CT", {}), ("MR", MR), ("PT", PET | {"RescaleSlope": SLOPES})])
def test_frames_of_an_enhanced_file_are_placed_and_rescaled_one_by_one(modality, tags, orientation, tmp_path):
    order = [3, 0, 7, 1, 6, 2, 5, 4]
    made = make_series(orientation=orientation, **tags)
    file = enhanced([made[z] for z in order])
    series = read_series(dicom_bytes(file))
    single = read_series(save_series(made, tmp_path))
    np.testing.assert_array_equal(voxels_of(series), voxels_of(single))
    np.testing.assert_allclose(series.volume.affine, affine_of(orientation), atol=1e-6)
    assert series.modality == modality
    [source] = series.sources
    assert source.SOPInstanceUID == file.SOPInstanceUID
    assert "PixelData" not in source


@pytest.mark.parametrize(
    ("convert", "tags"),
    [
        (highdicom.legacy.LegacyConvertedEnhancedCTImage, {}),
        (highdicom.legacy.LegacyConvertedEnhancedPETImage, PET | {"RescaleSlope": SLOPES}),
    ],
    ids=["CT", "PT"],
)
def test_a_legacy_converted_file_has_the_values_that_highdicom_reads(convert, tags, tmp_path):
    """Of PET too, where each frame has its own slope: SimpleITK and dcm2niix take one for all."""
    made = make_series(PatientAge="050Y", **tags)
    file = dicom_bytes(convert(made[::-1], generate_uid(), 1, generate_uid(), 1))
    series = read_series(file)
    theirs = highdicom.imread(io.BytesIO(file)).get_volume()
    to_ours = np.linalg.inv(series.volume.affine) @ np.diag([-1, -1, 1, 1]) @ theirs.affine
    places = np.rint(np.indices(theirs.spatial_shape).reshape(3, -1).T @ to_ours[:3, :3].T + to_ours[:3, 3]).astype(int)
    np.testing.assert_allclose(voxels_of(series)[tuple(places.T)], theirs.array.ravel(), rtol=1e-6)


def test_of_an_enhanced_file_with_echoes_one_is_chosen():
    file = with_echoes(phantom(), phantom() + 500)
    with pytest.raises(InvalidVolume, match=r"2 volumes that differ in EffectiveEchoTime \(20, 40\)"):
        read_series(dicom_bytes(file))
    np.testing.assert_array_equal(voxels_of(read_series(dicom_bytes(file), time_point=0)), phantom() + 500)


def test_a_multi_frame_file_counts_as_a_series_of_its_own(tmp_path):
    folder = save_series([*make_series(), enhanced(make_series(**MR, SeriesNumber=2))], tmp_path)
    with pytest.raises(InvalidVolume, match="2 series.*1: CT, slices: 8.*2: MR, slices: 8"):
        read_series(folder)
    assert read_series(folder, series=2).modality == "MR"


def by_gdcm(name):
    return lambda header, folder: gdcm_compressed(dicom_bytes(header), name, folder)


def by_pydicom(syntax):
    return lambda header, folder: dicom_bytes(compressed(header, syntax))


def written_as(syntax, is_little_endian=True, is_implicit=False):
    def write(header, folder):
        header.file_meta.TransferSyntaxUID = syntax
        if not is_little_endian:
            header.PixelData = np.frombuffer(header.PixelData, "<u2").astype(">u2").tobytes()
        file = io.BytesIO()
        pydicom.dcmwrite(file, header, enforce_file_format=True)
        return file.getvalue()

    return write


SYNTAXES = {
    "implicit": written_as(ImplicitVRLittleEndian),
    "big endian": written_as(ExplicitVRBigEndian, is_little_endian=False),
    "deflated": written_as(DeflatedExplicitVRLittleEndian),
    "RLE": by_pydicom(RLELossless),
    "JPEG-LS": by_pydicom(JPEGLSLossless),
    "JPEG 2000": by_gdcm("JPEG2000Lossless"),
    "JPEG Lossless": by_gdcm("JPEGLosslessProcess14_1"),
}


@pytest.mark.parametrize("name", SYNTAXES)
def test_every_transfer_syntax_gives_the_same_voxels(name, tmp_path):
    folder = tmp_path / "series"
    folder.mkdir()
    for z, header in enumerate(make_series()):
        (folder / f"{z % 3}{z}").write_bytes(SYNTAXES[name](header, tmp_path))
    np.testing.assert_array_equal(voxels_of(read_series(folder)), phantom())


def test_slices_of_one_series_may_differ_in_transfer_syntax(tmp_path):
    made = make_series()
    save_series([*made[:4], *(compressed(header, RLELossless) for header in made[4:])], tmp_path)
    np.testing.assert_array_equal(voxels_of(read_series(tmp_path)), phantom())


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "MR_small_bigendian.dcm", "MR_small_RLE.dcm"])
def test_a_real_slice_makes_a_volume_with_a_copy_at_the_next_place(name, tmp_path):
    """pydicom brings single slices of scanners; each is put beside itself."""
    path = get_testdata_file(name)
    slices = []
    for z in range(2):
        header = pydicom.dcmread(path)
        row, column = np.reshape(header.ImageOrientationPatient, (2, 3))
        normal = np.cross(row, column)
        header.ImagePositionPatient = (np.array(header.ImagePositionPatient, float) + 2 * z * normal).round(6).tolist()
        header.SOPInstanceUID = generate_uid()
        header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
        slices.append(header)
    series = read_series(save_series(slices, tmp_path))
    plain = pydicom.dcmread(path)
    rescaled = plain.pixel_array * float(plain.get("RescaleSlope", 1)) + float(plain.get("RescaleIntercept", 0))
    for z in range(2):
        np.testing.assert_array_equal(voxels_of(series)[:, :, z].T, rescaled)
    assert np.linalg.norm(series.volume.affine[:3, 2]) == pytest.approx(2)


def test_a_real_series_beside_its_localizers_has_the_values_that_highdicom_reads():
    """Slices of a CT, cut down to 16 x 16 pixels, among the examples of pydicom."""
    folder = Path(get_testdata_file("DICOMDIR")).parent / "98892001"
    series = read_series(folder)
    theirs = highdicom.get_volume_from_series([pydicom.dcmread(path) for path in (folder / "CT5N").iterdir()])
    to_ours = np.linalg.inv(series.volume.affine) @ np.diag([-1, -1, 1, 1]) @ theirs.affine
    places = np.rint(np.indices(theirs.spatial_shape).reshape(3, -1).T @ to_ours[:3, :3].T + to_ours[:3, 3]).astype(int)
    np.testing.assert_array_equal(voxels_of(series)[tuple(places.T)], theirs.array.ravel())
    assert series.notes == ("left out: localizers (2)",)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("77654033/CT2", "missing slices: 161, after -99.48 mm"),
        ("77654033/CR1", "radiographs"),
        ("98892003/MR1", "3 series; choose one"),
        ("98892003/MR700", "different orientations"),
        ("98892001/CT2N", "localizers"),
    ],
)
def test_real_folders_that_are_no_volume_are_refused_by_name(name, sentence):
    with pytest.raises(InvalidVolume, match=sentence):
        read_series(Path(get_testdata_file("DICOMDIR")).parent / name)
