"""The square that is sent and the square that the networks see."""

import numpy as np
import pytest
from medimageparse_serving.image.pixels import to_pixels
from PIL import Image


def square_of(side):
    return np.random.default_rng(side).integers(0, 256, (side, side, 3), dtype=np.uint8)


def test_a_square_of_the_networks_size_passes_to_the_bit():
    square = square_of(64)
    assert np.array_equal(to_pixels(square, 64)[0], square)


@pytest.mark.parametrize("side", [1, 2, 37, 63, 65, 128, 211])
def test_any_other_square_is_resized_as_pillow_does(side):
    square = square_of(side)
    pixels = to_pixels(square, 64)
    assert (pixels.shape, pixels.dtype) == ((1, 64, 64, 3), np.uint8)
    assert np.array_equal(pixels[0], np.asarray(Image.fromarray(square).resize((64, 64), Image.Resampling.BICUBIC)))


def test_shrinking_averages_and_keeps_black_and_white():
    fine = np.zeros((128, 128, 3), np.uint8)
    fine[::2, 1::2] = fine[1::2, ::2] = 255
    assert np.ptp(to_pixels(fine, 32)[0, 4:-4, 4:-4]) <= 2  # a resize without area weights would show a pattern
    half = np.zeros((128, 128, 3), np.uint8)
    half[:, 64:] = 255
    assert np.unique(to_pixels(half, 64)[0, :, [0, 30, 33, 63]]).tolist() == [0, 255]


@pytest.mark.parametrize("side", [50, 200])
def test_rows_stay_rows(side):
    square = np.zeros((side, side, 3), np.uint8)
    square[: side // 5, : side // 2, 0] = 255
    red = to_pixels(square, 100)[0, :, :, 0] > 127
    assert (red.any(1).sum(), red.any(0).sum()) == (20, 50)
