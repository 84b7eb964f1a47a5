import gzip

import nibabel as nib
import numpy as np
import pytest
from medimageparse_client import InvalidVolume
from medimageparse_client.volume import decode_nifti, encode_volume


def test_files_and_bytes_travel_as_they_are(volume_file):
    stored = volume_file.read_bytes()
    assert encode_volume(volume_file) == stored
    assert encode_volume(str(volume_file)) == stored
    assert encode_volume(stored) == stored
    assert encode_volume(gzip.decompress(stored)) == gzip.decompress(stored)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image, nib.Nifti1Pair, nib.MGHImage])
def test_images(kind, volume, affine):
    image = decode_nifti(encode_volume(kind(volume, affine)))
    np.testing.assert_array_equal(image.dataobj, volume)
    np.testing.assert_allclose(image.affine, affine, atol=1e-5)


def test_image_header_is_kept(volume, affine):
    image = nib.Nifti1Image(volume, affine)
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=4)
    image.header.set_xyzt_units("mm", "sec")
    header = decode_nifti(encode_volume(image)).header
    assert (int(header["qform_code"]), int(header["sform_code"])) == (1, 4)
    assert header.get_xyzt_units() == ("mm", "sec")


@pytest.mark.parametrize(
    ("dtype", "stored"),
    [
        ("bool", "uint8"),
        ("uint8", "uint8"),
        (">i2", ">i2"),
        ("uint16", "uint16"),
        ("int64", "int32"),
        ("uint64", "int32"),
        ("float16", "float32"),
        ("float64", "float64"),
        ("longdouble", "float64"),
    ],
)
def test_arrays(dtype, stored, volume, affine):
    array = volume.astype(dtype)
    image = decode_nifti(encode_volume(array, affine))
    assert image.get_data_dtype().newbyteorder("=") == np.dtype(stored).newbyteorder("=")
    np.testing.assert_array_equal(image.dataobj, array)
    np.testing.assert_allclose(image.affine, affine, atol=1e-5)
    assert image.header.get_xyzt_units()[0] == "mm"


def test_integers_too_large_for_32_bits(affine):
    image = decode_nifti(encode_volume(np.full((2, 3, 4), 2**40), affine))
    np.testing.assert_array_equal(image.dataobj, 2.0**40)


@pytest.mark.parametrize(
    ("affine", "sentence"),
    [
        (None, "needs affine="),
        (np.eye(3), "4 x 4"),
        (np.zeros((4, 4)), "4 x 4"),
        (np.diag([1, 1, np.nan, 1]), "4 x 4"),
    ],
)
def test_an_array_needs_a_true_affine(affine, sentence, volume):
    with pytest.raises(InvalidVolume, match=sentence):
        encode_volume(volume, affine)


@pytest.mark.parametrize("dtype", ["complex64", "object", "U3", "M8[s]"])
def test_other_arrays_are_refused(dtype, affine):
    with pytest.raises(InvalidVolume, match="use integers or floats"):
        encode_volume(np.zeros((2, 3, 4), dtype), affine)


def test_an_affine_beside_a_file_is_refused(volume_file, affine):
    with pytest.raises(InvalidVolume, match="has its own"):
        encode_volume(volume_file, affine)


@pytest.mark.parametrize("data", [b"", b"DICM", b"\0" * 400])
def test_bytes_that_are_no_nifti_are_refused(data):
    with pytest.raises(InvalidVolume, match="not a NIfTI file"):
        encode_volume(data)


@pytest.mark.parametrize(
    ("name", "sentence"), [("no.nii.gz", "No such file"), ("ct.dcm", "dcm2niix"), ("folder.nii", "Is a directory")]
)
def test_files_that_cannot_be_sent(name, sentence, tmp_path):
    (tmp_path / "folder.nii").mkdir()
    with pytest.raises(InvalidVolume, match=sentence) as error:
        encode_volume(tmp_path / name)
    assert name not in str(error.value)


def test_an_image_whose_file_is_gone(volume_file):
    image = nib.load(volume_file)
    volume_file.unlink()
    with pytest.raises(InvalidVolume, match="cannot be read"):
        encode_volume(image)


def test_over_two_gibibytes(volume_file, monkeypatch):
    monkeypatch.setattr("medimageparse_client.volume.MAX_BYTES", 100)
    with pytest.raises(InvalidVolume, match="over 2 GiB"):
        encode_volume(volume_file)


def test_other_types_are_refused():
    with pytest.raises(InvalidVolume, match="a path, bytes"):
        encode_volume([[1, 2], [3, 4]])


def test_damaged_files(volume_file):
    data = volume_file.read_bytes()
    for damaged in (data[:200], data[:-20], gzip.decompress(data)[:200], gzip.compress(b"hello")):
        with pytest.raises(InvalidVolume, match="damaged"):
            decode_nifti(damaged)
