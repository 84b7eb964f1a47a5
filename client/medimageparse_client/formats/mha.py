"""MetaImage in one file, .mha (ITK's MetaIO): to NIfTI, and a label map to MHA."""

import re
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from medimageparse_client.errors import InvalidVolume
from medimageparse_client.formats import attached
from medimageparse_client.formats.attached import Attached
from medimageparse_client.formats.geometry import LPS_TO_RAS

MAGIC = re.compile(rb"(ObjectType|NDims|Comment)\s*=")
END = re.compile(rb"(?:^|\n)ElementDataFile\s*=\s*([^\r\n]*)\r?\n")
TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
ELSEWHERE = "the header names another file for the voxels; save the volume as one file (.mha)"


def is_mha(data: bytes) -> bool:
    return MAGIC.match(data) is not None


def read_mha(data: bytes) -> Attached:
    """A file of one 3D volume; raises InvalidVolume for every other. No file is opened that the header names."""
    end = END.search(data, 0, attached.MAX_HEADER)
    if end is None or end[1].strip() != b"LOCAL":
        raise InvalidVolume(ELSEWHERE)
    lines = data[: end.start()].decode("utf-8", "replace").splitlines()
    fields = {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in lines)}

    def given(*names: str, usual: str) -> str:
        return next((fields[name] for name in names if name in fields), usual)

    def is_true(*names: str) -> bool:
        return given(*names, usual="False").lower() in ("true", "1")

    if given("ElementNumberOfChannels", usual="1") != "1":
        raise InvalidVolume("the file has several values a voxel; save one of them")
    if given("BinaryData", usual="True").lower() not in ("true", "1") or given("HeaderSize", usual="0") != "0":
        raise InvalidVolume("the voxels are not binary, right behind the header; save the volume again")
    dtype = TYPES.get(fields.get("ElementType", ""))
    if dtype is None:
        raise InvalidVolume("the voxels are of a type that is no number; save them as integers or floats")
    order = ">" if is_true("BinaryDataByteOrderMSB", "ElementByteOrderMSB") else "<"
    unpack = attached.unpack_zlib if is_true("CompressedData") else attached.unpack_raw
    shape = attached.sizes_of(fields.get("DimSize", ""))
    voxels = attached.voxels_of(data[end.end() :], shape, np.dtype(order + dtype), unpack)
    spacing = attached.numbers(given("ElementSpacing", "ElementSize", usual="1 1 1"), 3)
    # a row for each axis
    matrix = attached.numbers(given("TransformMatrix", "Rotation", "Orientation", usual="1 0 0 0 1 0 0 0 1"), 9)
    origin = attached.numbers(given("Offset", "Position", "Origin", usual="0 0 0"), 3)
    return attached.placed(voxels, matrix.reshape(3, 3).T * spacing, origin)


def encode_mha(voxels: npt.NDArray[Any], affine: npt.NDArray[np.float64]) -> bytes:
    """A packed .mha of voxels [x,y,z]; affine to mm (RAS+), whose axes are at right angles."""
    lps = LPS_TO_RAS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    content = zlib.compress(voxels.astype(voxels.dtype.newbyteorder("<"), copy=False).tobytes(order="F"), 1)
    fields = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "True",
        "CompressedDataSize": str(len(content)),
        "TransformMatrix": in_words((lps[:3, :3] / spacing).T.ravel()),
        "Offset": in_words(lps[:3, 3]),
        "CenterOfRotation": "0 0 0",
        "ElementSpacing": in_words(spacing),
        "DimSize": " ".join(map(str, voxels.shape)),
        "ElementType": {1: "MET_UCHAR", 2: "MET_USHORT"}[voxels.dtype.itemsize],
        "ElementDataFile": "LOCAL",
    }
    return "".join(f"{name} = {value}\n" for name, value in fields.items()).encode() + content


def in_words(numbers: npt.NDArray[np.float64]) -> str:
    return " ".join(repr(float(number)) for number in numbers)
