"""Which axis is cut into slices."""

import pytest
from medimageparse_contract.slice_axis import choose_slice_axis


@pytest.mark.parametrize(
    ("shape", "axis"), [([30, 20, 40], 1), ([5, 60, 41], 0), ([48, 6, 37], 1), ([48, 41, 6], 2), ([70, 40, 36], 0)]
)
def test_the_published_slice_axis_rule(shape, axis):
    assert choose_slice_axis(shape, "auto") == axis
