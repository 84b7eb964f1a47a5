"""The slices of a series -> their order and the affine of the volume; what is no regular volume is refused by name."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medimageparse_client.errors import InvalidVolume
from medimageparse_client.formats.dicom_series.slices import Slice

SAME_MM = 0.01  # slices closer than this lie at one place
UNEVEN = 0.01  # part of a step, or 0.01 mm: positions are written with few digits
TILT_DEGREES = 0.5  # between the line of the slices and their normal
SAME_DIRECTION = 1e-3  # of each number of a direction
MAX_SHOWN = 5


@dataclass(frozen=True)
class Placed:
    """
    slices: along their normal
    affine: float64 [4,4], voxels [x,y,z] to mm (LPS)
    is_tilted: whether the third axis is not the normal, so that the volume is sheared
    """

    slices: list[Slice]
    affine: npt.NDArray[np.float64]
    is_tilted: bool


def arrange(slices: list[Slice], *, allow_gaps: bool, allow_tilt: bool, notes: list[str]) -> Placed:
    """Raises InvalidVolume for what is no regular volume; the faults that are allowed are noted."""
    if len(slices) < 2:
        raise InvalidVolume("there is one slice, and a volume takes two or more; send it as an image (segment-image)")
    normal = slices[0].normal
    slices = sorted(slices, key=lambda one: float(one.position @ normal))
    positions = np.array([one.position for one in slices])
    heights = positions @ normal
    steps = np.diff(heights)
    check_doubled(heights, steps)
    check_steps(heights, steps, allow_gaps, notes)
    step = (positions[-1] - positions[0]) / (len(slices) - 1)
    is_tilted = check_line(positions, heights, step, normal, allow_tilt, notes)
    affine = np.eye(4)
    affine[:3, :2] = (slices[0].directions * slices[0].spacing[:, None]).T
    affine[:3, 2], affine[:3, 3] = step, positions[0]
    return Placed(slices, affine, is_tilted)


def check_equal(slices: list[Slice]) -> None:
    """Refuses slices that differ where those of one volume are equal."""
    kinds: list[tuple[str, Callable[[Slice], Any], float]] = [
        ("orientations", lambda one: one.directions, SAME_DIRECTION),
        ("sizes in pixels", lambda one: one.shape, 0),
        ("pixel spacings", lambda one: one.spacing, SAME_DIRECTION),
    ]
    for what, value_of, tolerance in kinds:
        values = np.array([np.ravel(value_of(one)) for one in slices], np.float64)
        differ = (abs(values - np.median(values, axis=0)) > tolerance).any(axis=1)
        if differ.all():  # of two halves the median lies between
            differ = (abs(values - values[0]) > tolerance).any(axis=1)
        if differ.any():
            raise InvalidVolume(
                f"the slices have different {what}: {differ.sum()} of {len(slices)} differ from the others. They are "
                "not one volume; export each as a series of its own, or take the odd ones out"
            )


def check_doubled(heights: npt.NDArray[np.float64], steps: npt.NDArray[np.float64]) -> None:
    doubled = heights[1:][steps < SAME_MM]
    if doubled.size:
        raise InvalidVolume(
            f"doubled slices: {doubled.size}, where another one lies at the same place, at {places(doubled)} along the "
            "normal; take them out"
        )


def check_steps(
    heights: npt.NDArray[np.float64], steps: npt.NDArray[np.float64], allow_gaps: bool, notes: list[str]
) -> None:
    """Refuses unequal distances, and calls a gap of whole steps by what is missing."""
    usual = float(np.median(steps))
    uneven = abs(steps - usual) > max(SAME_MM, UNEVEN * usual)
    if not uneven.any():
        return
    whole = np.rint(steps / usual)
    is_missing = bool((whole[uneven] >= 2).all() and (abs(steps / usual - whole) < 0.1).all())
    if is_missing:
        n_missing = int((whole[uneven] - 1).sum())
        fault = f"missing slices: {n_missing}, after {places(heights[:-1][uneven])} along the normal"
    else:
        fault = f"the slices lie {steps.min():.2f} to {steps.max():.2f} mm apart, unevenly"
    if not allow_gaps:
        raise InvalidVolume(f"{fault}; give the whole series, or take it as it is with allow_gaps (--allow-gaps)")
    notes.append(
        f"{fault}; nothing was interpolated. The affine has the mean distance of {steps.mean():.3f} mm, so that places "
        "along the normal and millilitres are only about right"
    )


def check_line(
    positions: npt.NDArray[np.float64],
    heights: npt.NDArray[np.float64],
    step: npt.NDArray[np.float64],
    normal: npt.NDArray[np.float64],
    allow_tilt: bool,
    notes: list[str],
) -> bool:
    """Whether the slices are tilted; refuses that unless allowed, and slices that do not lie on a line."""
    along = (heights - heights[0])[:, None] / (step @ normal) * step
    off = np.linalg.norm(positions - positions[0] - along, axis=1).max()
    if off > max(0.1, UNEVEN * np.linalg.norm(step)):
        raise InvalidVolume(
            f"the slices are shifted against each other by up to {off:.1f} mm; they are not one volume, give the "
            "original series"
        )
    degrees = float(np.degrees(np.arccos(np.clip(step @ normal / np.linalg.norm(step), -1, 1))))
    if degrees < TILT_DEGREES:
        return False
    if not allow_tilt:
        raise InvalidVolume(
            f"the gantry was tilted by {degrees:.1f} degrees, so that the slices form no box; resample them with "
            "resample_tilt (--resample-tilt)"
        )
    notes.append(f"the gantry was tilted by {degrees:.1f} degrees; the slices were resampled, linearly, to a box")
    return True


def places(heights: npt.NDArray[np.float64]) -> str:
    shown = ", ".join(f"{height:.2f}" for height in heights[:MAX_SHOWN])
    return f"{shown} mm" if len(heights) <= MAX_SHOWN else f"{shown}, ... mm"
