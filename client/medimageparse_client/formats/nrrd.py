"""NRRD, attached header (teem.sourceforge.net/nrrd/format.html): to NIfTI, and a label map to NRRD."""

import gzip
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from medimageparse_client.errors import InvalidVolume
from medimageparse_client.formats import attached
from medimageparse_client.formats.attached import Attached
from medimageparse_client.formats.geometry import LPS_TO_RAS

MAGIC = re.compile(rb"NRRD000[1-5]\r?\n")
# LPS from the space that the header names, axis by axis
SPACES = {
    name: signs
    for names, signs in {
        ("left-posterior-superior", "lps"): (1.0, 1.0, 1.0),
        ("right-anterior-superior", "ras"): (-1.0, -1.0, 1.0),
        ("left-anterior-superior", "las"): (1.0, -1.0, 1.0),
    }.items()
    for name in names
}
TYPES = {
    name: dtype
    for names, dtype in {
        ("signed char", "int8", "int8_t"): "i1",
        ("uchar", "unsigned char", "uint8", "uint8_t"): "u1",
        ("short", "short int", "signed short", "signed short int", "int16", "int16_t"): "i2",
        ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"): "u2",
        ("int", "signed int", "int32", "int32_t"): "i4",
        ("uint", "unsigned int", "uint32", "uint32_t"): "u4",
        (
            "longlong",
            "long long",
            "long long int",
            "signed long long",
            "signed long long int",
            "int64",
            "int64_t",
        ): "i8",
        ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"): "u8",
        ("float",): "f4",
        ("double",): "f8",
    }.items()
    for name in names
}
UNPACK = {"raw": attached.unpack_raw, "gzip": attached.unpack_gzip, "gz": attached.unpack_gzip}
ELSEWHERE = "the header names another file for the voxels; save the volume as one file (.nrrd, attached header)"


def is_nrrd(data: bytes) -> bool:
    return MAGIC.match(data) is not None


def read_nrrd(data: bytes) -> Attached:
    """A file of one 3D volume; raises InvalidVolume for every other. No file is opened that the header names."""
    fields, start = read_header(data)
    if {"data file", "datafile"} & fields.keys():
        raise InvalidVolume(ELSEWHERE)
    if any(fields.get(skip, "0").strip() != "0" for skip in ("byte skip", "byteskip", "line skip", "lineskip")):
        raise InvalidVolume("the header skips a part of the voxels; save the volume again, for example in 3D Slicer")
    dtype, endian = TYPES.get(fields.get("type", "").lower()), fields.get("endian", "little").lower()
    unpack = UNPACK.get(fields.get("encoding", "").lower())
    if dtype is None or endian not in ("little", "big"):
        raise InvalidVolume("the voxels are of a type that is no number; save them as integers or floats")
    if unpack is None:
        raise InvalidVolume("the voxels are neither raw nor in gzip; save the volume with one of these encodings")
    shape = attached.sizes_of(fields.get("sizes", ""))
    order = "<" if endian == "little" else ">"
    voxels = attached.voxels_of(data[start:], shape, np.dtype(order + dtype), unpack)
    signs = np.array(SPACES.get(fields.get("space", "").lower(), ()))
    if not signs.size or "space directions" not in fields:
        spacings = fields.get("spacings")
        return Attached(voxels, None, attached.numbers(spacings, 3) if spacings else np.zeros(3))
    units = re.findall('"(.*?)"', fields.get("space units", ""))
    if not set(units) <= {"mm", ""}:
        raise InvalidVolume("the header does not measure in mm; save the volume in mm")
    steps = np.array([vector(text) for text in re.findall(r"\(.*?\)|none", fields["space directions"])])
    if steps.shape != (3, 3):
        raise InvalidVolume("the header does not say how the volume lies: it needs three space directions")
    origin = vector(fields["space origin"]) if "space origin" in fields else np.zeros(3)
    return attached.placed(voxels, (steps * signs).T, origin * signs)


def read_header(data: bytes) -> tuple[dict[str, str], int]:
    """The fields by name in small letters, and where the voxels begin."""
    end = re.compile(rb"\r?\n\r?\n").search(data, 0, attached.MAX_HEADER)
    if end is None:
        raise InvalidVolume(ELSEWHERE)  # as in a .nhdr
    lines = data[: end.start()].decode("utf-8", "replace").splitlines()[1:]
    # "key:=value" is no field but the user's own
    fields = (line.partition(":") for line in lines if not line.startswith("#"))
    return {name.strip().lower(): text.strip() for name, _, text in fields if not text.startswith("=")}, end.end()


def vector(text: str) -> npt.NDArray[np.float64]:
    return attached.numbers(text.strip(" ()").replace(",", " "), 3)


def encode_nrrd(
    voxels: npt.NDArray[Any],
    affine: npt.NDArray[np.float64],
    told: Mapping[str, str] = {},  # noqa: B006
    *,
    sides_known: bool = True,
) -> bytes:
    """A .nrrd in gzip of voxels [x,y,z], or of layers [L,x,y,z].

    affine: [4,4] to mm (RAS+)
    told: further key-values
    sides_known: whether the patient lies so; if nobody knows, only the voxels' sizes are written
    """
    lps = LPS_TO_RAS @ affine
    has_layers = voxels.ndim == 4
    steps = ["none"] * has_layers + [in_words(step) for step in lps[:3, :3].T]
    sizes = ["nan"] * has_layers + [repr(float(size)) for size in np.linalg.norm(lps[:3, :3], axis=0)]
    place = [f"space directions: {' '.join(steps)}", f"space origin: {in_words(lps[:3, 3])}"]
    kind = {1: "unsigned char", 2: "unsigned short"}[voxels.dtype.itemsize]
    lines = [
        "NRRD0004",
        f"type: {kind}",
        f"dimension: {voxels.ndim}",
        *(["space: left-posterior-superior"] if sides_known else []),
        f"sizes: {' '.join(map(str, voxels.shape))}",
        *(place if sides_known else [f"spacings: {' '.join(sizes)}"]),
        f"kinds: {' '.join(['list'] * has_layers + ['domain'] * 3)}",
        "endian: little",
        "encoding: gzip",
        *(f"{key}:={value}" for key, value in told.items()),
    ]
    content = voxels.astype(voxels.dtype.newbyteorder("<"), copy=False).tobytes(order="F")
    return "".join(f"{line}\n" for line in [*lines, ""]).encode() + gzip.compress(content, 1, mtime=0)


def in_words(numbers: npt.NDArray[np.float64]) -> str:
    return f"({','.join(repr(float(number)) for number in numbers)})"
