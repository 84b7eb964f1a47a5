import gzip

import nibabel as nib
import numpy as np
import pytest
from medimageparse_client import InvalidVolume
from medimageparse_client.formats.nifti import encode_volume
from medimageparse_client.formats.voxels import decode_voxels


def test_files_and_bytes_travel_as_they_are(volume_file):
    stored = volume_file.read_bytes()
    assert encode_volume(volume_file) == stored
    assert encode_volume(str(volume_file)) == stored
    assert encode_volume(stored) == stored
    assert encode_volume(gzip.decompress(stored)) == gzip.decompress(stored)


def decode_nifti(data):
    """Another reader of what is sent."""
    return (nib.Nifti2Image if data[:4] == (540).to_bytes(4, "little") else nib.Nifti1Image).from_bytes(data)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image, nib.Nifti1Pair, nib.Nifti2Pair, nib.MGHImage])
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
    ("name", "sentence"), [("no.nii.gz", "No such file"), ("ct.dcm", "dcm2niix"), ("folder.nii", "this is a folder")]
)
def test_files_that_cannot_be_sent(name, sentence, tmp_path):
    (tmp_path / "folder.nii").mkdir()
    (tmp_path / "ct.dcm").write_bytes(bytes(128) + b"DICM")
    with pytest.raises(InvalidVolume, match=sentence) as error:
        encode_volume(tmp_path / name)
    assert name not in str(error.value)


def test_an_image_whose_file_is_gone(volume_file):
    image = nib.load(volume_file)
    volume_file.unlink()
    with pytest.raises(InvalidVolume, match="cannot be read"):
        encode_volume(image)


def test_over_two_gibibytes(volume_file, monkeypatch):
    monkeypatch.setattr("medimageparse_client.formats.nifti.MAX_BYTES", 100)
    with pytest.raises(InvalidVolume, match="over 2 GiB"):
        encode_volume(volume_file)


def test_other_types_are_refused():
    with pytest.raises(InvalidVolume, match="a path, bytes"):
        encode_volume([[1, 2], [3, 4]])


def test_each_kind_of_damage_is_called_what_it_is(volume_file):
    data = volume_file.read_bytes()
    wrong_checksum, wrong_length = bytearray(data), bytearray(data)
    unpackable = bytearray(gzip.compress(gzip.decompress(data)))
    unpackable[10] |= 6  # a kind of deflate block that there is not
    wrong_checksum[-8] ^= 1
    wrong_length[-1] ^= 1
    for damaged, sentence in (
        (data[:200], "is truncated"),
        (data[:-20], "is truncated"),
        (data[:-2], "is truncated"),
        (gzip.decompress(data)[:200], "is truncated"),
        (gzip.decompress(data)[:-1], "is truncated"),
        (gzip.compress(gzip.decompress(data)[:-1]), "is truncated"),
        (bytes(wrong_checksum), "the gzip checksum does not fit"),
        (bytes(wrong_length), "the gzip checksum does not fit"),
        (bytes(unpackable), "is damaged"),
        (gzip.compress(b"hello"), "not a NIfTI file"),
    ):
        with pytest.raises(InvalidVolume, match=sentence):
            decode_voxels(damaged)


@pytest.mark.parametrize(
    "tail", [b"", bytes(512), b"--boundary--\r\n", b"\x1f\x8b", b"\x1f\x8b\x08" + bytes(9), b"\x1f\x8bx"]
)
def test_what_stands_behind_the_voxels_does_not_matter(tail, volume_file, volume):
    packed = volume_file.read_bytes()
    content = gzip.decompress(packed)
    members = gzip.compress(content[:300]) + bytes(7) + gzip.compress(content[300:])
    for data in (packed, content, members, gzip.compress(content + b"more"), packed + gzip.compress(b"more")):
        np.testing.assert_array_equal(decode_voxels(data + tail), volume)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("slope", "intercept", "expected"), [(2, -1024, (2, -1024)), (0, 5, (1, 0)), (np.nan, np.nan, (1, 0))]
)
def test_voxels_of_any_header(kind, order, slope, intercept, expected, volume):
    image = kind(volume[..., None, None], None, kind.header_class(endianness=order))
    content = image.to_bytes()
    size = kind.header_class.sizeof_hdr
    header = kind.header_class(content[:size], order, check=False)
    header["scl_slope"], header["scl_inter"] = slope, intercept
    header["pixdim"][:] = np.nan
    header["sform_code"] = header["qform_code"] = 1
    header["srow_x"], header["quatern_b"] = np.nan, 7
    voxels = decode_voxels(header.binaryblock + content[size:])
    np.testing.assert_array_equal(voxels, volume * expected[0] + expected[1])


def header_of(data):
    return nib.Nifti1Header(data[:348], check=False)


@pytest.mark.parametrize("fields", [{"srow_x": 0}, {"srow_x": np.nan}, {"srow_x": [-1, 0, 0, np.nan]}])
def test_a_nibabel_image_keeps_the_header_that_nibabel_cannot_use(fields, volume, affine, tmp_path):
    """The qform is sound: only the server's rule finds it."""
    image = nib.Nifti1Image(volume, affine)
    image.set_qform(affine, 1)
    header = header_of(image.to_bytes())
    for name, value in fields.items():
        header[name] = value
    (tmp_path / "odd.nii").write_bytes(header.binaryblock + image.to_bytes()[348:])
    sent = encode_volume(nib.load(tmp_path / "odd.nii"))
    assert header_of(sent).binaryblock == header.binaryblock
    np.testing.assert_array_equal(decode_voxels(sent), volume)


def test_a_nibabel_image_that_was_moved_is_sent_as_it_is_now(volume, affine):
    image = nib.Nifti1Image(volume, np.eye(4))
    image.affine[:] = affine
    np.testing.assert_allclose(decode_nifti(encode_volume(image)).affine, affine, atol=1e-5)


def test_a_nibabel_image_with_a_qfac_of_0_is_sent(volume, affine):
    image = nib.Nifti1Image(volume, affine)
    image.set_qform(affine, 1)
    image.set_sform(None, 0)
    image.header["pixdim"][0] = 0
    sent = encode_volume(image)
    assert header_of(sent)["quatern_b"] == image.header["quatern_b"]
    np.testing.assert_array_equal(decode_voxels(sent), volume)


def test_a_pair_of_files_keeps_both_forms(volume, affine):
    image = nib.Nifti1Pair(volume, affine)
    image.set_qform(affine, 1)
    image.set_sform(affine, 4)
    header = header_of(encode_volume(image))
    assert (int(header["qform_code"]), int(header["sform_code"])) == (1, 4)
    np.testing.assert_allclose(header.get_qform(), affine, atol=1e-5)


@pytest.mark.parametrize("dtype", ["bool", "int64", "float16", "longdouble"])
def test_an_image_of_another_format_has_its_voxels_brought_to_a_type_that_nifti_has(dtype, volume, affine):
    image = decode_nifti(encode_volume(nib.spatialimages.SpatialImage(volume.astype(dtype), affine)))
    np.testing.assert_array_equal(image.dataobj, volume.astype(dtype))
    np.testing.assert_allclose(image.affine, affine, atol=1e-5)


def test_an_image_of_another_format_without_an_affine_says_so(volume):
    header = header_of(encode_volume(nib.spatialimages.SpatialImage(volume, None)))
    assert (int(header["qform_code"]), int(header["sform_code"])) == (0, 0)
    with pytest.raises(InvalidVolume, match="not an invertible"):
        encode_volume(nib.spatialimages.SpatialImage(volume, np.diag([1.0, 0, 1, 1])))


def test_an_image_whose_file_is_damaged(volume_file):
    image = nib.load(volume_file)
    volume_file.write_bytes(volume_file.read_bytes()[:-20])
    with pytest.raises(InvalidVolume, match="cannot be read"):
        encode_volume(image)
