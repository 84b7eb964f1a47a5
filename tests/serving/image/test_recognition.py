"""Existence p-values, suppression and exclusive masks."""

import json

import numpy as np
import pytest
from medimageparse_serving.image.geometry import Geometry, Intensity
from medimageparse_serving.image.probability_maps import encode_masks, image_probabilities
from medimageparse_serving.image.recognition import (
    BELOW_THRESHOLD,
    EMPTY,
    OUTVOTED,
    SUPPRESSED,
    combine,
    existence_p_value,
    existence_p_values,
    mask_statistics,
    read_distributions,
    read_threshold,
    recognize,
    suppress,
    two_sided_p_values,
)
from scipy import stats

FLAT = [[2.0, 3.0], [1.0, 1.0], [1.5, 1.0], [1.0, 4.0]]
GEOMETRY = Geometry(
    "PNG", "RGB", 1, 1, height=32, width=24, side=32, top=0, left=4, intensity=Intensity("none", None, []), warnings=[]
)


def drawn(*boxes, inside=0.9, outside=0.0, shape=(8, 8)):
    """One map per box of rows and columns."""
    maps = np.full((len(boxes), *shape), outside, np.float32)
    for values, (rows, columns) in zip(maps, boxes, strict=True):
        values[rows, columns] = inside
    return dict(enumerate(maps))


def by_pixel(maps):
    """What upstream does, pixel by pixel."""
    supports = {t: [(i, j) for i, j in np.ndindex(m.shape) if m[i, j] > np.float32(0.1)] for t, m in maps.items()}
    confidences = {t: np.mean([float(maps[t][p]) for p in s]) if s else 0.0 for t, s in supports.items()}
    won = dict.fromkeys(maps, 0)
    for pixel in set().union(*supports.values()):
        rivals = [t for t in maps if maps[t][pixel] > np.float32(0.1)]
        won[max(rivals, key=lambda t: maps[t][pixel])] += 1
    surest = max(maps, key=lambda t: confidences[t])
    remaining = [t for t in maps if t == surest or won[t] >= 0.5 * len(supports[t])]
    masks = {t: np.zeros(maps[t].shape, np.bool_) for t in remaining}
    for pixel in np.ndindex(maps[surest].shape):
        rivals = [t for t in remaining if maps[t][pixel] > 0.5]
        if rivals:
            masks[max(rivals, key=lambda t: maps[t][pixel])][pixel] = True
    return masks


def test_p_values_are_those_of_scipys_test():
    x = np.array([0.0, 1e-9, 0.2, 0.5, 0.77, 0.999, 1.0])
    for a, b in ((1.0, 1.0), (250.0, 5.0), (0.5, 7.0)):
        expected = [stats.ks_1samp([value], stats.beta(a, b).cdf).pvalue for value in x]
        np.testing.assert_allclose(two_sided_p_values(x, np.array(a), np.array(b)), expected, rtol=0, atol=1e-15)


def test_statistics_of_a_mask():
    pixels = np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)
    probabilities = np.full((7, 5), 0.3, np.float32)
    probabilities[2:4, 1] = 1, 0.75
    expected = [255 * 0.875, *pixels[2:4, 1].mean(0)]
    np.testing.assert_allclose(mask_statistics(probabilities, pixels) * 256, expected, rtol=1e-6)


@pytest.mark.parametrize("highest", [0.0, 0.4, 0.498, 0.5003, 0.50195])
def test_a_mask_without_pixels_is_absent(highest):
    """Above 127/255 and below 128/255 the original has NaN, which it takes for present."""
    probabilities = np.full((4, 4), highest, np.float32)
    statistics = mask_statistics(probabilities, np.full((4, 4, 3), 200, np.uint8))
    assert statistics.tolist() == [0, 0, 0, 0]
    assert existence_p_value(statistics, FLAT) == 0


def test_p_values_of_prompts_are_taken_on_the_whole_square():
    logits = np.full((3, 8, 8), 20, np.float32)
    pixels = np.full((32, 32, 3), 64, np.uint8)
    expected = existence_p_value(np.array([255, 64, 64, 64]) / 256, FLAT)
    p_values = existence_p_values(logits, pixels, ["Left  Lung", "heart", "left lung"], {"left lung": FLAT})
    assert p_values == [pytest.approx(expected), None, pytest.approx(expected)]
    assert existence_p_values(logits, pixels, ["a", "b", "c"], {}) == [None, None, None]


def test_the_distributions_may_be_missing(tmp_path):
    path = tmp_path / "target_dist.json"
    assert read_distributions(path) == {}
    path.write_text(json.dumps({"OCT": {"edema": FLAT}}))
    assert read_distributions(path) == {"OCT": {"edema": FLAT}}


def test_the_shipped_distributions():
    distributions = read_distributions()
    assert len(distributions) == 13
    for targets in distributions.values():
        assert all(np.shape(pairs) == (4, 2) and np.min(pairs) > 0 for pairs in targets.values())


def test_threshold():
    assert read_threshold(None, recognize=False) is None
    assert read_threshold(np.array([0.05], np.float32), recognize=True) == 0.05
    for wrong in (-0.1, 1.5, np.nan, np.inf):
        with pytest.raises(ValueError, match="not between 0 and 1; send for example 0.05"):
            read_threshold(np.array([wrong], np.float32), recognize=True)
    with pytest.raises(ValueError, match="for recognition; leave it out, or send image_type without text"):
        read_threshold(np.array([0.05], np.float32), recognize=False)


def test_suppression():
    regions = {t: m > 0.5 for t, m in drawn(np.s_[:4, :], np.s_[:2, :], np.s_[2:6, :], np.s_[8:, :]).items()}
    everything = {0: 0.9, 1: 0.8, 2: 0.7, 3: 1.0}
    assert suppress(regions, everything) == [0, 2]  # 1 lies within 0; of 2 a half, not more; 3 is empty
    assert suppress(regions, everything | {1: 0.95}) == [1, 0, 2]  # of 0 a half lies within 1
    assert suppress(regions, dict.fromkeys(regions, 1.0)) == [0, 2]  # equal: the first comes first
    assert suppress({0: regions[0], 1: regions[0]}, {0: 0.3, 1: 0.3}) == [0]
    assert suppress({}, {}) == []


def test_exclusive_masks_of_equals_go_to_the_first():
    maps = drawn(np.s_[:4, :], np.s_[2:6, :])
    masks = combine(maps)
    assert list(masks) == [0, 1]
    assert masks[0].sum() == 32
    assert masks[1].sum() == 16
    assert not (masks[0] & masks[1]).any()
    assert list(combine({1: maps[1], 0: maps[0]})) == [1, 0]


def test_the_outvoted_leave_and_the_surest_stays():
    maps = drawn(np.s_[:, :], np.s_[:5, :], inside=0.6)
    maps[1] *= 1.2  # likelier on more than half of what 0 covers
    assert list(combine(maps)) == [1]
    maps[2] = np.zeros((8, 8), np.float32)
    maps[2][0, 0] = 0.99  # surest, and alone where it is
    maps[3] = maps[2] + 0  # a copy wins nothing and is not the first of the surest
    assert list(combine(maps)) == [1, 2]


def test_no_support_stays_as_an_empty_mask():
    maps = drawn(np.s_[:2, :], np.s_[8:, :])
    masks = combine(maps)
    assert list(masks) == [0, 1]
    assert not masks[1].any()
    assert {t: m.any() for t, m in combine(drawn(np.s_[8:, :], np.s_[8:, :])).items()} == {0: False, 1: False}
    assert combine({}) == {}


@pytest.mark.parametrize("seed", range(8))
def test_combining_is_what_a_loop_over_pixels_does(seed):
    random = np.random.default_rng(seed)
    n, coarse = 1 + seed % 5, (5, 3)
    maps = {t: np.kron(random.random(coarse) ** 2, np.ones((2, 3))).astype(np.float32) for t in range(n)}
    for t in maps:  # ties in plenty
        maps[t] = np.round(maps[t] + random.normal(0, 0.1, maps[t].shape), 1).clip(0, 1).astype(np.float32)
    expected, found = by_pixel(maps), combine(maps)
    assert list(found) == list(expected)
    for t, mask in expected.items():
        assert np.array_equal(found[t], mask)


def logits_of(*boxes, inside=4.0, outside=-9.0):
    return np.where(np.stack(list(drawn(*boxes).values())) > 0.5, inside, outside).astype(np.float32)


def test_recognition():
    boxes = np.s_[:4, :], np.s_[:3, :], np.s_[8:, :], np.s_[6:, :], np.s_[4:5, :]
    logits = logits_of(*boxes)
    found, rejected = recognize(logits, GEOMETRY, [0.4, 0.3, 0.9, None, 0.01], 0.05)
    assert list(found) == [3, 0]  # unknown counts as 1
    assert rejected == {1: SUPPRESSED, 2: EMPTY, 4: BELOW_THRESHOLD}
    assert list(recognize(logits, GEOMETRY, [0.4, 0.3, 0.9, None, 0.01], None)[0]) == [3, 0, 4]
    for prompt, (probabilities, mask) in found.items():
        assert np.array_equal(probabilities, image_probabilities(logits[prompt], GEOMETRY))
        assert np.array_equal(mask, probabilities > 0.5)  # they do not overlap


def test_recognized_masks_share_no_pixel_in_8_bits():
    logits = logits_of(np.s_[:5, :], np.s_[3:, :])
    logits[1] -= 0.5
    found, _ = recognize(logits, GEOMETRY, [0.4, 0.5], None)
    masks, described = encode_masks(list(found), found.__getitem__, GEOMETRY, "probabilities")
    assert list(described) == [1, 0]
    assert (masks > 127.5).sum(0).max() == 1
    assert [mask.area_pixels for mask in described.values()] == (masks > 127.5).sum((1, 2)).tolist()
    assert masks[0].max() > 127  # where the other one won, 127 of what would be more
    assert (masks[0] == 127).any()
    binary, _ = encode_masks(list(found), found.__getitem__, GEOMETRY, "masks")
    assert np.array_equal(binary, masks > 127.5)


def test_an_outvoted_target_is_named():
    logits = logits_of(np.s_[:, :], np.s_[1:7, :])
    logits[1] += 1
    logits[0][1:7] = -0.5  # within reach of a vote there, but not of its mask
    found, rejected = recognize(logits, GEOMETRY, [0.9, 0.5], None)
    assert list(found) == [1]
    assert rejected == {0: OUTVOTED}


@pytest.mark.parametrize("p_values", [[0.0, 0.01], [0.04, 0.0]])
def test_all_rejected(p_values):
    found, rejected = recognize(logits_of(np.s_[:4, :], np.s_[4:, :]), GEOMETRY, p_values, 0.05)
    assert found == {}
    assert rejected == {0: BELOW_THRESHOLD, 1: BELOW_THRESHOLD}
    found, rejected = recognize(logits_of(np.s_[8:, :], np.s_[8:, :]), GEOMETRY, [1.0, None], None)
    assert found == {}
    assert rejected == {0: EMPTY, 1: EMPTY}
