"""The same patient gets the same anatomy however the file is stored, and an answer in the file's own geometry."""

import gzip
import json
from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
from helpers.nifti_answers import assert_same_geometry, brought_to, label_image
from medimageparse_client.results.answer import Answer
from medimageparse_client.results.segmentation import decode_answer

AXES = [
    "".join(side[end] for side, end in zip(sides, ends, strict=True))
    for sides in permutations(("RL", "AP", "IS"))
    for ends in product((0, 1), repeat=3)
]


def stored_as(image, axes):
    """The same patient in a file whose three axes run towards these sides."""
    transform = nib.orientations.ornt_transform(nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(axes))
    stored = image.as_reoriented(transform)
    stored.set_sform(stored.affine, "scanner")
    stored.set_qform(stored.affine, "aligned")
    return stored


def turned(image):
    """The same voxels with an affine that is oblique by up to 20 degrees."""
    turn = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.1, -0.2, 0.3))
    image = image.__class__(np.asarray(image.dataobj), turn @ image.affine, image.header)
    image.set_sform(image.affine, "scanner")
    image.set_qform(image.affine, "scanner")
    return image


@pytest.mark.parametrize("axes", AXES)
def test_all_48_orientations_of_a_file_give_the_same_anatomy(infer, request_of, volume, answer, axes):
    stored = stored_as(volume, axes)
    found = infer(request_of(stored))
    labels = label_image(found["nifti_file"])
    assert_same_geometry(labels, stored)
    assert np.array_equal(np.asarray(labels.dataobj), found["label_map"])
    assert np.array_equal(brought_to(volume, labels), answer["label_map"])
    assert np.array_equal(found["scores"], answer["scores"])


@pytest.mark.parametrize("axes", ["LAS", "SRP"])
def test_an_oblique_file_gives_the_same_anatomy(infer, request_of, volume, answer, axes):
    reference = turned(volume)
    stored = stored_as(reference, axes)
    labels = label_image(infer(request_of(stored))["nifti_file"])
    assert_same_geometry(labels, stored)
    assert np.array_equal(brought_to(reference, labels), answer["label_map"])


def as_nifti_2(image):
    return nib.Nifti2Image(np.asarray(image.dataobj), image.affine, nib.Nifti2Header.from_header(image.header))


def as_big_endian(image):
    return nib.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header.as_byteswapped(">"))


def as_float(image):
    return nib.Nifti1Image(np.asarray(image.dataobj, np.float32), image.affine)


def as_4d(image):
    return nib.Nifti1Image(np.asarray(image.dataobj)[..., None], image.affine, image.header)


@pytest.mark.parametrize("kind", [as_nifti_2, as_big_endian, as_float, as_4d])
def test_the_kind_of_file_changes_no_voxel(infer, request_of, volume, answer, kind):
    stored = kind(volume)
    found = infer(request_of(stored.to_bytes()))
    assert np.array_equal(found["label_map"], answer["label_map"])
    assert_same_geometry(label_image(found["nifti_file"]), stored)


def test_slope_and_intercept_are_applied(infer, request_of, volume):
    units = (np.asarray(volume.dataobj) + 1024) // 2
    scaled = nib.Nifti1Image(units.astype(np.uint16), volume.affine)
    scaled.header.set_slope_inter(2, -1024)  # nibabel then writes the voxels as they are
    plain = nib.Nifti1Image(units * np.int16(2) - np.int16(1024), volume.affine)
    assert np.array_equal(infer(request_of(scaled))["label_map"], infer(request_of(plain))["label_map"])


@pytest.mark.parametrize(
    ("sform", "qform", "units"), [(0, 1, "mm"), (4, 0, "micron"), (1, 3, "meter"), (0, 0, "unknown")]
)
def test_codes_and_units_of_the_header_come_back(infer, request_of, volume, sform, qform, units):
    stored = nib.Nifti1Image(np.asarray(volume.dataobj)[:, :, :1], volume.affine, volume.header)
    stored.set_sform(volume.affine if sform else None, sform)
    stored.set_qform(volume.affine if qform else None, qform)
    stored.header.set_xyzt_units(units)
    sent = stored.to_bytes()
    labels = label_image(infer(request_of(sent, ["liver"]))["nifti_file"])
    assert_same_geometry(labels, nib.Nifti1Image.from_bytes(sent))


def report_of(found):
    return json.loads(found["report"].item())


def with_header(image, **fields):
    """The file of `image` with header fields as no library would write them."""
    content = image.to_bytes()
    header = nib.Nifti1Header(content[:348], check=False)
    for name, value in fields.items():
        header[name] = value
    return header.binaryblock + content[348:]


NO_ROWS = {"srow_x": 0, "srow_y": 0, "srow_z": 0}
NO_SIDES = {"codes of 0": {"sform_code": 0, "qform_code": 0}, "nothing usable": {**NO_ROWS, "quatern_b": np.nan}}


@pytest.mark.parametrize("axes", AXES[::7])
@pytest.mark.parametrize("sform", [NO_ROWS, {"srow_x": np.nan}, {"sform_code": 0}], ids=["singular", "NaN", "none"])
def test_the_qform_is_enough(infer, request_of, volume, answer, axes, sform):
    stored = stored_as(volume, axes)
    found = infer(request_of(with_header(stored, **sform)))
    labels = label_image(found["nifti_file"])
    assert np.allclose(labels.affine, stored.affine, atol=1e-4)
    assert np.array_equal(brought_to(volume, labels), answer["label_map"])
    image = report_of(found)["image"]
    assert (image["affine_source"], image["sides_known"], image["stored_orientation"]) == ("qform", True, axes)
    assert np.array_equal(image["affine"], labels.affine)
    assert len(report_of(found)["warnings"]) == ("sform_code" not in sform)


@pytest.mark.parametrize("fields", NO_SIDES.values(), ids=NO_SIDES)
def test_sides_that_the_file_does_not_say_are_named_as_such(infer, request_of, volume, fields, tmp_path):
    sent = gzip.compress(with_header(stored_as(volume, "RSA"), **fields)) + b"more"
    found = infer(request_of(sent))
    report = report_of(found)
    assert not report["image"]["sides_known"]
    assert "left and right are not known" in report["warnings"][0]
    assert "orientation=stored" in report["warnings"][0]
    assert np.array_equal(found["label_map"], infer(request_of(sent, orientation="stored"))["label_map"])
    assert all(prompt["volume_ml"] is not None for prompt in report["prompts"])
    prompts = tuple(prompt["text"] for prompt in report["prompts"])
    result = decode_answer(prompts, sent, Answer(found))
    assert np.array_equal(result.label_map, found["label_map"])
    assert np.array_equal(result.affine, report["image"]["affine"])
    result.preview(tmp_path / "preview.png")


def test_two_forms_of_other_sides_are_named(infer, request_of, volume, answer):
    other = np.diag([-1.0, 1, 1, 1]) @ volume.affine
    stored = nib.Nifti1Image(np.asarray(volume.dataobj), volume.affine, volume.header)
    stored.set_qform(other, "scanner")
    found = infer(request_of(stored))
    assert_same_geometry(label_image(found["nifti_file"]), stored)
    assert np.array_equal(found["label_map"], answer["label_map"])
    (warning,) = report_of(found)["warnings"]
    assert "LAS" in warning
    assert "RAS" in warning
    assert report_of(answer)["warnings"] == []
