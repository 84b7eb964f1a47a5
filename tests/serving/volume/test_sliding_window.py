"""Windows, resize and the way back, against the original's answers and against plain statements of the rules."""

import json

import numpy as np
import pytest
import torch
from helpers.places import DATA, SHARED
from medimageparse.networks_3d import ImageEncoder
from medimageparse_contract.slice_axis import choose_slice_axis
from medimageparse_serving.volume.sliding_window import (
    bicubic_matrix,
    by_digits,
    from_square,
    integer_matrix,
    iterate_windows,
    margins,
    plan_windows,
    to_square,
    with_halo,
)

GOLDEN = SHARED / "golden"
COMMITTED = DATA / "geometry_cases.npz"  # four small cases of v2_post.npz


def geometry_cases(path):
    """(case name, its description, its arrays) for every case of a file in the format of v2_post.npz."""
    if not path.exists():
        return []
    arrays = np.load(path)
    cases = json.loads(str(arrays["meta"]))["geom"]
    names = ("vol", "int", "labels_square", "labels_out")
    return [(case, {name: arrays[f"geom/{case['name']}/{name}"] for name in names}) for case in cases]


def check_geometry(case, arrays):
    axis = choose_slice_axis(list(arrays["vol"].shape), "auto")
    volume = np.moveaxis(arrays["vol"], axis, 0)
    volume = volume if volume.dtype == np.uint8 else volume.astype(np.float32)
    squares = np.concatenate([window[1:-1] for _, window in iterate_windows(volume, 2, case["size"])])
    labels = np.moveaxis(from_square(arrays["labels_square"], *volume.shape[1:]), 0, axis)
    assert axis == case["axis"]
    assert np.array_equal(labels, arrays["labels_out"])
    if volume.dtype == np.uint8:
        assert np.array_equal(squares, arrays["int"])
    else:  # a rounding before the truncation may cost one grey level
        assert np.abs(squares - arrays["int"]).max() <= 1
        assert np.mean(squares != arrays["int"]) < 1e-4


@pytest.mark.parametrize(("case", "arrays"), geometry_cases(COMMITTED), ids=lambda value: value.get("name", ""))
def test_the_originals_answers(case, arrays):
    check_geometry(case, arrays)


def test_all_of_the_originals_answers():
    cases = geometry_cases(GOLDEN / "v2_post.npz")
    if not cases:
        pytest.skip("the golden files are not on this machine")
    for case, arrays in cases:
        check_geometry(case, arrays)


def test_the_originals_network_input():
    path = GOLDEN / "v2_tiny.npz"
    if not path.exists():
        pytest.skip("the golden files are not on this machine")
    with np.load(path) as golden:
        size = json.loads(str(golden["config"]))["size"]
        windows = iterate_windows(golden["raw_volume"], 2, size)
        squares = np.concatenate([window[1:-1] for _, window in windows])
        assert np.array_equal(squares, golden["processed_int"])


def test_windows_cover_every_slice_once():
    for n_slices in range(1, 12):
        for window_size in range(1, 6):
            windows = plan_windows(n_slices, window_size)
            assert [d for window in windows for d in window] == list(range(n_slices))
            assert {len(window) for window in windows[:-1]} <= {window_size}


@pytest.mark.parametrize(
    ("window", "n_slices", "expected"),
    [
        (range(0, 1), 1, [0, 0, 0]),
        (range(0, 2), 2, [1, 0, 1, 0]),
        (range(0, 2), 5, [1, 0, 1, 2]),
        (range(2, 4), 5, [1, 2, 3, 4]),
        (range(4, 5), 5, [3, 4, 3]),
    ],
)
def test_neighbours_are_reflected_at_the_ends(window, n_slices, expected):
    assert with_halo(window, n_slices) == expected


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_the_window_size_changes_nothing_of_a_slice(dtype):
    volume = np.random.default_rng(0).integers(0, 256, (7, 20, 33)).astype(dtype)
    alone = [window for _, window in iterate_windows(volume, 1, 32)]
    for slices, window in iterate_windows(volume, 3, 32):
        for position, d in enumerate(slices):
            assert np.array_equal(window[position : position + 3], alone[d])


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("shape", [(20, 33), (33, 20), (41, 40), (1, 9)])
def test_padding_that_is_never_made_equals_padding(dtype, shape):
    image = np.random.default_rng(1).integers(0, 256, shape).astype(dtype)
    top, left = margins(shape)
    padded = np.zeros((max(shape), max(shape)), dtype)
    padded[top : top + shape[0], left : left + shape[1]] = image
    assert np.abs(to_square(image, 24) - to_square(padded, 24)).max() <= (0 if dtype == np.uint8 else 1)


@pytest.mark.parametrize("largest", [1, 255, 300, 70_000, 3 * 2**24])
def test_whole_numbers_come_back_from_their_digits(largest):
    window = np.trunc(np.random.default_rng(2).uniform(-largest, largest, (3, 5, 5))).astype(np.float32)
    digits = by_digits(window)
    assert digits["window"].dtype == np.uint8
    read = ImageEncoder.from_digits(*(torch.from_numpy(array) for array in digits.values()))
    assert np.array_equal(read, window)


def test_grey_values_are_one_digit_and_no_copy():
    volume = np.arange(7 * 16, dtype=np.uint8).reshape(7, 4, 4)
    for slices, window in iterate_windows(volume, 2, 4):
        digits = by_digits(window)
        assert np.array_equal(digits["window"][0, 1:-1], volume[slices.start : slices.stop])
        assert digits["digit_values"].tolist() == [1]
        assert np.shares_memory(digits["window"], volume) == (slices.start > 0 and slices.stop < 7)


def test_a_slice_of_the_networks_size_stays_and_fractions_are_cut_off():
    image = np.array([[1.9, -1.9], [200.5, 255.0]], np.float32)
    assert np.array_equal(to_square(image, 2), [[1, -1], [200, 255]])
    assert to_square(image, 2).dtype == np.float32


def test_the_weights_of_a_pixel_add_up_to_one():
    for n_in, n_out in [(7, 32), (100, 32), (32, 33), (1, 8)]:
        assert np.allclose(bicubic_matrix(n_in, n_out).sum(1), 1)


def test_integer_sums_stay_exact_in_float32():
    for n_in, n_out in [(300, 512), (512, 513), (2000, 512), (511, 512)]:
        weights, bits = integer_matrix(n_in, n_out)
        assert bits <= 15
        assert np.abs(weights).sum(1).max() * 255 + 2 ** (bits - 1) < 2**24


def test_labels_return_to_the_slice():
    labels = np.arange(16, dtype=np.uint8).reshape(1, 4, 4)
    assert np.array_equal(from_square(labels, 4, 2), labels[:, :, 1:3])
    assert np.array_equal(from_square(labels, 8, 8), labels.repeat(2, 1).repeat(2, 2))
