"""What the report says of each instance."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medimageparse_serving.volume.geometry import Geometry
from medimageparse_serving.volume.report import box_in_mm


@dataclass(frozen=True)
class InstanceReport:
    """id: its number in the map; centre_mm: of gravity, x, y, z; boxes as those of a prompt"""

    id: int
    voxels: int
    volume_ml: float
    centre_mm: list[float]
    box_voxels: list[list[int]]
    box_mm: list[list[float]]


def describe_instances(
    instances: NDArray[np.uint16], owners: NDArray[np.uint8], n_prompts: int, geometry: Geometry
) -> list[list[InstanceReport]]:
    """Of a map [x,y,z] with the numbers 1..n and the labels [n] they belong to: a list for each prompt."""
    counts, sums, low, high = measure(instances, len(owners))
    affine = np.array(geometry.image.affine)
    centres = sums / np.maximum(counts, 1)[:, None] @ affine[:3, :3].T + affine[:3, 3]
    described: list[list[InstanceReport]] = [[] for _ in range(n_prompts)]
    for number, owner in enumerate(owners, start=1):
        box = [low[number].tolist(), high[number].tolist()]
        described[owner - 1].append(
            InstanceReport(
                id=number,
                voxels=int(counts[number]),
                volume_ml=round(int(counts[number]) * geometry.voxel_ml, 6),
                centre_mm=[round(float(value), 3) for value in centres[number]],
                box_voxels=box,
                box_mm=box_in_mm(box, affine),
            )
        )
    return described


def measure(instances: NDArray[np.uint16], n: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Voxels [n+1], sums of their indices [n+1,3], smallest and largest indices [n+1,3] of each number."""
    counts, sums = np.zeros(n + 1, np.int64), np.zeros((n + 1, 3))
    low, high = np.full((n + 1, 3), max(instances.shape)), np.full((n + 1, 3), -1)
    for z in np.flatnonzero(instances.any((0, 1))):
        x, y = np.nonzero(instances[:, :, z])
        numbers = instances[x, y, z]
        found = np.bincount(numbers, minlength=n + 1)
        counts += found
        sums[:, 2] += found * z
        present = found > 0
        low[present, 2] = np.minimum(low[present, 2], z)
        high[present, 2] = z
        for axis, index in enumerate((x, y)):
            sums[:, axis] += np.bincount(numbers, index, n + 1)
            np.minimum.at(low[:, axis], numbers, index)
            np.maximum.at(high[:, axis], numbers, index)
    return counts, sums, low, high
