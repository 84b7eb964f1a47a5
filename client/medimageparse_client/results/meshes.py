"""The surface of a mask as triangles: marching cubes, and the files that hold them. Needs the extra `mesh`."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from medimageparse_client.errors import InvalidRequest
from medimageparse_client.formats.geometry import LPS_TO_RAS

VOLUME_TOLERANCE = 0.02  # of the voxels' volume, within which a surface stays midway between voxels
MOST_STEPS = 16

Points = npt.NDArray[np.float64]  # [n,3]
Faces = npt.NDArray[np.int32]  # [m,3]


def surface(
    mask: npt.NDArray[np.bool_], affine: npt.NDArray[np.float64], smoothing_mm: float = 0.0
) -> tuple[Points, Faces]:
    """The corners in mm (LPS, as DICOM and 3D Slicer have them) and the triangles, whose fronts look outwards.

    The surface runs midway between voxels. That cuts their corners, and smoothing takes more, so around small and thin
    things it moves outwards, until it holds the volume of the voxels.

    mask: [x,y,z]
    affine: [4,4], voxels to mm (RAS+)
    smoothing_mm: sigma of the Gaussian that the mask is smoothed by before; 0 leaves the steps of the voxels
    """
    try:
        from scipy.ndimage import gaussian_filter
        from skimage.measure import marching_cubes
    except ModuleNotFoundError as error:
        raise InvalidRequest(
            f"meshes need {error.name}, which is not installed: pip install 'medimageparse-client[mesh]'"
        ) from error
    lps = LPS_TO_RAS @ affine
    sigma = smoothing_mm / np.linalg.norm(lps[:3, :3], axis=0)
    margin = 1 + int(np.ceil(4 * sigma.max()))
    filled = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    if not all(where.size for where in filled):
        return np.empty((0, 3)), np.empty((0, 3), np.int32)
    part = mask[tuple(slice(where[0], where[-1] + 1) for where in filled)]
    inside = np.pad(part.astype(np.float32), margin)
    if smoothing_mm:
        inside = gaussian_filter(inside, sigma)
    lowest, highest = 0.0, float(inside.max())
    level = min(0.5, highest / 2)
    for _ in range(MOST_STEPS):
        corners, faces, _, _ = marching_cubes(inside, level, allow_degenerate=False)  # type: ignore[no-untyped-call]
        excess = volume_within(corners, faces) / part.sum() - 1
        if abs(excess) < VOLUME_TOLERANCE:
            break
        lowest, highest = (level, highest) if excess > 0 else (lowest, level)
        level = (lowest + highest) / 2
    places = corners + [where[0] - margin for where in filled]
    if np.linalg.det(lps[:3, :3]) > 0:  # as marching_cubes has them they look inwards
        faces = faces[:, ::-1]
    return places @ lps[:3, :3].T + lps[:3, 3], faces.astype(np.int32)


def volume_within(corners: npt.NDArray[np.floating[Any]], faces: npt.NDArray[np.integer[Any]]) -> float:
    first, second, third = np.moveaxis(corners[faces].astype(np.float64), 1, 0)
    return abs(float(np.einsum("ij,ij->", first, np.cross(second, third)))) / 6


def encode_stl(corners: Points, faces: Faces) -> bytes:
    """Binary STL; its normals are left to the reader, who knows them by the corners' order."""
    triangles = np.zeros(len(faces), [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attributes", "<u2")])
    triangles["corners"] = corners[faces]
    return b"".join([b"MedImageParse, mm, LPS".ljust(80), len(faces).to_bytes(4, "little"), triangles.tobytes()])


def encode_ply(corners: Points, faces: Faces) -> bytes:
    """Binary PLY."""
    head = (
        "ply\nformat binary_little_endian 1.0\ncomment MedImageParse, mm, LPS\n"
        f"element vertex {len(corners)}\nproperty float x\nproperty float y\nproperty float z\n"
        f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    rows = np.zeros(len(faces), [("n", "u1"), ("corners", "<i4", 3)])
    rows["n"], rows["corners"] = 3, faces
    return head.encode() + corners.astype("<f4").tobytes() + rows.tobytes()


ENCODERS: dict[str, Callable[[Points, Faces], bytes]] = {".stl": encode_stl, ".ply": encode_ply}
