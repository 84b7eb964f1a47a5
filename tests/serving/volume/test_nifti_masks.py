"""Labels to NIfTI file and report."""

import base64
import gzip
import json
from dataclasses import asdict

import nibabel as nib
import numpy as np
import pytest
from medimageparse_serving.volume.label_counts import count_labels
from medimageparse_serving.volume.nifti_masks import encode_nifti, encode_nifti_file
from medimageparse_serving.volume.nifti_volume import Limits, Options, decode_volume
from medimageparse_serving.volume.report import Segmented, describe_prompts, stored_box, why_absent

LIMITS = Limits(10**7, 10**7, 10**6, 1000, 1000)
AFFINE = np.array([[0, 0, 3, -10], [-1.5, 0, 0, 20], [0, 2, 0, 5], [0, 0, 0, 1.0]])


def geometry_of(image):
    return decode_volume(image.to_bytes(), Options(intensity="none"), LIMITS)[1]


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_the_file_has_the_images_geometry_and_no_text(kind):
    image = kind(np.zeros((6, 7, 4), np.int16), AFFINE)
    image.header.set_xyzt_units("mm", "sec")
    qform = np.array([[0.8, -0.6, 0, 3], [0.6, 0.8, 0, 4], [0, 0, -2.5, 5], [0, 0, 0, 1]])
    image.set_qform(qform, 1)
    image.set_sform(AFFINE, 3)
    for field in ("descrip", "aux_file", "intent_name"):
        image.header[field] = "secret"
    labels = np.random.default_rng(0).integers(0, 4, image.shape).astype(np.uint8)
    nifti_file = json.loads(encode_nifti_file(labels, geometry_of(image)))["data"]
    content = gzip.decompress(base64.b64decode(nifti_file, validate=True))
    masks = kind.from_bytes(content)
    assert b"secret" not in content
    assert masks.get_data_dtype() == np.uint8
    assert np.array_equal(np.asarray(masks.dataobj), labels)
    assert np.array_equal(masks.affine, image.affine)
    assert masks.header.get_zooms() == image.header.get_zooms()
    assert masks.header.get_xyzt_units()[0] == "mm"
    for form in ("get_sform", "get_qform"):
        ours, theirs = (getattr(file, form)(coded=True) for file in (masks, kind.from_bytes(image.to_bytes())))
        assert np.array_equal(ours[0], theirs[0])
        assert ours[1] == theirs[1]


def test_a_file_without_geometry_stays_without():
    image = nib.Nifti1Image(np.zeros((3, 4, 5), np.uint8), None)
    nifti_file = json.loads(encode_nifti_file(np.zeros((3, 4, 5), np.uint8), geometry_of(image)))["data"]
    masks = nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(nifti_file)))
    assert (int(masks.header["sform_code"]), int(masks.header["qform_code"])) == (0, 0)


@pytest.mark.parametrize("affine", [AFFINE, np.diag([1.0, -1, 2, 1]), np.diag([-1.0, 1, 2, 1])])
def test_counts_and_boxes_are_those_of_the_stored_labels(affine):
    stored = np.zeros((9, 8, 6), np.uint8)
    stored[2:5, 1:4, 3:] = 1
    stored[7, 7, 0] = 3
    image = nib.Nifti1Image(stored, affine)
    volume, geometry = decode_volume(image.to_bytes(), Options(intensity="none"), LIMITS)
    label_slices = volume.astype(np.uint8)
    counts, occurs = count_labels(label_slices)
    assert counts[:4].tolist() == [9 * 8 * 6 - 28, 27, 0, 1]
    assert stored_box(occurs, 1, geometry) == [[2, 1, 3], [4, 3, 5]]
    assert stored_box(occurs, 3, geometry) == [[7, 7, 0], [7, 7, 0]]


@pytest.mark.parametrize("labels", ["noise", "nothing", "everything", "blocks"])
def test_labels_are_counted_as_numpy_counts_them(labels):
    shape, random = (4, 7, 9), np.random.default_rng(3)
    noise = random.integers(0, 256, shape).astype(np.uint8)
    blocks = np.repeat(random.integers(0, 3, (4, 7, 3)), 3, 2).astype(np.uint8)
    of_kind = {"noise": noise, "nothing": noise * 0, "everything": noise * 0 + 255, "blocks": blocks}[labels]
    counts, occurs = count_labels(of_kind)
    assert counts.tolist() == np.bincount(of_kind.ravel(), minlength=256).tolist()
    for axis, occurs_along in enumerate(occurs):
        for label in range(1, 256):
            others = tuple(other for other in range(3) if other != axis)
            assert occurs_along[label].tolist() == (of_kind == label).any(others).tolist()


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_the_file_is_the_one_that_nibabel_writes(kind):
    image = kind(np.zeros((6, 7, 4), np.int16), AFFINE)
    labels = np.random.default_rng(1).integers(0, 4, image.shape).astype(np.uint8)
    content = gzip.decompress(encode_nifti(labels, geometry_of(image)))
    assert kind.from_bytes(content).to_bytes() == content


def test_the_report_of_a_prompt():
    stored = np.zeros((9, 8, 6), np.uint8)
    stored[2:5, 1:4, 3:] = 1
    image = nib.Nifti1Image(stored, np.diag([-2.0, 2, 5, 1]))
    volume, geometry = decode_volume(image.to_bytes(), Options(intensity="none"), LIMITS)
    label_slices = volume.astype(np.uint8)
    segmented = Segmented({}, 4, [0.75, 0.25], [4, 0], [[], []])
    found, missing = describe_prompts(label_slices, segmented, geometry, ["liver", "cyst"], np.array([False, True]))
    assert asdict(found) == {
        "text": "liver",
        "label": 1,
        "present": True,
        "highest_score": 0.75,
        "slices_scored": 4,
        "slices_shown": 3,
        "lost_to": [],
        "why_absent": None,
        "voxels": 27,
        "volume_ml": 0.54,
        "box_voxels": [[2, 1, 3], [4, 3, 5]],
        "box_mm": [[-9, 1, 12.5], [-3, 7, 27.5]],
        "truncated": False,
    }
    assert (missing.present, missing.voxels, missing.volume_ml) == (False, 0, 0)
    assert (missing.box_voxels, missing.box_mm, missing.truncated) == (None, None, True)
    assert missing.why_absent == "low_score"


def test_what_a_prompt_lost_is_counted_by_winner():
    scores = np.array([[0.9, 0.9, 0.9, 0.2], [0.8, 0.95, 0.8, 0.5], [0.7, 0.7, 0.1, 0.1], [0.1] * 4], np.float32)
    lost_to = np.array([[0, 2, 0, 0], [1, 0, 1, 0], [1, 2, 0, 0], [0] * 4], np.uint8)
    segmented = Segmented.of(scores, lost_to, {}, 4)
    assert segmented.slices_scored == [3, 3, 2, 0]
    assert segmented.lost_to == [[[2, 1]], [[1, 2]], [[1, 1], [2, 1]], []]
    assert json.loads(json.dumps(asdict(segmented))) == asdict(segmented)


@pytest.mark.parametrize(
    ("voxels", "slices_scored", "lost_to", "reason"),
    [
        (1, 0, [], None),
        (1, 3, [[2, 1]], None),
        (0, 0, [], "low_score"),
        (0, 3, [[2, 1]], "overlap"),
        (0, 3, [], "empty_mask"),
    ],
)
def test_an_absent_prompt_has_a_reason(voxels, slices_scored, lost_to, reason):
    assert why_absent(voxels, slices_scored, lost_to) == reason
