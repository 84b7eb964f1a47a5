"""One slice of a NIfTI volume: the picture, the way round that it is shown, and labels back in the volume."""

import gzip
import itertools
import json
import struct
import sys

import nibabel as nib
import numpy as np
import pytest
from helpers.dicom_files import dicom_file
from medimageparse_client import Client, InvalidImage, InvalidVolume
from medimageparse_client.formats.dicom_slice import read_slice
from medimageparse_client.formats.grey_slice import SIDE
from medimageparse_client.formats.picture import encode_volume_slice
from medimageparse_client.formats.volume_slice import affine_of, read_volume_slice
from medimageparse_client.formats.windows import WINDOWS
from PIL import Image

# to the right, to the front and up
PATIENT = np.random.default_rng(0).integers(1, 1000, (5, 7, 6)).astype(np.int16)
ORIENTATIONS = [
    "".join(letters) for axes in itertools.permutations(("LR", "PA", "IS")) for letters in itertools.product(*axes)
]


def stored_as(letters, voxels=PATIENT, affine=None):
    """The patient's voxels as a NIfTI file whose axes go so."""
    image = nib.Nifti1Image(voxels, np.diag([2, 2, 2, 1]) if affine is None else affine)
    turned = image.as_reoriented(nib.orientations.ornt_transform(
        nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(tuple(letters))))  # fmt: skip
    assert "".join(nib.aff2axcodes(turned.affine)) == letters
    return turned


def as_looked_at(plane, number):
    """Rows down and columns to the right: the patient's right, or front, is on the left; front, or head, is above."""
    if plane == "axial":
        return PATIENT[::-1, ::-1, number].T
    return PATIENT[::-1, number, ::-1].T if plane == "coronal" else PATIENT[number, ::-1, ::-1].T


def of_patient(image, axis, number):
    """The plane, and the slice's number along the patient's own axis."""
    letter = nib.aff2axcodes(image.affine)[axis]
    plane = {"L": "sagittal", "R": "sagittal", "A": "coronal", "P": "coronal"}.get(letter, "axial")
    return plane, number if letter in "RAS" else image.shape[axis] - 1 - number


@pytest.mark.parametrize("letters", ORIENTATIONS)
def test_every_orientation_is_shown_as_radiologists_look_at_it(letters):
    image = stored_as(letters)
    for axis in (0, 1, 2):
        for number in range(image.shape[axis]):
            plane, own_number = of_patient(image, axis, number)
            seen = read_volume_slice(image.to_bytes(), number, axis, None)
            values = np.clip(expected := as_looked_at(plane, own_number).astype(np.float64), *seen.bounds)
            assert (seen.plane, seen.own_shape) == (plane, expected.shape)
            np.testing.assert_allclose(seen.grey, (values - values.min()) / np.ptp(values) * 255)


@pytest.mark.parametrize("letters", ORIENTATIONS)
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_labels_lie_where_their_pixels_came_from(letters, ending):
    image = stored_as(letters)
    for axis, number in itertools.product((0, 1, 2), (0, 3)):
        plane, own_number = of_patient(image, axis, number)
        seen = read_volume_slice(image.to_bytes(), number, axis, None)
        content = seen.encode_labels((as_looked_at(plane, own_number) > 500).astype(np.uint8), ending)
        labels = nib.Nifti1Image.from_bytes(gzip.decompress(content) if ending == ".nii.gz" else content)
        is_slice = np.arange(image.shape[axis]) == number
        expected = (np.asarray(image.dataobj) > 500) & np.moveaxis(np.broadcast_to(
            is_slice, (*np.delete(image.shape, axis), len(is_slice))), -1, axis)  # fmt: skip
        np.testing.assert_array_equal(np.asarray(labels.dataobj), expected)
        np.testing.assert_array_equal(labels.affine, image.affine)
        assert labels.get_data_dtype() == np.uint8


def test_an_oblique_volume_is_shown_in_the_nearest_plane():
    angle = np.radians(25)
    rotation = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    affine = np.diag([2.0, 2, 2, 1])
    affine[:3, :3] = rotation @ affine[:3, :3]
    for letters in ("RAS", "LPS", "ASR"):
        straight, oblique = stored_as(letters), stored_as(letters, affine=affine)
        for axis in (0, 1, 2):
            seen, expected = (read_volume_slice(it.to_bytes(), 2, axis, None) for it in (oblique, straight))
            assert seen.plane == expected.plane
            np.testing.assert_array_equal(seen.grey, expected.grey)


def test_a_slice_is_the_picture_that_a_dicom_slice_of_the_same_values_is():
    values = np.random.default_rng(1).integers(-1000, 1000, (70, 90)).astype(np.int16)
    volume = nib.Nifti1Image(np.repeat(values.T[..., None], 3, 2), np.diag([-0.7, -0.7, 5, 1])).to_bytes()
    for window in WINDOWS:
        expected = read_slice(dicom_file(values), window)
        seen = read_volume_slice(volume, 1, 2, window)
        np.testing.assert_array_equal(seen.grey, expected.grey)
    np.testing.assert_array_equal(seen.square(), expected.square())
    maps = np.random.default_rng(2).integers(0, 256, (SIDE, SIDE)).astype(np.uint8)
    np.testing.assert_array_equal(seen.own_grid(maps), expected.own_grid(maps))


@pytest.mark.parametrize("spacing", [(1, 1, 5), (1, 1, 0.3), (2, 1, 1)], ids=str)
def test_a_ball_is_round_in_every_plane_and_comes_back(spacing):
    """Whatever the sides of its voxels are."""
    shape = [round(60 / size) for size in spacing]
    mm = np.stack(np.meshgrid(*[(np.arange(n) + 0.5) * size - 30 for n, size in zip(shape, spacing, strict=True)],
                              indexing="ij"))  # fmt: skip
    ball = np.clip(600 - 25 * np.linalg.norm(mm, axis=0), 10, 500)
    volume = nib.Nifti1Image(ball.astype(np.float32), np.diag([*spacing, 1])).to_bytes()
    for axis in (0, 1, 2):
        seen = read_volume_slice(volume, shape[axis] // 2, axis, None)
        rows, columns = np.nonzero(seen.grey > 128)
        assert abs(np.ptp(rows) - np.ptp(columns)) <= max(spacing) / min(spacing)
        assert set(seen.own_shape) == {n for other, n in enumerate(shape) if other != axis} or len(set(spacing)) == 1
        back = seen.own_grid(seen.square())
        truth = np.take(ball, shape[axis] // 2, axis)
        span = truth.max() - np.percentile(truth, 0.5)
        expected = seen.view.show((truth - truth.max() + span) / span * 255)
        inside = (slice(2, -2), slice(2, -2))
        assert np.abs(back[inside] - np.clip(expected, 0, 255)[inside]).mean() < 4


def test_a_long_thin_slice_stays_within_bounds():
    volume = nib.Nifti1Image(np.arange(1, 4001, dtype=np.float32).reshape(2, 2000, 1), np.diag([90, 0.1, 1, 1]))
    assert max(read_volume_slice(volume.to_bytes(), 0, 2, None).grey.shape) <= 4096


def test_values_are_scaled_as_the_header_says():
    content = nib.Nifti1Image(PATIENT, np.diag([2, 2, 2, 1])).to_bytes()
    stored = content[:112] + struct.pack("<ff", 2, -1024) + content[120:]  # scl_slope and scl_inter
    plain = nib.Nifti1Image((PATIENT * 2.0 - 1024).astype(np.float32), np.diag([2, 2, 2, 1])).to_bytes()
    np.testing.assert_array_equal(
        read_volume_slice(stored, 2, 2, "lung").grey, read_volume_slice(plain, 2, 2, "lung").grey
    )


@pytest.mark.parametrize(("sform", "qform"), [(1, 0), (0, 1), (2, 1), (0, 0)])
def test_the_side_is_that_of_the_sform_then_of_the_qform(sform, qform):
    image = nib.Nifti1Image(PATIENT, np.diag([-2, -2, 2, 1]))
    image.set_sform(np.diag([-2, -2, 2, 1]), sform)
    image.set_qform(np.diag([-2, 2, 2, 1]) if sform else np.diag([-2, -2, 2, 1]), qform)
    affine, sides_known = affine_of(image.to_bytes())
    assert sides_known == bool(sform or qform)
    assert nib.aff2axcodes(affine) == (("L", "P", "S") if sides_known else ("L", "A", "S"))
    warned = " ".join(read_volume_slice(image.to_bytes(), 0, 2, None).warnings)
    assert ("does not say how the patient lies" in warned) == (not sides_known)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("order", ["<", ">"])
def test_the_label_map_has_the_volumes_header_without_its_texts(kind, order):
    image = kind(PATIENT, np.diag([-2, 2, 3, 1]), kind.header_class(endianness=order))
    image.header["descrip"], image.header["intent_name"] = b"Jane Doe", b"Doe"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Jane Doe"))
    seen = read_volume_slice(image.to_bytes(), 1, 2, None)
    content = seen.encode_labels(np.full(seen.own_shape, 300, np.uint16), ".nii")
    assert b"Doe" not in content
    labels = kind.from_bytes(content)
    assert labels.header.endianness == order
    assert np.unique(labels.get_fdata()).tolist() == [0, 300]
    np.testing.assert_array_equal(labels.affine, image.affine)


@pytest.mark.parametrize(
    ("number", "axis", "window", "sentence"),
    [
        (6, 2, None, "there is no slice 6 along axis 2; the last one is 5"),
        (-1, 0, None, "there is no slice -1 along axis 0; the last one is 4"),
        (0, 3, None, "is 0, 1 or 2"),
        (0, 2, "bone", "the window is unknown; name one of abdomen"),
    ],
)
def test_slices_that_are_not_there(number, axis, window, sentence):
    with pytest.raises(InvalidImage, match=sentence):
        read_volume_slice(stored_as("RAS").to_bytes(), number, axis, window)


@pytest.mark.parametrize(
    ("voxels", "sentence"),
    [
        (np.full((4, 4, 4), np.nan, np.float32), "NaN or infinite"),
        (np.zeros((4, 4, 4), np.complex64), "colours or complex"),
        (np.zeros((4, 4, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")]), "colours or complex"),
        (np.zeros((4, 4, 4), np.uint8), "no pixel above 0"),
        (np.full((4, 4, 4), 7, np.uint8), "all one grey"),
    ],
)
def test_slices_that_show_nothing(voxels, sentence):
    with pytest.raises(InvalidImage, match=sentence):
        read_volume_slice(nib.Nifti1Image(voxels, np.eye(4)).to_bytes(), 1, 2, None)


def test_ct_without_a_window_is_doubted():
    hounsfield = (PATIENT.astype(np.int16) * 2 - 1000).astype(np.int16)
    volume = stored_as("LPS", hounsfield).to_bytes()
    assert "name one" in " ".join(read_volume_slice(volume, 1, 2, None).warnings)
    assert read_volume_slice(volume, 1, 2, "abdomen").warnings == ()


def test_what_a_slice_is_taken_of(tmp_path):
    image = stored_as("LAS")
    nib.save(image, tmp_path / "a.nii.gz")
    expected = encode_volume_slice(image, 2, 1, None, None).data
    for source in (tmp_path / "a.nii.gz", str(tmp_path / "a.nii.gz"), (tmp_path / "a.nii.gz").read_bytes()):
        assert encode_volume_slice(source, 2, 1, None, None).data == expected
    series = nib.Nifti1Image(np.stack([PATIENT[::-1], PATIENT], -1), image.affine)
    assert encode_volume_slice(series, 2, 1, None, 1).data == encode_volume_slice(
        nib.Nifti1Image(PATIENT, image.affine), 2, 1, None, None).data  # fmt: skip
    with pytest.raises(InvalidVolume, match="holds 2 volumes"):
        encode_volume_slice(series, 2, 1, None, None)
    for picture in (np.zeros((4, 4), np.uint8), Image.new("L", (4, 4))):
        with pytest.raises(InvalidImage, match="without slice_number"):
            encode_volume_slice(picture, 0, 2, None, None)
    with pytest.raises(InvalidVolume, match="not a NIfTI file"):
        encode_volume_slice(b"\x89PNG\r\n\x1a\n", 0, 2, None, None)


def test_without_scipy_it_is_named(monkeypatch):
    for module in ("volume_slice", "grey_slice"):
        monkeypatch.delitem(sys.modules, f"medimageparse_client.formats.{module}")
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(InvalidImage, match="slices of volumes need scipy, which is not installed: pip install scipy"):
        encode_volume_slice(stored_as("RAS"), 0, 2, None, None)


def test_segment_image(triton, tmp_path):
    """The stub answers with the picture itself."""
    volume = stored_as("LPI", np.kron(PATIENT, np.ones((4, 4, 4), np.int16)), np.diag([1, 1, 1, 1]))
    with Client() as client:
        result = client.segment_image(volume, ["bright", "dark"], slice_number=9, slice_axis=1)
    seen = result.volume_slice
    assert result.probabilities.shape == (2, *seen.own_shape)
    assert np.abs(result.probabilities[0].astype(int) - seen.grey).mean() < 15
    assert result.report["slice"] == {
        "height": 24,
        "width": 20,
        "number": 9,
        "axis": 1,
        "plane": "coronal",
        "pixel_mm": [1.0, 1.0],
        "window": None,
        "bounds": list(seen.bounds),
    }
    result.save(tmp_path / "masks.nii.gz")
    labels = np.asarray(nib.load(tmp_path / "masks.nii.gz").dataobj)
    np.testing.assert_array_equal(np.unique(labels), [0, 1, 2])
    np.testing.assert_array_equal(seen.view.show(labels[:, 9]), result.label_map)
    assert not np.delete(labels, 9, 1).any()
    assert json.dumps(result.report)
    result.preview(tmp_path / "overlay.png")
    result.save(tmp_path / "masks.png")


def test_other_images_are_not_saved_as_volumes(triton, tmp_path):
    with Client() as client:
        result = client.segment_image(np.zeros((4, 4), np.uint8), "lung")
    with pytest.raises(ValueError, match="of a slice of a volume as"):
        result.save(tmp_path / "masks.nii.gz")
