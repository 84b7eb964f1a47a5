"""Contours hold exactly the voxels of their masks, at their place in the patient, with their holes."""

import io
import re
import subprocess

import nibabel as nib
import numpy as np
import pydicom
import pytest
from helpers.dicom_series import (
    DIRECTIONS,
    PROMPTS,
    SHAPE,
    TO_LPS,
    affine_of,
    enhanced,
    make_series,
    save_series,
    with_echoes,
)
from medimageparse_client import Client, InvalidRequest
from medimageparse_client.results.dicom.contours import outlines


@pytest.fixture
def labels():
    """A ring, two parts that hold a hole and an island in it, and something small."""
    values = np.zeros(SHAPE, np.int16)
    values[3:12, 2:10, 1:6] = 1
    values[6:9, 5:7, 1:6] = 0
    values[13:22, 9:19, 3:7] = 2
    values[15:20, 11:17, 3:7] = 0
    values[17, 13:15, 3:7] = 2
    values[1:3, 15:17, 2:7] = 2
    values[22, 2, 4] = 3
    return values


def opened(result):
    return pydicom.dcmread(io.BytesIO(result.to_bytes(".rtstruct.dcm")))


def filled(contours, shape):
    """Pixels [rows,columns] whose centres lie within: where a ray along the row crosses the outlines [n,2] oddly."""
    rows, columns = np.indices(shape)
    inside = np.zeros(shape, bool)
    for points in contours:
        for edge in zip(points, np.roll(points, -1, axis=0), strict=True):
            # sorted, so that a bridge that is gone twice crosses at the same place twice
            (x0, y0), (x1, y1) = sorted(map(tuple, edge))
            is_crossed = (y0 > rows) != (y1 > rows)
            if y0 != y1:
                inside ^= is_crossed & (columns < x0 + (rows - y0) / (y1 - y0) * (x1 - x0))
    return inside


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_outlines_of_noise_hold_its_pixels_and_no_other(seed, share):
    mask = np.random.default_rng(seed).random((23, 31)) < share
    np.testing.assert_array_equal(filled(outlines(mask), mask.shape), mask)


def test_nothing_has_no_outline():
    assert outlines(np.zeros((4, 5), bool)) == []


@pytest.mark.parametrize("orientation", DIRECTIONS)
@pytest.mark.parametrize("is_enhanced", [False, True])
def test_contours_hold_the_voxels_of_their_labels_in_place(orientation, is_enhanced, segment, labels):
    series = make_series(labels, orientation)
    sources = [enhanced(series[3:] + series[:3])] if is_enhanced else series
    made = opened(segment(sources))
    to_voxels = np.linalg.inv(TO_LPS @ affine_of(orientation))
    found = np.zeros(SHAPE, np.int16)
    for roi in made.ROIContourSequence:
        on_slices = {}
        for contour in roi.get("ContourSequence", []):
            assert contour.ContourGeometricType == "CLOSED_PLANAR"
            mm = np.array(contour.ContourData, float).reshape(-1, 3)
            assert len(mm) == contour.NumberOfContourPoints
            voxels = mm @ to_voxels[:3, :3].T + to_voxels[:3, 3]
            z = round(voxels[0, 2])
            np.testing.assert_allclose(voxels[:, 2], z, atol=1e-3)
            on_slices.setdefault(z, []).append(voxels[:, :2])
            [image] = contour.ContourImageSequence
            if is_enhanced:
                assert image.ReferencedFrameNumber == (z - 3) % 8 + 1
            else:
                assert image.ReferencedSOPInstanceUID == series[z].SOPInstanceUID
        for z, contours in on_slices.items():
            found[:, :, z][filled(contours, (SHAPE[1], SHAPE[0])).T] = roi.ReferencedROINumber
    np.testing.assert_array_equal(found, labels)


@pytest.mark.parametrize(("time_point", "first"), [(0, 9), (1, 1)])
def test_contours_of_one_echo_refer_to_its_frames(segment, labels, time_point, first):
    made = opened(segment([with_echoes(labels, labels)], time_point=time_point))
    contours = [contour for roi in made.ROIContourSequence for contour in roi.get("ContourSequence", [])]
    frames = {image.ReferencedFrameNumber for contour in contours for image in contour.ContourImageSequence}
    assert frames == {first + z for z in np.flatnonzero(labels.any(axis=(0, 1)))}


def test_names_colours_types_and_references(segment, labels):
    series = make_series(labels, PatientName="Müller^Jörg", SpecificCharacterSet="ISO_IR 100")
    made = opened(segment(series))
    assert [roi.ROIName for roi in made.StructureSetROISequence] == ["Liver", "Left kidney", PROMPTS[2], "Spleen"]
    types = [roi.RTROIInterpretedType for roi in made.RTROIObservationsSequence]
    assert types == ["ORGAN", "ORGAN", "", "ORGAN"]
    assert len({tuple(roi.ROIDisplayColor) for roi in made.ROIContourSequence}) == 4
    assert str(made.PatientName) == "Müller^Jörg"
    [frame] = made.ReferencedFrameOfReferenceSequence
    assert frame.FrameOfReferenceUID == series[0].FrameOfReferenceUID
    [referred] = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence
    assert referred.SeriesInstanceUID == series[0].SeriesInstanceUID
    uids = [image.ReferencedSOPInstanceUID for image in referred.ContourImageSequence]
    assert uids == [one.SOPInstanceUID for one in series]


def test_what_is_of_no_series_is_refused(triton, volume_file):
    with Client() as client, pytest.raises(InvalidRequest, match="segment a DICOM series"):
        client.segment(volume_file, "liver").to_bytes(".rtstruct.dcm")


@pytest.mark.parametrize("orientation", ["axial", "oblique"])
def test_dciodvfy_finds_no_fault(orientation, segment, labels, tmp_path):
    segment(make_series(labels, orientation)).save(tmp_path / "out.rtstruct.dcm")
    told = subprocess.run(["dciodvfy", tmp_path / "out.rtstruct.dcm"], capture_output=True, text=True, check=False)
    assert not re.findall("^Error.*", told.stdout + told.stderr, re.MULTILINE)
    assert "RTStructureSet" in told.stdout + told.stderr


def test_plastimatch_reads_the_same_voxels(triton, tmp_path):
    """A ring exactly, and parts with holes nearly so: plastimatch takes contours as it sees fit at their rim."""
    shape = 64, 48, 8
    x, y, z = np.indices(shape)
    labels = np.zeros(shape, np.int16)
    distance = np.hypot(x - 20, y - 24)
    labels[(distance < 14) & (distance > 6) & (z > 1)] = 1
    labels[(abs(x - 50) < 9) & (abs(y - 20) < 12) & (np.hypot(x - 50, y - 20) > 4) & (z < 6)] = 2
    labels[(np.hypot(x - 50, y - 40) < 4) & (z < 6)] = 2
    series = make_series(labels, "axial")
    folder = save_series(series, tmp_path / "series")
    with Client() as client:
        client.segment(folder, PROMPTS[:2]).save(tmp_path / "out.rtstruct.dcm")
    command = ["plastimatch", "convert", "--input", "out.rtstruct.dcm", "--referenced-ct", "series"]
    command += ["--output-prefix", "masks", "--prefix-format", "nii.gz"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    for label, name, least in ((1, "Liver", 1.0), (2, "Left_kidney", 0.99)):
        [path] = [path for path in (tmp_path / "masks").iterdir() if path.name.startswith(name.split("_")[0])]
        image = nib.load(path)
        found = np.asarray(image.dataobj).astype(bool)
        there = np.argwhere(found) @ image.affine[:3, :3].T + image.affine[:3, 3]
        ours = np.linalg.inv(affine_of("axial"))
        places = np.rint(there @ ours[:3, :3].T + ours[:3, 3]).astype(int)
        mask = np.zeros(shape, bool)
        mask[tuple(places.T)] = True
        expected = labels == label
        assert 2 * (mask & expected).sum() / (mask.sum() + expected.sum()) >= least
