"""Labels of slices -> label map as the image was stored, NIfTI file and report."""

import base64
import gzip
import io
import json

import numpy as np
from nibabel.nifti1 import Nifti1Image
from nibabel.nifti2 import Nifti2Image
from numpy.typing import NDArray

from medimageparse_serving.volume.geometry import Geometry
from medimageparse_serving.volume.report import Segmented, build_report, describe_prompts

GZIP_LEVEL = 1  # label maps shrink a hundredfold at any level; this one is the fastest


def encode_answer(
    label_slices: NDArray[np.uint8],
    geometry: Geometry,
    prompts: list[str],
    truncated: NDArray[np.bool_],
    segmented: Segmented,
    output: str,
) -> dict[str, object]:
    """Labels [D,H,W] -> `report`, and of `label_map` [x,y,z] and `nifti_file` the output that is named, or "all"."""
    label_map = restore_labels(label_slices, geometry)
    described = describe_prompts(label_slices, segmented, geometry, prompts, truncated)
    answer: dict[str, object] = {"report": build_report(described, geometry, segmented)}
    if output in ("all", "label_map"):
        answer["label_map"] = np.ascontiguousarray(label_map)
    if output in ("all", "nifti_file"):
        answer["nifti_file"] = encode_nifti_file(label_map, geometry)
    return answer


def restore_labels(label_slices: NDArray[np.uint8], geometry: Geometry) -> NDArray[np.uint8]:
    """Labels [D,H,W] -> [x,y,z] as stored; a view."""
    flipped = [axis for axis in range(3) if geometry.flipped[axis]]
    return np.flip(label_slices, flipped).transpose(np.argsort(geometry.axes))


def encode_nifti(label_map: NDArray[np.uint8], geometry: Geometry) -> bytes:
    """A .nii.gz with the image's geometry and nothing else of its header."""
    sent = geometry.header
    kind = Nifti2Image if sent.nifti_version == 2 else Nifti1Image
    image = kind(label_map, None, dtype=np.uint8)  # type: ignore[no-untyped-call]
    for field, value in sent.fields.items():
        image.header[field] = value
    image.header["pixdim"][:4] = sent.pixdim
    image.header["xyzt_units"] = sent.spatial_units
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=GZIP_LEVEL, mtime=0) as file:
        image.to_stream(file)  # slice by slice: the whole is never unpacked in memory
    return packed.getvalue()


def encode_nifti_file(label_map: NDArray[np.uint8], geometry: Geometry) -> bytes:
    """The JSON text that MedImageParse clients read: `json.loads(nifti_file)["data"]` is base64."""
    return json.dumps({"data": base64.b64encode(encode_nifti(label_map, geometry)).decode()}).encode()
