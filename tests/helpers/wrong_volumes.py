"""Requests to medimageparse_3d that are the caller's mistake."""

import base64
import gzip

import nibabel as nib
import numpy as np
from helpers.fuzzed_input import SECRET

SEVERAL_PASSES = b"ct-spine & ct-bones-muscles & ct-head-neck"


def nifti(dtype=np.int16, shape=(12, 10, 3), value=40, **fields):
    """A small NIfTI file with some header fields overwritten, and a secret in its text fields."""
    image = nib.Nifti1Image(np.full(shape, value, dtype), np.diag([-1.0, 1, 1, 1]))
    image.header["descrip"] = image.header["aux_file"] = SECRET
    content = bytearray(image.to_bytes())
    header = nib.Nifti1Header(bytes(content[:348]), check=False)
    for name, new in fields.items():
        header[name] = new
    content[:348] = header.binaryblock
    return bytes(content)


def with_value(value, dtype=np.float32):
    volume = np.zeros((12, 10, 3), dtype)
    volume[5, 4, 1] = value
    return nib.Nifti1Image(volume, np.diag([-1.0, 1, 1, 1])).to_bytes()


def rgb():
    voxels = np.zeros((12, 10, 3), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    return nib.Nifti1Image(voxels, np.eye(4)).to_bytes()


def of_shape(*sizes):
    """A header that states a shape, and hardly any voxels."""
    return nifti(dim=[len(sizes), *sizes, *[1] * (7 - len(sizes))])


COMPRESSED = gzip.compress(nifti())
WRONG_IMAGES = {
    "empty": b"",
    "bad base64": b"this is " + SECRET.encode() + b" and no base64!",
    "base64 cut short": base64.b64encode(COMPRESSED)[:-3],
    "base64 of something else": base64.b64encode(SECRET.encode() * 40),
    "not a NIfTI": b"DICM" + bytes(600),
    "gzip of something else": gzip.compress(SECRET.encode() * 100),
    "truncated gzip": COMPRESSED[: len(COMPRESSED) // 2],
    "gzip cut in its checksum": COMPRESSED[:-6],
    "damaged gzip": COMPRESSED[:40] + bytes(20) + COMPRESSED[60:],
    "truncated voxels": nifti()[:-10],
    "header only": nifti()[:348],
    "header cut short": nifti()[:200],
    "header of a pair of files": nifti(magic=b"ni1"),
    "1D": nifti(shape=(12,)),
    "2D": nifti(shape=(12, 10)),
    "4D": nifti(shape=(12, 10, 3, 2)),
    "5D vectors": nifti(shape=(12, 10, 3, 1, 3)),
    "no dimension": nifti(dim=[0] * 8),
    "negative size": nifti(dim=[3, 12, -10, 3, 1, 1, 1, 1]),
    "NaN": with_value(np.nan),
    "infinite": with_value(np.inf),
    "minus infinite": with_value(-np.inf, np.float64),
    "beyond float32": with_value(1e300, np.float64),
    "complex": nifti(np.complex64),
    "RGB": rgb(),
    "unknown voxel type": nifti(datatype=99),
    "slope without intercept": nifti(scl_slope=2.0, scl_inter=np.nan),
    "voxels begin nowhere": nifti(vox_offset=1e12),
    "too many voxels": of_shape(1024, 1024, 1024),
    "too long a side": of_shape(2, 2, 5000),
    "more voxels than integers": of_shape(32767, 32767, 32767),
}
WRONG_TEXTS = {
    "no prompt": b"",
    "blanks": b" \n ",
    "only separators": b" & & ",
    "empty prompt": SECRET.encode() + b" & & spleen",
    "prompt of control characters": SECRET.encode() + b" & \x00\x07 & spleen",
    "too many prompts": b" & ".join([SECRET.encode()] * 65),
    "too many characters": SECRET.encode() * 2000,
    "not UTF-8": SECRET.encode("utf-16"),
    "latin-1": b"l\xe9sion " + SECRET.encode(),
}
WRONG_OPTIONS = {
    name: {name: value}
    for name, value in {
        "intensity": SECRET.encode(),
        "orientation": b"RAS",
        "slice_axis": b"3",
        "output": b"probability",
    }.items()
} | {
    "option not UTF-8": {"intensity": b"\xff" + SECRET.encode()},
    "draws": {"draws": np.array([17], np.int32)},
    "text and preset": {"preset": b"ct-abdomen"},
    "unknown preset": {"text": None, "preset": SECRET.encode()},
    "empty preset": {"text": None, "preset": b""},
    "one of two presets unknown": {"text": None, "preset": b"ct-abdomen & " + SECRET.encode()},
    "preset not UTF-8": {"text": None, "preset": b"\xff" + SECRET.encode()},
    "draws of several passes": {"text": None, "preset": SEVERAL_PASSES, "draws": np.array([2], np.int32)},
    "instances of several draws": {"draws": np.array([2], np.int32), "instances": np.array([True])},
}
WRONG_TENSORS = {
    "image left out": {"image": None},
    "text left out": {"text": None},
    "misspelt option": {"intensty": b"auto"},
    "two images": {"image": np.array([b"1", b"2"], np.object_)},
    "no image element": {"image": np.zeros(0, np.object_)},
    "a number for text": {"text": np.zeros(1, np.float32)},
    "a number for an option": {"slice_axis": np.zeros(1, np.int64)},
}
MUCH_WORK = {"image": nifti(shape=(1, 1, 2048)), "text": b" & ".join([SECRET.encode()] * 64)}  # 2048 slices
WRONG = {f"image: {name}": {"image": image} for name, image in WRONG_IMAGES.items()}
WRONG |= {f"text: {name}": {"text": text} for name, text in WRONG_TEXTS.items()}
WRONG |= {f"option: {name}": options for name, options in WRONG_OPTIONS.items()}
WRONG |= {f"tensor: {name}": changed for name, changed in WRONG_TENSORS.items()}
WRONG["option: none, but much work in a small file"] = MUCH_WORK

REQUEST = {"image": nifti(), "text": SECRET.encode()}  # what is changed is wrong, the rest is not
