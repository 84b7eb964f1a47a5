"""A SEG has the same voxels at the same place in the patient, the catalogue's codes, and refers to its slices."""

import io
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
import SimpleITK as sitk
from helpers.dicom_series import (
    DIRECTIONS,
    MR,
    ORIGIN,
    PROMPTS,
    SHAPE,
    SPACING,
    TO_LPS,
    affine_of,
    enhanced,
    make_series,
    with_echoes,
)
from medimageparse_client import Client, InvalidRequest
from medimageparse_client.results.codes import PRIVATE


@pytest.fixture
def labels():
    """The stand-in for a server finds label k where a voxel is k."""
    values = np.zeros(SHAPE, np.int16)
    values[3:12, 2:8, 1:6] = 1
    values[14:20, 10:18, 4:7] = 2
    values[1:3, 15:17, 2] = 3
    return values


def with_map(result, name):
    """The result with a map that can be changed."""
    found = result.maps[name]
    return replace(result, maps={name: replace(found, voxels=found.voxels.copy())})


def opened(result, **options):
    return hd.seg.segread(io.BytesIO(result.to_bytes(".seg.dcm", **options)))


def masks_in_place(seg, affine, shape, **options):
    """Masks [segments,x,y,z] looked up by place: each of our voxels in mm, and from there the voxel of the SEG."""
    volume = seg.get_volume(combine_segments=False, **options)
    there = np.linalg.inv(volume.affine) @ TO_LPS @ affine
    voxels = np.indices(shape).reshape(3, -1)
    places = there[:3, :3] @ voxels + there[:3, 3:]
    nearest = np.rint(places).astype(int)
    np.testing.assert_allclose(places, nearest, atol=0.01)
    is_inside = ((nearest >= 0) & (nearest < np.array(volume.spatial_shape)[:, None])).all(axis=0)
    masks = np.zeros((volume.array.shape[3], voxels.shape[1]), volume.array.dtype)
    masks[:, is_inside] = np.moveaxis(volume.array[tuple(nearest[:, is_inside])], -1, 0)
    return masks.reshape(-1, *shape)


@pytest.mark.parametrize("orientation", DIRECTIONS)
@pytest.mark.parametrize("is_enhanced", [False, True])
@pytest.mark.parametrize("seg_type", ["binary", "labelmap"])
def test_each_segment_lies_where_its_label_does(orientation, is_enhanced, seg_type, segment, labels):
    series = make_series(labels, orientation)
    # of a multi-frame file the frames have an order of their own
    result = segment([enhanced(series[3:] + series[:3])] if is_enhanced else series)
    seg = opened(result, seg_type=seg_type)
    assert seg.SegmentationType == seg_type.upper()
    found = masks_in_place(seg, affine_of(orientation), SHAPE)
    np.testing.assert_array_equal(found[-len(PROMPTS) :], [labels == label for label in range(1, 5)])


def test_whole_masks_overlap(triton, segment, labels):
    result = with_map(segment(make_series(labels), maps="masks"), "masks")
    result.maps["masks"].voxels[1, 3:12, 2:8, 1:6] = 1
    seg = opened(result)
    assert seg.SegmentsOverlap == "YES"
    expected = [result.mask(prompt) for prompt in PROMPTS]
    assert (expected[0] & expected[1]).any()
    np.testing.assert_array_equal(masks_in_place(seg, affine_of(), SHAPE), expected)


def test_probabilities_are_those_of_the_server(segment, labels):
    result = with_map(segment(make_series(labels), maps="probabilities"), "probabilities")
    result.maps["probabilities"].voxels[0] = np.arange(labels.size).reshape(SHAPE) % 256
    seg = opened(result, seg_type="fractional")
    assert (seg.SegmentationFractionalType, seg.MaximumFractionalValue) == ("PROBABILITY", 255)
    found = masks_in_place(seg, affine_of(), SHAPE, rescale_fractional=False, dtype=np.uint8)
    np.testing.assert_array_equal(found, result.probabilities)


def test_a_fractional_seg_needs_probabilities(segment, labels):
    with pytest.raises(InvalidRequest, match='maps="probabilities"'):
        segment(make_series(labels)).to_bytes(".seg.dcm", seg_type="fractional")


def test_codes_are_those_of_the_catalogue_and_none_for_a_free_prompt(segment, labels):
    liver, kidney, mine, _ = opened(segment(make_series(labels))).SegmentSequence
    assert [code_of(liver.SegmentedPropertyTypeCodeSequence), liver.SegmentLabel] == ["SCT 10200004 Liver", "Liver"]
    [kind] = kidney.SegmentedPropertyTypeCodeSequence
    assert code_of([kind]) == "SCT 64033007 Kidney"
    assert code_of(kind.SegmentedPropertyTypeModifierCodeSequence) == "SCT 7771000 Left"
    assert code_of(kidney.SegmentedPropertyCategoryCodeSequence) == "SCT 91723000 Anatomical Structure"
    [private] = mine.SegmentedPropertyTypeCodeSequence
    assert (private.CodingSchemeDesignator, private.CodeMeaning) == (PRIVATE, "something of mine")
    assert len(private.CodeValue) <= 16
    assert code_of(mine.SegmentedPropertyCategoryCodeSequence) == "SCT 85756007 Tissue"
    assert mine.SegmentAlgorithmType == "AUTOMATIC"
    colours = {tuple(one.RecommendedDisplayCIELabValue) for one in (liver, kidney, mine)}
    assert len(colours) == 3


def code_of(sequence):
    [code] = sequence
    return f"{code.CodingSchemeDesignator} {code.CodeValue} {code.CodeMeaning}"


def test_it_refers_to_its_slices_and_copies_patient_and_study(segment, labels):
    series = make_series(labels, PatientName="Müller^Jörg", SpecificCharacterSet="ISO_IR 100")
    seg = opened(segment(series))
    assert str(seg.PatientName) == "Müller^Jörg"
    for name in ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID", "StudyDate", "AccessionNumber", "PatientSex"):
        assert seg[name].value == series[0][name].value
    assert seg.SeriesInstanceUID != series[0].SeriesInstanceUID
    assert seg.Modality == "SEG"
    [referred] = seg.ReferencedSeriesSequence
    assert referred.SeriesInstanceUID == series[0].SeriesInstanceUID
    uids = {item.ReferencedSOPInstanceUID for item in referred.ReferencedInstanceSequence}
    assert uids == {one.SOPInstanceUID for one in series}
    for frame in seg.PerFrameFunctionalGroupsSequence:  # each frame names the slice that lies where it lies
        [source] = frame.DerivationImageSequence[0].SourceImageSequence
        place = frame.PlanePositionSequence[0].ImagePositionPatient
        [slice_there] = [one for one in series if np.allclose(one.ImagePositionPatient, place, atol=1e-3)]
        assert source.ReferencedSOPInstanceUID == slice_there.SOPInstanceUID


def test_an_anonymized_series_with_tags_taken_out_is_enough(segment, labels):
    series = make_series(labels)
    for one in series:
        for name in ("PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyTime"):
            del one[name]
    seg = opened(segment(series))
    assert str(seg.PatientName) == ""


def test_slices_at_unequal_distances_keep_their_places(segment, labels):
    places = [0, 2.5, 5, 7.5, 15, 17.5, 20, 22.5]
    series = make_series(labels, positions=places)
    seg = opened(segment(series, allow_gaps=True))
    for frame, pixels in zip(seg.PerFrameFunctionalGroupsSequence, seg.pixel_array, strict=True):
        z = places.index(round(frame.PlanePositionSequence[0].ImagePositionPatient[2] - 100, 3))
        number = frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        np.testing.assert_array_equal(pixels, (labels[:, :, z] == number).T)


def test_what_is_of_no_series_or_not_on_its_slices_is_refused(triton, segment, labels, volume_file):
    with Client() as client:
        result = client.segment(volume_file, "liver")
    with pytest.raises(InvalidRequest, match="segment a DICOM series"):
        result.to_bytes(".seg.dcm")
    series = make_series(labels)
    for z, one in enumerate(series):
        one.ImagePositionPatient = [-30, 20 + 0.4 * z, 100 + 2.5 * z]
    with pytest.raises(InvalidRequest, match="do not lie on its slices"):
        segment(series, resample_tilt=True).to_bytes(".seg.dcm")
    series = make_series(labels)
    for one in series:
        del one.FrameOfReferenceUID
    with pytest.raises(InvalidRequest, match="frame of reference") as refused:
        segment(series).to_bytes(".seg.dcm")
    assert not [word for word in ("Doe", "Jane", "4711") if word in str(refused.value)]


@pytest.mark.parametrize("orientation", ["axial", "oblique"])
@pytest.mark.parametrize("tags", [{}, MR], ids=["CT", "MR"])
def test_dciodvfy_finds_no_fault(orientation, tags, segment, labels, tmp_path):
    result = segment(make_series(labels, orientation, **tags))
    path = tmp_path / "out.seg.dcm"
    result.save(path)
    told = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
    assert not re.findall("^Error.*", told.stdout + told.stderr, re.MULTILINE)
    assert "Segmentation" in told.stdout + told.stderr


@pytest.mark.parametrize("seg_type", ["binary", "labelmap"])
def test_dcmqi_reads_the_same_voxels(seg_type, segment, labels, tmp_path):
    result = segment(make_series(labels, "oblique"))
    result.save(tmp_path / "out.seg.dcm", seg_type=seg_type)
    command = [
        Path(sys.executable).with_name("segimage2itkimage"),
        "-t",
        "nrrd",
        "--mergeSegments",
        "--inputDICOM",
        "out.seg.dcm",
    ]
    subprocess.run([*command, "--outputDirectory", "."], cwd=tmp_path, check=True, capture_output=True)
    [path] = tmp_path.glob("*.nrrd")
    image = sitk.ReadImage(str(path))
    found = np.zeros(SHAPE, np.int16)
    voxels = sitk.GetArrayFromImage(image)
    for place in np.argwhere(voxels):
        mm = np.array(image.TransformIndexToPhysicalPoint(tuple(int(n) for n in place[::-1])))
        ours = np.linalg.inv(TO_LPS @ affine_of("oblique")) @ [*mm, 1]
        found[tuple(np.rint(ours[:3]).astype(int))] = voxels[tuple(place)]
    np.testing.assert_array_equal(found, labels)


@pytest.mark.parametrize("seg_type", ["binary", "labelmap"])
@pytest.mark.parametrize(("time_point", "first"), [(0, 9), (1, 1)])
def test_a_segmentation_of_one_echo_refers_to_its_frames(segment, labels, time_point, first, seg_type):
    seg = opened(segment([with_echoes(labels, labels)], time_point=time_point), seg_type=seg_type)
    for groups in seg.PerFrameFunctionalGroupsSequence:
        [source] = groups.DerivationImageSequence[0].SourceImageSequence
        z = round((groups.PlanePositionSequence[0].ImagePositionPatient[2] - ORIGIN[2]) / SPACING[2])
        assert source.ReferencedFrameNumber == first + z
