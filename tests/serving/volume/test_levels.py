"""Levels answer as numpy does on the values themselves, to the bit."""

import numpy as np
import pytest
from medimageparse_serving.volume.levels import MOST, Levels

RANDOM = np.random.default_rng(5)
VALUES = {
    "one": np.float32([7]),
    "two": np.float32([-3, 4]),
    "CT": RANDOM.integers(-1024, 3000, 5001).astype(np.float32),
    "few levels": RANDOM.integers(0, 4, 999).astype(np.float32),
    "fractions": RANDOM.normal(0, 300, 4000).astype(np.float32),
    "a wide range": np.trunc(RANDOM.uniform(0, 40 * MOST, 3000)).astype(np.float32),
    "large numbers": (RANDOM.normal(0, 1, 3000) * 1e29).astype(np.float32),
}


@pytest.mark.parametrize("name", VALUES)
def test_percentiles_are_numpys(name):
    values = VALUES[name]
    for shares in ((0.5, 99.5), (0, 100), (25, 50, 75), tuple(RANDOM.uniform(0, 100, 9))):
        assert Levels.of(values).percentiles(shares) == np.percentile(values, shares).tolist()


@pytest.mark.parametrize("name", VALUES)
def test_levels_and_counts_are_numpys(name):
    values = VALUES[name]
    levels, expected = Levels.of(values), np.unique(values, return_counts=True)
    assert (levels.values.dtype, levels.values.tolist()) == (np.float32, expected[0].tolist())
    assert levels.counts.tolist() == expected[1].tolist()
    assert (levels.size, levels.count(values[0])) == (values.size, np.count_nonzero(values == values[0]))
    assert levels.without([values[0]]).size == np.count_nonzero(values != values[0])


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint16])
def test_integers_in_pieces_are_counted_as_one(dtype):
    ends = np.iinfo(dtype)
    stored = RANDOM.integers(ends.min, ends.max, (3, 40, 41), endpoint=True).astype(dtype)
    stored[0, 0, :2] = ends.min, ends.max
    levels, expected = Levels.of_whole(stored, ends.min, ends.max), np.unique(stored, return_counts=True)
    assert levels.values.tolist() == expected[0].tolist()
    assert levels.counts.tolist() == expected[1].tolist()
