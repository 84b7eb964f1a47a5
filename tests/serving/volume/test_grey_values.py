"""What `intensity=auto` makes of the kinds of volumes that there are, and when it says that it is not sure."""

from functools import cache

import numpy as np
import pytest
from helpers.grey_families import all_cases, phantom
from medimageparse_serving.volume.grey_values import FEW, FEW_LEVELS, NO_AIR, SHIFTED, find_padding
from medimageparse_serving.volume.intensity_scaling import Values, scale_intensity

CASES = all_cases()


@cache
def scaled(name):
    """Each case of a family with what is made of it."""
    return [(case, *scale_intensity(case.values, 1.0, 0.0, "auto")) for case in CASES[name]]


@pytest.mark.parametrize("name", CASES)
def test_each_kind_of_volume_is_scaled_as_it_must_be_or_there_is_a_warning(name):
    for case, volume, done, warnings in scaled(name):
        assert done.used in case.used
        if case.is_doubtful is not None:
            assert bool(warnings) == case.is_doubtful, warnings
        assert volume.shape == case.values.shape


@pytest.mark.parametrize("name", [name for name, cases in CASES.items() if not cases[0].is_doubtful])
def test_what_the_networks_see_of_an_image_uses_the_grey_range(name):
    for _, volume, *_ in scaled(name):
        shown = volume[volume > 0]
        assert np.percentile(shown, 99) >= 100
        assert np.count_nonzero((volume > 0) & (volume < 255)) > 0.005 * volume.size


@pytest.mark.parametrize("highest", np.geomspace(0.01, 150, 12))
def test_brightness_does_not_depend_on_the_unit_of_an_mr(highest):
    mr = phantom(1, "MR").clip(0)
    expected, *_ = scale_intensity(mr, 1.0, 0.0, "percentile")
    volume, done, warnings = scale_intensity((mr / mr.max() * highest).astype(np.float32), 1.0, 0.0, "auto")
    assert done.used == "percentile"
    assert np.abs(volume.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("n_voxels", [0, 1, 4, 20, 100])
@pytest.mark.parametrize("value", [-250, -1000, -4000])
def test_a_few_voxels_far_below_0_change_nothing(n_voxels, value):
    mr = np.rint(phantom(2, "MR").clip(0))
    expected, *_ = scale_intensity(mr, 1.0, 0.0, "auto")
    mr.ravel()[:n_voxels] = value
    volume, done, warnings = scale_intensity(mr, 1.0, 0.0, "auto")
    assert (done.used, warnings) == ("percentile", [])
    assert np.abs(volume.astype(int) - expected).max() <= 5  # they move the percentiles a little


@pytest.mark.parametrize("n_voxels", [1, 20])
def test_a_few_bright_voxels_make_no_picture_of_a_dark_volume(n_voxels):
    mr = phantom(2, "MR").clip(0)
    for dtype in (np.uint8, np.int16, np.float32):
        dark = (mr / mr.max() * 60).astype(dtype)
        dark.ravel()[:n_voxels] = 255
        assert scale_intensity(dark, 1.0, 0.0, "auto")[1].used == "percentile"


def test_values_are_read_with_slope_and_intercept():
    hu = np.rint(phantom(0, "CT")).astype(np.int16)
    stored = (hu + 1024).clip(0).astype(np.uint16)
    assert scale_intensity(stored, 1.0, -1024.0, "auto")[1].used == "ct-soft-tissue"
    assert scale_intensity(stored, 1.0, 0.0, "auto")[2] == [SHIFTED.format("+", -1024)]
    *_, twice = scale_intensity(stored, 1.0, -2048.0, "auto")
    assert twice == [SHIFTED.format("-", 1024)]
    assert scale_intensity(np.uint8([[[0, 100, 255]]]), 1 / 255, 0.0, "auto")[1].used == "percentile"


@pytest.mark.parametrize("value", [-1000, -32768, 65535, 32767])
def test_padding_of_an_mr_is_black_and_takes_nothing_from_the_rest(value):
    mr = np.rint(phantom(3, "MR").clip(0))
    expected, *_ = scale_intensity(mr[:, 9:], 1.0, 0.0, "auto")
    mr[:, :9] = value
    volume, done, warnings = scale_intensity(mr, 1.0, 0.0, "auto")
    assert (done.used, done.padding) == ("percentile", [value])
    assert not volume[:, :9].any()
    assert np.array_equal(volume[:, 9:], expected)
    assert bool(warnings) == (value > 0)  # white turned black is not what the file shows


def test_a_background_of_0_amid_the_values_is_black():
    # the demo's Dice of such MR is 0.34 with a grey background and 0.99 with a black one
    values = CASES["z-scored MR, background 0"][0].values
    narrow = values[:, 24:104, 24:104]  # with less background
    assert np.median(narrow) * np.median(-narrow) < 0  # one of the two has its median below 0
    for shown in (values, narrow, -narrow):
        volume, done, warnings = scale_intensity(shown, 1.0, 0.0, "auto")
        assert (done.padding, warnings) == ([0], [])
        assert not volume[shown == 0].any()


def test_what_is_bright_at_the_end_of_the_range_is_no_padding():
    mr = np.rint(phantom(3, "MR").clip(0))
    clipped = mr.clip(None, np.percentile(mr, 97))
    assert find_padding(clipped.ravel().astype(np.float32)) == []
    metal = np.where(np.random.default_rng(0).random(mr.shape) < 0.003, 20000, np.rint(phantom(3, "CT"))[:1, :1, :1])
    volume, done, warnings = scale_intensity(np.where(metal > 0, metal, mr - 1000), 1.0, 0.0, "ct-bone")
    assert done.padding == []
    assert volume.max() == 255


@pytest.mark.parametrize("intensity", ["ct-soft-tissue", "ct-brain"])
def test_a_window_that_shows_nothing_is_warned_of(intensity):
    picture = CASES["CT as a picture of 0..255 with fractions"][0].values / 255
    assert "next to no grey" in scale_intensity(picture - 500, 1.0, 0.0, intensity)[2][0]
    hu = phantom(0, "CT")
    assert scale_intensity(hu, 1.0, 0.0, intensity)[2] == []


def test_values_that_the_caller_keeps_are_warned_of_where_they_are_none_of_a_picture():
    mr = phantom(2, "MR").clip(0)
    dark, *_ = scale_intensity(mr, 1.0, 0.0, "percentile")
    assert "nearly black" in scale_intensity(dark // 16, 1.0, 0.0, "none")[2][0]
    assert "outside 0..255" in scale_intensity(mr, 1.0, 0.0, "none")[2][0]
    assert scale_intensity(dark, 1.0, 0.0, "none")[2] == []


def test_values_below_zero_are_not_counted_where_little_is_bright():
    """`none` keeps them; the networks see as bright what is bright among the others."""
    values = np.full((10, 100, 100), -50, np.int16)
    values[:, 0], values[:, 0, :4] = 5, 200  # 1 % of the voxels lie above 0, 4 % of these are bright
    assert not [words for words in scale_intensity(values, 1.0, 0.0, "none")[2] if "nearly black" in words]


def test_a_ct_without_air_is_windowed_and_warned_of():
    case = CASES["CT cropped inside the body"][0]
    assert scale_intensity(case.values, 1.0, 0.0, "auto")[2] == [NO_AIR]


def test_a_sample_is_small_and_the_same_each_time(monkeypatch):
    monkeypatch.setattr("medimageparse_serving.volume.intensity_scaling.SAMPLE_VOXELS", 1000)
    stored = np.arange(50 * 60 * 70).reshape(50, 60, 70)
    sample = Values(stored, 2.0, 1.0).sample()
    assert 500 < sample.size < 2000
    assert np.isin((sample - 1) / 2, stored).all()
    assert np.array_equal(sample, Values(stored, 2.0, 1.0).sample())


def test_many_levels_are_no_label_map():
    ramp = np.repeat(np.arange(4 * FEW_LEVELS, dtype=np.int16), 32).reshape(1, 32, 32)
    assert scale_intensity(ramp, 1.0, 0.0, "auto")[2] == []
    assert scale_intensity(ramp // 4, 1.0, 0.0, "auto")[2] == [FEW]
