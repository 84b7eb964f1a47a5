"""Labels of slices -> label map as the image was stored, NIfTI file and report."""

import io
from collections.abc import Collection
from typing import Any

import numpy as np
import pybase64
from isal import isal_zlib
from nibabel.nifti1 import Nifti1Image
from nibabel.nifti2 import Nifti2Image
from numpy.typing import NDArray

from medimageparse_serving.volume.geometry import Geometry
from medimageparse_serving.volume.report import Segmented, build_report, describe_prompts

GZIP_LEVEL = 1  # label maps shrink a hundredfold at any level; this one is fast


def encode_answer(
    label_slices: NDArray[np.uint8],
    geometry: Geometry,
    prompts: list[str],
    truncated: NDArray[np.bool_],
    segmented: Segmented,
    wanted: Collection[str],
) -> dict[str, object]:
    """Labels [D,H,W] -> those of `report`, `label_map` [x,y,z] and `nifti_file` that are wanted."""
    label_map = restore_labels(label_slices, geometry)
    answer: dict[str, object] = {}
    if "report" in wanted:
        described = describe_prompts(label_slices, segmented, geometry, prompts, truncated)
        answer["report"] = build_report(described, geometry, segmented)
    if "label_map" in wanted:
        answer["label_map"] = np.ascontiguousarray(label_map)
    if "nifti_file" in wanted:
        answer["nifti_file"] = encode_nifti_file(label_map, geometry)
    return answer


def restore_labels(label_slices: NDArray[np.uint8], geometry: Geometry) -> NDArray[np.uint8]:
    """Labels [D,H,W] -> [x,y,z] as stored; a view."""
    flipped = [axis for axis in range(3) if geometry.flipped[axis]]
    return np.flip(label_slices, flipped).transpose(np.argsort(geometry.axes))


def encode_nifti(voxels: NDArray[Any], geometry: Geometry) -> bytes:
    """A .nii.gz of voxels [x,y,z] or [x,y,z,P], with the image's geometry and nothing else of its header."""
    sent = geometry.header
    kind = Nifti2Image if sent.nifti_version == 2 else Nifti1Image
    image = kind(voxels, None, dtype=voxels.dtype)  # type: ignore[no-untyped-call]
    for field, value in sent.fields.items():
        image.header[field] = value
    image.header["pixdim"][:4] = sent.pixdim
    image.header["xyzt_units"] = sent.spatial_units
    image.update_header()
    image.header.set_slope_inter(1, 0)
    start = io.BytesIO()
    image.header.write_to(start)
    packer = isal_zlib.compressobj(GZIP_LEVEL, wbits=31)
    packed = [packer.compress(start.getvalue())]
    # slice by slice: the whole is never unpacked in memory
    packed += [packer.compress(np.ascontiguousarray(plane)) for plane in voxels.T]
    return b"".join([*packed, packer.flush()])


def encode_nifti_file(voxels: NDArray[Any], geometry: Geometry) -> bytes:
    """The JSON text that MedImageParse clients read: `json.loads(nifti_file)["data"]` is base64."""
    return b'{"data": "%s"}' % pybase64.b64encode(encode_nifti(voxels, geometry))
