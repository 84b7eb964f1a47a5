"""Maps of each prompt alone: the published resize and sigmoid, the existence gate, the stored geometry, the limit."""

import base64
import gzip
import json

import nibabel as nib
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.places import DATA
from medimageparse_serving.eight_bits import to_eight_bits
from medimageparse_serving.volume.nifti_masks import restore_labels
from medimageparse_serving.volume.nifti_volume import Limits, Options, decode_volume
from medimageparse_serving.volume.probabilities import (
    PromptMaps,
    enlarging_matrix,
    exists,
)
from medimageparse_serving.volume.sliding_window import from_square
from medimageparse_serving.volume.stored_maps import StoredMaps
from scipy.special import expit

LIMITS = Limits(10**7, 10**7, 10**6, 1000, 1000)
GOLDEN = np.load(DATA / "v2_post_small.npz")
CASES = sorted({name.rsplit("/", 1)[0] for name in GOLDEN.files if name.endswith("/up_logits")})
AFFINES = {
    "slices along z": np.diag([-1.0, 1, 2, 1]),
    "both sides turned": np.diag([1.0, -1, -2, 1]),
    "slices along x": np.array([[0, 0, 3, -10], [-1.5, 0, 0, 20], [0, 2, 0, 5], [0, 0, 0, 1.0]]),
}


def geometry_of(shape, affine=AFFINES["slices along z"]):
    image = nib.Nifti1Image(np.zeros(shape, np.uint8), affine)
    return decode_volume(image.to_bytes(), Options(intensity="none"), LIMITS)[1]


def fill(kind, logits, scores, geometry, size):
    """Maps of one window that is all of the volume, as slices."""
    maps = PromptMaps(kind, logits.shape[1], geometry, size)
    maps.read(range(len(logits)), {"mask_logits": logits, "scores": scores})
    return maps.maps


@pytest.mark.parametrize(("n_in", "n_out"), [(16, 64), (128, 512), (28, 112), (25, 98)])
def test_the_matrix_is_the_antialiased_bicubic_resize(n_in, n_out):
    image = torch.randn(1, 1, n_in, n_in, generator=torch.Generator().manual_seed(0))
    matrix = torch.tensor(enlarging_matrix(n_in, n_out))
    expected = F.interpolate(image, size=(n_out, n_out), mode="bicubic", antialias=True)
    assert (matrix @ image @ matrix.T - expected).abs().max() < 1e-5


@pytest.mark.parametrize("case", CASES)
def test_probabilities_are_the_originals_sigmoid_before_prompts_compete(case):
    logits = GOLDEN[f"{case}/logits"].astype(np.float32).swapaxes(0, 1)
    scores = expit(GOLDEN[f"{case}/existence"].T)
    expected = 255 * expit(GOLDEN[f"{case}/up_logits"].astype(np.float64)) * exists(scores).T[..., None, None]
    n_prompts, n_slices, size, _ = expected.shape
    geometry = geometry_of((size, size, n_slices))
    found = fill("probabilities", logits, scores, geometry, size).slices
    assert np.abs(found - expected).max() <= 0.5 + 1e-2
    sure = np.abs(expected - 127.5) > 1e-2
    assert np.array_equal((found > 127)[sure], (expected > 127.5)[sure])
    assert np.array_equal(fill("masks", logits, scores, geometry, size).slices, found > 127)
    assert found.any()


def test_there_are_cases_with_suppressed_prompts():
    assert any(not GOLDEN[f"{case}/kept"].all() for case in CASES)


@pytest.mark.parametrize(("scores", "expected"), [([[0.5]], [[False]]), ([[0.5, 0.4]], [[True, False]])])
def test_a_score_of_a_half_is_enough_only_beside_others(scores, expected):
    assert exists(np.array(scores, np.float32)).tolist() == expected


def test_eight_bits_are_over_127_where_the_probability_is_over_a_half():
    zero, half, one = np.float32([0, 0.5, 1])
    values = np.array([0, np.nextafter(half, zero), half, np.nextafter(half, one), 1, 0.25, 200 / 255], np.float32)
    assert to_eight_bits(values).tolist() == [0, 127, 127, 128, 255, 64, 200]


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
def test_maps_lie_as_the_volume_was_stored(affine):
    random, size, shape = np.random.default_rng(0), 32, (22, 19, 5)
    geometry = geometry_of(shape, affine)
    n_slices, height, width = StoredMaps.empty(1, geometry).slices.shape[1:]
    logits = random.normal(0, 4, (n_slices, 2, size // 4, size // 4)).astype(np.float32)
    maps = fill("masks", logits, np.full((n_slices, 2), 0.9, np.float32), geometry, size)
    for prompt in range(2):
        square = enlarging_matrix(size // 4, size) @ logits[:, prompt] @ enlarging_matrix(size // 4, size).T > 0
        expected = restore_labels(from_square(square.astype(np.uint8), height, width), geometry)
        assert np.array_equal(maps.stored[prompt], expected)
    answer = maps.answer("masks", "all", ["masks", "masks_file"])
    assert answer["masks"].flags.c_contiguous
    packed = base64.b64decode(json.loads(answer["masks_file"].item())["data"])
    image = nib.Nifti1Image.from_bytes(gzip.decompress(packed))
    assert image.shape == (*shape, 2)
    assert np.array_equal(np.moveaxis(np.asarray(image.dataobj), 3, 0), answer["masks"])
    assert np.allclose(image.affine, affine)


@pytest.mark.parametrize(
    ("output", "wanted", "made"),
    [
        ("masks", ["masks", "masks_file"], ["masks"]),
        ("masks_file", ["masks", "masks_file"], ["masks_file"]),
        ("masks", ["report"], []),
        ("masks_file", ["report"], []),
    ],
)
def test_only_what_is_asked_for_is_made(output, wanted, made):
    maps = StoredMaps.empty(1, geometry_of((5, 4, 3)))
    assert list(maps.answer("masks", output, wanted)) == made


@pytest.mark.parametrize("output", ["masks", "masks_file"])
def test_a_map_lies_as_its_output_wants_it(output):
    maps = StoredMaps.empty(2, geometry_of((5, 4, 3)), output=output)
    maps.slices[1, 2] = 1
    in_order = {"masks": maps.stored, "masks_file": np.moveaxis(maps.stored, 0, 3).T}[output]
    assert in_order.flags.c_contiguous
    assert np.count_nonzero(maps.stored[0]) == 0 < np.count_nonzero(maps.stored[1])
    if output == "masks":
        assert np.shares_memory(maps.answer("masks", output, ["masks"])["masks"], maps.stored)
