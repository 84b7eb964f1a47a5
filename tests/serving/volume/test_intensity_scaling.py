"""Integers of 8 and 16 bits are looked up: they become the same grey as when each voxel is computed."""

import numpy as np
import pytest
from medimageparse_serving.volume.intensity_scaling import Values, look_up, show


def volume(dtype, seed=0):
    """Voxels over all that the type holds, its ends among them."""
    ends = np.iinfo(dtype)
    voxels = np.random.default_rng(seed).integers(ends.min, ends.max, (4, 23, 17), endpoint=True)
    voxels[0, 0, :2] = ends.min, ends.max
    return voxels.astype(dtype)


@pytest.mark.parametrize("dtype", ["u1", "i1", "<i2", ">i2", "<u2", ">u2"])
@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (0.5, -3.0), (-2.0, 1024.0), (1e25, 0.0)])
@pytest.mark.parametrize(("bounds", "padding"), [([-160.0, 240.0], []), ([3.5, 97.25], [-3.0, 0.0]), (None, [])])
def test_what_is_looked_up_is_what_would_be_computed(dtype, slope, intercept, bounds, padding):
    stored = volume(dtype)
    for voxels in (stored, stored[::-1], stored.transpose(2, 0, 1)[:, ::-1], stored[:, ::2]):
        values = Values(voxels, slope, intercept)
        found, expected = (np.empty(voxels.shape, np.float32 if bounds is None else np.uint8) for _ in range(2))
        look_up(values, bounds, padding, found)
        show(values, bounds, padding, expected)
        assert np.array_equal(found, expected)
