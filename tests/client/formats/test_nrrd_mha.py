"""NRRD and MHA, in and out, with the voxels at the places where SimpleITK sees them."""

import gzip
import io
import itertools
import zlib

import nibabel as nib
import nrrd
import numpy as np
import pytest
import SimpleITK as sitk
import trimesh
from medimageparse_client import Client, InvalidVolume
from medimageparse_client.formats.mha import encode_mha
from medimageparse_client.formats.nifti import encode_volume
from medimageparse_client.formats.nrrd import encode_nrrd
from medimageparse_client.formats.volume_file import recognizes
from medimageparse_client.formats.voxels import decode_voxels

SHAPE = 7, 5, 4
TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
TURN = nib.eulerangles.euler2mat(0.3, -0.5, 0.2)
# which axis of the patient each axis of the file goes along, and whether to its end
ORIENTATIONS = [
    np.eye(3)[list(order)].T * signs
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]
ENDINGS = ("nrrd", "mha")


def voxels(dtype=np.int16):
    values = np.arange(np.prod(SHAPE)).reshape(SHAPE) * 7 % 251
    return (values - (100 if np.dtype(dtype).kind != "u" else 0)).astype(dtype)


def image_of(values, directions=TURN):
    """For SimpleITK, which counts axes from the last."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(values.T))
    image.SetSpacing((0.7, 0.8, 2.5))
    image.SetOrigin((10.5, -20.25, 33.0))
    image.SetDirection(np.asarray(directions, float).ravel().tolist())
    return image


def affine_of(image):
    """Voxels to mm (RAS+), by what SimpleITK says of three places."""
    origin = np.array(image.TransformIndexToPhysicalPoint((0, 0, 0)))
    steps = [np.array(image.TransformIndexToPhysicalPoint(tuple(map(int, step)))) - origin for step in np.eye(3)]
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = np.column_stack(steps), origin
    return TO_LPS @ affine


def written(image, path, is_packed=True):
    sitk.WriteImage(image, str(path), is_packed)
    return path


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("number", range(len(ORIENTATIONS) + 1))
def test_in_a_volume_lies_where_simpleitk_sees_it(number, ending, tmp_path):
    image = image_of(voxels(), [*ORIENTATIONS, TURN][number])
    path = written(image, tmp_path / f"ct.{ending}")
    sent = nib.Nifti1Image.from_bytes(encode_volume(path))
    np.testing.assert_array_equal(np.asarray(sent.dataobj), voxels())
    np.testing.assert_allclose(sent.affine, affine_of(image), atol=1e-5)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("number", range(len(ORIENTATIONS) + 1))
def test_out_simpleitk_sees_a_label_map_where_it_lies(number, ending, tmp_path):
    affine = affine_of(image_of(voxels(), [*ORIENTATIONS, TURN][number]))
    encode = {"nrrd": encode_nrrd, "mha": encode_mha}[ending]
    for dtype in (np.uint8, np.uint16):
        path = tmp_path / f"masks.{ending}"
        path.write_bytes(encode(voxels(dtype), affine))
        image = sitk.ReadImage(str(path))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image).T, voxels(dtype))
        np.testing.assert_allclose(affine_of(image), affine, atol=1e-5)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("is_packed", [True, False])
@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
def test_every_type_of_number_is_read(dtype, is_packed, ending, tmp_path):
    path = written(image_of(voxels(dtype)), tmp_path / f"ct.{ending}", is_packed)
    assert recognizes(path)
    np.testing.assert_array_equal(decode_voxels(encode_volume(path)), voxels(dtype))
    path = path.rename(tmp_path / "without_ending")
    np.testing.assert_array_equal(decode_voxels(encode_volume(path)), voxels(dtype))


def nrrd_file(*lines, content=None, type_="short", sizes="7 5 4"):
    head = ["NRRD0004", f"type: {type_}", "dimension: 3", f"sizes: {sizes}", "encoding: raw", "endian: little", *lines]
    return "\n".join([*head, "", ""]).encode() + (voxels().tobytes(order="F") if content is None else content)


IN_LPS = ("space: left-posterior-superior", "space directions: (1,0,0) (0,2,0) (0,0,3)", "space origin: (4,5,6)")


@pytest.mark.parametrize(
    ("space", "signs"),
    [
        ("left-posterior-superior", (-1, -1, 1)),
        ("LPS", (-1, -1, 1)),
        ("right-anterior-superior", (1, 1, 1)),
        ("RAS", (1, 1, 1)),
        ("left-anterior-superior", (-1, 1, 1)),
    ],
)
def test_each_space_of_nrrd_is_that_of_the_patient(space, signs):
    sent = nib.Nifti1Image.from_bytes(encode_volume(nrrd_file(f"space: {space}", *IN_LPS[1:])))
    np.testing.assert_allclose(
        sent.affine, np.diag([*signs, 1.0]) @ [[1, 0, 0, 4], [0, 2, 0, 5], [0, 0, 3, 6], [0, 0, 0, 1]]
    )


@pytest.mark.parametrize("lines", [(), ("spacings: 1 2 3",), ("space: scanner-xyz", *IN_LPS[1:])])
def test_a_header_that_does_not_say_how_the_patient_lies_says_it_in_nifti_neither(lines):
    sent = nib.Nifti1Image.from_bytes(encode_volume(nrrd_file(*lines)))
    assert (int(sent.header["sform_code"]), int(sent.header["qform_code"])) == (0, 0)
    assert sent.header.get_zooms() == ((1, 2, 3) if lines == ("spacings: 1 2 3",) else (1, 1, 1))


def mha_file(content=None, **fields):
    head = {"ObjectType": "Image", "NDims": "3", "DimSize": "7 5 4", "ElementType": "MET_SHORT", **fields}
    head |= {"ElementDataFile": fields.get("ElementDataFile", "LOCAL")}
    lines = "".join(f"{name} = {value}\n" for name, value in head.items())
    return lines.encode() + (voxels().tobytes(order="F") if content is None else content)


def test_the_other_order_of_bytes_and_ends_of_lines():
    swapped = voxels().astype(">i2").tobytes(order="F")
    for data in (
        nrrd_file(*IN_LPS, content=swapped).replace(b"endian: little", b"endian: big"),
        mha_file(swapped, BinaryDataByteOrderMSB="True"),
        nrrd_file(*IN_LPS, content=b"").replace(b"\n", b"\r\n") + voxels().tobytes(order="F"),
        mha_file(b"").replace(b"\n", b"\r\n") + voxels().tobytes(order="F"),
    ):
        np.testing.assert_array_equal(decode_voxels(encode_volume(data)), voxels())


ZLIB = zlib.compress(voxels().tobytes(order="F"))
PACKED = gzip.compress(voxels().tobytes(order="F"))
FAULTS = {
    "another file in NRRD": (nrrd_file("data file: /etc/passwd", content=b""), "names another file"),
    "another file in NRRD, in one word": (nrrd_file("datafile:../x.raw", content=b""), "names another file"),
    "a list of files": (nrrd_file("DATA FILE: LIST", content=b"\n/etc/passwd\n"), "names another file"),
    "a header alone": (nrrd_file(content=b"").strip(), "names another file"),
    "another file in MHA": (mha_file(b"", ElementDataFile="/etc/passwd"), "names another file"),
    "files by pattern": (mha_file(b"", ElementDataFile="LIST"), "names another file"),
    "MHA without its end": (b"ObjectType = Image\nNDims = 3\n", "names another file"),
    "byte skip": (nrrd_file("byte skip: 10"), "skips a part"),
    "text": (nrrd_file().replace(b"raw", b"text"), "neither raw nor in gzip"),
    "bzip2": (nrrd_file().replace(b"raw", b"bzip2"), "neither raw nor in gzip"),
    "blocks": (nrrd_file(type_="block"), "no number"),
    "colours": (mha_file(ElementNumberOfChannels="3"), "several values"),
    "4D": (nrrd_file(sizes="7 5 4 1"), "not one 3D volume"),
    "no sizes": (nrrd_file(sizes=""), "not one 3D volume"),
    "an empty axis": (mha_file(DimSize="7 0 4"), "not one 3D volume"),
    "sizes that are none": (mha_file(DimSize="7 five 4"), "no whole numbers"),
    "too large": (nrrd_file(sizes="100000 100000 4"), "over 2 GiB"),
    "truncated NRRD": (nrrd_file()[:-1], "truncated"),
    "truncated MHA": (mha_file()[:-1], "truncated"),
    "gzip cut short": (nrrd_file(content=PACKED[:-9]).replace(b"raw", b"gzip"), "truncated"),
    "gzip that was changed": (nrrd_file(content=PACKED[:-8] + bytes(8)).replace(b"raw", b"gzip"), "checksum"),
    "no gzip": (nrrd_file().replace(b"raw", b"gzip"), "damaged"),
    "no zlib": (mha_file(CompressedData="True"), "damaged"),
    "zlib without its checksum": (mha_file(ZLIB[:-2], CompressedData="True"), "truncated"),
    "zlib that was changed": (mha_file(ZLIB[:-4] + bytes(4), CompressedData="True"), "damaged"),
    "zlib cut short": (mha_file(zlib.compress(bytes(280))[:6], CompressedData="True"), "truncated"),
    "directions that are no box": (nrrd_file(IN_LPS[0], "space directions: (1,0,0) (1,0,0) (0,0,3)"), "no box"),
    "directions that are not finite": (nrrd_file(IN_LPS[0], "space directions: (nan,0,0) (0,1,0) (0,0,3)"), "no box"),
    "two directions": (nrrd_file(IN_LPS[0], "space directions: (1,0,0) (0,1,0)"), "three space directions"),
    "a matrix with a number less": (mha_file(TransformMatrix="1 0 0 0 1 0 0 0"), "numbers are missing"),
    "metres": (nrrd_file(*IN_LPS, 'space units: "m" "m" "m"'), "measure in mm"),
    "voxels as text": (mha_file(BinaryData="False"), "not binary"),
    "a header of its own": (mha_file(HeaderSize="-1"), "not binary"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_no_whole_volume_in_one_file_is_refused(name):
    data, sentence = FAULTS[name]
    with pytest.raises(InvalidVolume, match=sentence) as refused:
        encode_volume(data)
    assert "passwd" not in str(refused.value)


def test_the_client_takes_them_and_gives_them_back(triton, volume, affine, tmp_path):
    (tmp_path / "ct.nrrd").write_bytes(encode_nrrd(volume.astype(np.uint8), affine))
    with Client() as client:
        result = client.segment(tmp_path / "ct.nrrd", ["liver", "something of mine"])
    for ending in (".nrrd", ".mha", ".seg.nrrd"):
        result.save(tmp_path / f"masks{ending}")
        image = sitk.ReadImage(str(tmp_path / f"masks{ending}"))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image).T, volume)
        np.testing.assert_allclose(affine_of(image), affine, atol=1e-4)
    header = nrrd.read_header(str(tmp_path / "masks.seg.nrrd"))
    assert (header["Segment0_Name"], header["Segment0_LabelValue"]) == ("Liver", "1")
    assert (header["Segment1_Name"], header["Segment1_LabelValue"]) == ("something of mine", "2")
    assert "~SCT^10200004^Liver~" in header["Segment0_Tags"]
    assert header["Segment0_Color"] != header["Segment1_Color"]
    assert header["Segment0_Extent"] == "0 9 0 11 0 7"


def without_sides(kind, volume, affine):
    """A file that does not say how the patient lies."""
    if kind == "nrrd":
        return encode_nrrd(volume.astype(np.uint8), affine, sides_known=False)
    image = nib.Nifti1Image(volume, None)
    image.header.set_zooms(np.linalg.norm(affine[:3, :3], axis=0))
    return image.to_bytes()


@pytest.mark.parametrize("kind", ["nrrd", "nii"])
def test_where_nobody_knows_the_sides_labels_lie_on_the_file_in_itk(kind, triton, volume, affine, tmp_path):
    triton.sides_known = False
    given = tmp_path / f"given.{kind}"
    given.write_bytes(without_sides(kind, volume, affine))
    with Client() as client:
        result = client.segment(given, ["liver", "spleen"])
    for ending in (".nrrd", ".mha", ".seg.nrrd"):
        result.save(tmp_path / f"masks{ending}")
        image = sitk.ReadImage(str(tmp_path / f"masks{ending}"))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image).T, volume)
        np.testing.assert_allclose(affine_of(image), affine_of(sitk.ReadImage(str(given))), atol=1e-5)
    assert "space" not in nrrd.read_header(str(tmp_path / "masks.nrrd"))
    again = nib.Nifti1Image.from_bytes(encode_volume(tmp_path / "masks.nrrd"))
    assert (int(again.header["sform_code"]), int(again.header["qform_code"])) == (0, 0)
    np.testing.assert_allclose(again.header.get_zooms(), np.linalg.norm(affine[:3, :3], axis=0), rtol=1e-5)
    corners = np.unique(trimesh.load(io.BytesIO(result.meshes()["liver.stl"]), file_type="stl").vertices, axis=0)
    middle = TO_LPS @ affine_of(sitk.ReadImage(str(given))) @ [*np.argwhere(volume == 1).mean(0), 1]
    np.testing.assert_allclose((corners.min(0) + corners.max(0)) / 2, middle[:3], atol=1e-3)


def test_whole_masks_are_layers_of_a_seg_nrrd(triton, volume_file, volume, affine, tmp_path):
    with Client() as client:
        result = client.segment(volume_file, ["liver", "spleen"], maps="masks")
    result.save(tmp_path / "masks.seg.nrrd")
    layers, header = nrrd.read(str(tmp_path / "masks.seg.nrrd"))
    np.testing.assert_array_equal(layers, [result.mask("liver"), result.mask("spleen")])
    assert [header[f"Segment{n}_{key}"] for n in (0, 1) for key in ("Layer", "LabelValue")] == ["0", "1", "1", "1"]
    np.testing.assert_allclose(header["space directions"][1:], (TO_LPS @ affine)[:3, :3].T, atol=1e-5)
