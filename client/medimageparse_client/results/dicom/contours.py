"""The mask of a slice -> closed outlines, a hole being joined to its outline by a bridge without width (a keyhole).

Keyholes are the one form of a hole that every reader of RTSTRUCT takes rightly: others fill it or drop the structure.
"""

import contourpy
import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

Points = npt.NDArray[np.float64]  # [n,2], column and row of pixels, whose centres are whole numbers


def outlines(mask: npt.NDArray[np.bool_]) -> list[Points]:
    """Of a mask [rows,columns] one outline for each part; exactly the centres of its pixels lie within."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    if not rows.size:
        return []
    top, left = int(rows[0]), int(columns[0])
    part = np.pad(mask[top : rows[-1] + 1, left : columns[-1] + 1].astype(np.float64), 1)
    generator = contourpy.contour_generator(z=part, fill_type=contourpy.FillType.OuterOffset)
    points, offsets = generator.filled(0.5, 2.0)  # type: ignore[misc]  # of this fill type there are two
    found = []
    for of_part, ends in zip(points, offsets, strict=True):
        # the last point is the first again
        outer, *holes = (of_part[start : end - 1] for start, end in zip(ends[:-1], ends[1:], strict=True))
        found.append(with_holes(outer, holes) + (left - 1, top - 1))
    return found


def with_holes(outer: Points, holes: list[Points]) -> Points:
    """One outline that goes to each hole where it is nearest, around it, and back the same way."""
    if not holes:
        return np.asarray(outer)
    tree = cKDTree(outer)
    ways: dict[int, list[Points]] = {}  # from which point of the outline
    for hole in holes:
        distances, nearest = tree.query(hole)
        start = int(np.argmin(distances))
        around = np.roll(hole, -start, axis=0)
        at = int(nearest[start])
        ways.setdefault(at, []).append(np.vstack([around, around[:1], outer[at : at + 1]]))
    pieces = []
    for n, point in enumerate(outer):
        pieces += [point[None], *ways.get(n, [])]
    return np.vstack(pieces)
