"""Which axis of a volume is cut into slices: the server cuts by this rule, and the client tells how many there are."""

from collections.abc import Sequence


def choose_slice_axis(shape: Sequence[int], slice_axis: str) -> int:
    """The axis, for a shape (z, y, x).

    slice_axis: one of options.SLICE_AXES; "auto" is the published rule: the first if the other two are alike, else the
        shortest
    """
    if slice_axis != "auto":
        return int(slice_axis)
    _, height, width = shape
    return 0 if 2 * abs(height - width) / (height + width) < 0.5 else list(shape).index(min(shape))
