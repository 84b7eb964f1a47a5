"""Labels of slices -> label map as the image was stored, NIfTI file and report."""

import base64
import gzip
import io
import json
import platform
from itertools import product
from typing import Any

import nibabel
import numpy as np
from nibabel.nifti1 import Nifti1Image
from nibabel.nifti2 import Nifti2Image
from numpy.typing import NDArray

IMAGE_FIELDS = (
    *("shape", "dtype", "affine", "affine_source", "sides_known"),
    *("stored_orientation", "orientation", "slice_axis"),
)
# whether the file says the sides, and whether they are at least agreed on -> what box_mm means
BOX_NOTES = {
    (True, True): "smallest and largest x, y, z of the NIfTI affine (RAS+), outer faces of the voxels",
    (False, True): (
        "smallest and largest x, y, z of image.affine, outer faces of the voxels; the file does not say the sides, "
        "and the affine is the one that nibabel assumes then"
    ),
    (False, False): (
        "smallest and largest position along the stored axes, from the centre of the first voxel, outer faces of the "
        "voxels; the file does not say the sides"
    ),
}
GZIP_LEVEL = 1  # label maps shrink a hundredfold at any level; this one is the fastest


def restore_labels(label_slices: NDArray[np.uint8], geometry: dict[str, Any]) -> NDArray[np.uint8]:
    """Labels [D,H,W] -> [x,y,z] as stored; a view."""
    flipped = [axis for axis in range(3) if geometry["flipped"][axis]]
    return np.flip(label_slices, flipped).transpose(np.argsort(geometry["axes"]))


def encode_answer(
    label_slices: NDArray[np.uint8],
    geometry: dict[str, Any],
    prompts: list[str],
    truncated: NDArray[np.bool_],
    segment_report: dict[str, Any],
) -> dict[str, Any]:
    """Labels [D,H,W] -> `report`, and of `label_map` [x,y,z] and `nifti_file` those that geometry["outputs"] names."""
    label_map = restore_labels(label_slices, geometry)
    described = describe_prompts(label_slices, segment_report["highest_scores"], geometry, prompts, truncated)
    answer: dict[str, Any] = {"report": build_report(described, geometry, segment_report)}
    if "label_map" in geometry["outputs"]:
        answer["label_map"] = np.ascontiguousarray(label_map)
    if "nifti_file" in geometry["outputs"]:
        answer["nifti_file"] = encode_nifti_file(label_map, geometry)
    return answer


def encode_nifti(label_map: NDArray[np.uint8], geometry: dict[str, Any]) -> bytes:
    """A .nii.gz with the image's geometry and nothing else of its header."""
    kind = Nifti2Image if geometry["nifti_version"] == 2 else Nifti1Image
    image = kind(label_map, None, dtype=np.uint8)  # type: ignore[no-untyped-call]
    for field, value in geometry["fields"].items():
        image.header[field] = value
    image.header["pixdim"][:4] = geometry["pixdim"]
    image.header["xyzt_units"] = geometry["spatial_units"]
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=GZIP_LEVEL, mtime=0) as file:
        image.to_stream(file)  # slice by slice: the whole is never unpacked in memory
    return packed.getvalue()


def encode_nifti_file(label_map: NDArray[np.uint8], geometry: dict[str, Any]) -> bytes:
    """The JSON text that MedImageParse clients read: `json.loads(nifti_file)["data"]` is base64."""
    return json.dumps({"data": base64.b64encode(encode_nifti(label_map, geometry)).decode()}).encode()


def count_labels(label_slices: NDArray[np.uint8]) -> tuple[NDArray[np.int64], list[NDArray[np.bool_]]]:
    """Voxels of each of 256 labels, and for each axis [256,n]: does the label occur at this index."""
    occurs = [np.zeros((256, n), np.bool_) for n in label_slices.shape]
    counts = np.zeros((len(label_slices), 256), np.int64)
    for d, labels in enumerate(label_slices):
        counts[d] = np.bincount(labels.ravel(), minlength=256)
        occurs[0][:, d] = counts[d] > 0
        for label in np.flatnonzero(counts[d][1:]) + 1:
            mask = labels == label
            occurs[1][label] |= mask.any(1)
            occurs[2][label] |= mask.any(0)
    return counts.sum(0), occurs


def stored_box(occurs: list[NDArray[np.bool_]], label: int, geometry: dict[str, Any]) -> list[list[int]]:
    """First and last voxel of a label along the stored axes, both inclusive."""
    box = [[0, 0, 0], [0, 0, 0]]
    for occurs_along, axis, flipped in zip(occurs, geometry["axes"], geometry["flipped"], strict=True):
        indices = np.flatnonzero(occurs_along[label][::-1] if flipped else occurs_along[label])
        box[0][axis], box[1][axis] = int(indices[0]), int(indices[-1])
    return box


def box_in_mm(box: list[list[int]], affine: list[list[float]]) -> list[list[float]]:
    """Smallest and largest coordinates of the box's outer faces; a voxel reaches half a voxel around its centre."""
    low, high = np.array(box[0]) - 0.5, np.array(box[1]) + 0.5
    corners = np.array(list(product(*zip(low, high, strict=True)))) @ np.array(affine)[:3, :3].T
    corners += np.array(affine)[:3, 3]
    return [[round(float(value), 3) for value in bound] for bound in (corners.min(0), corners.max(0))]


def describe_prompts(
    label_slices: NDArray[np.uint8],
    highest_scores: list[float],
    geometry: dict[str, Any],
    prompts: list[str],
    truncated: NDArray[np.bool_],
) -> list[dict[str, Any]]:
    """What was found for each prompt; present means that at least one voxel carries its label."""
    counts, occurs = count_labels(label_slices)
    affine = geometry["affine"]
    voxel_ml = abs(float(np.linalg.det(np.array(affine)[:3, :3]))) / 1000
    described = []
    for label, prompt in enumerate(prompts, start=1):
        voxels = int(counts[label])
        box = stored_box(occurs, label, geometry) if voxels else None
        described.append(
            {
                "text": prompt,
                "label": label,
                "present": voxels > 0,
                "highest_score": round(highest_scores[label - 1], 6),
                "voxels": voxels,
                "volume_ml": round(voxels * voxel_ml, 6),
                "box_voxels": box,
                "box_mm": box_in_mm(box, affine) if box else None,
                "truncated": bool(truncated[label - 1]),
            }
        )
    return described


def build_report(
    described: list[dict[str, Any]],
    geometry: dict[str, Any],
    segment_report: dict[str, Any],
) -> dict[str, Any]:
    """The `report` output but for its milliseconds. The prompts' texts stand here only: who sent them gets them."""
    image = {name: geometry[name] for name in IMAGE_FIELDS}
    return {
        "prompts": described,
        "image": image | {"slice_axis_stored": geometry["axes"][0], "intensity": geometry["intensity"]},
        "warnings": geometry["warnings"],
        "networks": segment_report["networks"],
        "window_size": segment_report["window_size"],
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "nibabel": nibabel.__version__},
        "notes": {
            "box_voxels": "first and last voxel along the stored axes, inclusive, from 0",
            "box_mm": BOX_NOTES[geometry["sides_known"], geometry["stored_orientation"] is not None],
        },
    }
