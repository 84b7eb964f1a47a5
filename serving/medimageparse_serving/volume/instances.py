"""Labels and edges of a volume -> its instances, each with a number of its own (spec section 6, instances)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medimageparse_serving.refused import Refused
from medimageparse_serving.volume.merging import merge
from medimageparse_serving.volume.probabilities import exists, square_probabilities
from medimageparse_serving.volume.sliding_window import from_square

MOST = np.iinfo(np.uint16).max
TOO_MANY = (
    f"the volume has more than {MOST} instances, which is noise rather than things; "
    "ask for fewer prompts, or crop the image"
)
# Of the six neighbours of a voxel, as (axis, step), which gives it its number: the last that has one. This is the order
# in which scipy's distance transform, and so the original's expand_labels, settles ties.
NEIGHBOURS = ((2, 1), (1, 1), (0, 1), (0, -1), (1, -1), (2, -1))


class Edges:
    """The edges of the prompts, merged as masks are, filled window by window.

    edges: bool [D,H,W], filled on slices with labels and nowhere else
    """

    outputs = ("edge_logits",)

    def __init__(self, shape: tuple[int, ...], image_size: int) -> None:
        self.edges, self.image_size = np.zeros(shape, np.bool_), image_size

    def read(self, slices: range, found: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Adds a window: edge_logits [S,P,s,s], scores [S,P] and label_slices [S,size,size]."""
        gates = exists(found["scores"])
        for s in np.flatnonzero(found["label_slices"].any((1, 2))):
            probabilities = square_probabilities(found["edge_logits"][s], gates[s], self.image_size)
            labels, _ = merge(probabilities, found["scores"][s], gates[s])
            self.edges[slices[s]] = from_square(labels[None], *self.edges.shape[1:])[0] > 0
        return found


def find_instances(
    labels: NDArray[np.uint8], edges: NDArray[np.bool_], instances: NDArray[np.uint16], most: int = MOST
) -> NDArray[np.uint8]:
    """Fills `instances` [D,H,W], which is 0, with the numbers 1..n, and gives their labels [n]; Refused over `most`.

    An instance is what hangs together by faces in the interior of one label, where there is no edge, and the voxels of
    any label beside it. What lies farther from an interior is in no instance: thick edges lose area.
    """
    n, owners = 0, [np.empty(0, np.uint8)]
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        components, n_new = ndimage.label((labels[box] == label) & ~edges[box])
        if n + n_new > most:
            raise Refused(TOO_MANY)
        inside = components > 0
        instances[box][inside] = components[inside] + n
        owners.append(np.full(n_new, label, np.uint8))
        n += n_new
    order = number_in_order(instances, n)
    grow(instances, labels)
    return np.concatenate(owners)[order]


def number_in_order(instances: NDArray[np.uint16], n: int) -> NDArray[np.int64]:
    """Numbers them anew, in the order of their first voxels; gives that order, [n] from 0."""
    numbers, n_seen, order = np.zeros(n + 1, np.uint16), 0, np.zeros(n, np.int64)
    for plane in instances:
        unseen = plane[(plane > 0) & (numbers[plane] == 0)]
        fresh, first = np.unique(unseen, return_index=True)
        fresh = fresh[np.argsort(first)]
        order[n_seen : n_seen + len(fresh)] = fresh.astype(np.int64) - 1
        n_seen += len(fresh)
        numbers[fresh] = np.arange(n_seen + 1 - len(fresh), n_seen + 1)
        plane[...] = numbers[plane]
    return order


def grow(instances: NDArray[np.uint16], labels: NDArray[np.uint8]) -> None:
    """Gives each labelled voxel beside an instance its number; none reaches farther than one voxel."""
    before = np.zeros_like(instances[0])
    for d, (plane, label_plane) in enumerate(zip(instances, labels, strict=True)):
        after = instances[d + 1] if d + 1 < len(instances) else np.zeros_like(plane)
        own = plane.copy()
        grown = np.zeros_like(plane)
        for axis, step in NEIGHBOURS:
            beside = (after if step > 0 else before) if axis == 0 else moved(own, axis - 1, step)
            np.copyto(grown, beside, where=beside > 0)
        np.copyto(plane, grown, where=(own == 0) & (label_plane > 0))
        before = own


def moved(plane: NDArray[np.uint16], axis: int, step: int) -> NDArray[np.uint16]:
    """What stands one step further along an axis; 0 beyond the border."""
    result = np.zeros_like(plane)
    here, there = (slice(None, -1), slice(1, None)) if step > 0 else (slice(1, None), slice(None, -1))
    index = (slice(None),) * axis
    result[(*index, here)] = plane[(*index, there)]
    return result
