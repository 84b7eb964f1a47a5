"""Large pictures in tiles: how they lie, what is blended, and that no seam is seen."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest
from medimageparse_serving.image.geometry import Geometry, Intensity
from medimageparse_serving.image.probability_maps import image_probabilities
from medimageparse_serving.image.tiles import STEP, Blend, check_tiles, first_pixels, lay_out, read_tile, segment_tiles
from medimageparse_serving.refused import Refused
from scipy.special import expit, logit

SIZE = 64
WHOLE = Geometry("PNG", "RGB", 1, 1, 0, 0, 0, 0, 0, Intensity("none", None, []), ["a warning"])


def geometry_of(height, width):
    """Of a picture in its own square."""
    side = max(height, width)
    return replace(WHOLE, height=height, width=width, side=side, top=(side - height) // 2, left=(side - width) // 2)


def square_of(picture):
    geometry = geometry_of(*picture.shape[:2])
    square = np.zeros((geometry.side, geometry.side, 3), np.uint8)
    square[geometry.top :, geometry.left :][: geometry.height, : geometry.width] = picture
    return square, geometry


def segmented(picture, network, n_prompts=1):
    """Probabilities [P,H,W] of the picture, and the outputs for the canvas."""
    square, geometry = square_of(picture)
    canvas = lay_out(geometry, SIZE)

    async def segment(pixels):
        assert pixels.shape == (1, SIZE, SIZE, 3)
        return network(pixels[0])

    found = asyncio.run(segment_tiles(segment, square, geometry, canvas, n_prompts))
    return np.array([image_probabilities(logits, canvas.geometry) for logits in found["mask_logits"]]), found


def local(tile):
    """A network that looks at no more than a pixel of its mask."""
    blocks = tile[..., 0].reshape(SIZE // STEP, STEP, SIZE // STEP, STEP).mean((1, 3), dtype=np.float32)
    return {"mask_logits": logit(np.clip(blocks / 255, 0.01, 0.99))[None].astype(np.float32)}


def near_sighted(tile):
    """As networks do, it sees less at the rim of a tile, where it takes what lies outside for black."""
    logits = local(tile)["mask_logits"]
    rim = np.minimum(*np.ogrid[: SIZE // STEP, : SIZE // STEP])
    from_rim = np.minimum(rim, np.minimum(*np.ogrid[SIZE // STEP - 1 : -1 : -1, SIZE // STEP - 1 : -1 : -1]))
    return {"mask_logits": logits - 3 * np.exp(-from_rim).astype(np.float32)}


@pytest.mark.parametrize("length", [1, 63, 64, 65, 68, 100, 112, 113, 200, 997, 1024])
def test_tiles_cover_an_axis_and_overlap(length):
    starts = first_pixels(length, SIZE)
    assert starts[0] == 0
    assert starts[-1] + SIZE >= length
    assert starts[-1] + SIZE < max(length, SIZE) + STEP
    assert all(start % STEP == 0 for start in starts)
    gaps = np.diff(starts)
    assert len(starts) == 1 or (gaps.max() <= SIZE - SIZE // 4 + STEP and np.ptp(gaps) <= STEP)
    assert len(starts) == max(1, 1 + -(-(length - SIZE) // (SIZE - SIZE // 4))) or length % STEP


SHAPES = [(64, 65), (200, 64), (65, 300), (30, 200), (200, 31), (1, 400), (129, 131), (256, 256), (100, 5)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_what_a_pixel_shows_does_not_depend_on_its_tile(shape):
    """A network that looks at single pixels gives for tiles what it would give for the whole."""
    smooth = np.cumsum(np.random.default_rng(0).normal(0, 6, shape), 1) + 128
    picture = np.repeat(smooth.clip(0, 255).astype(np.uint8)[..., None], 3, 2)
    probabilities, _ = segmented(picture, local)
    square, geometry = square_of(picture)
    laid_out = lay_out(geometry, SIZE)
    canvas = laid_out.geometry
    whole = np.zeros((canvas.side, canvas.side), np.float32)
    whole[canvas.top : canvas.top + shape[0], canvas.left : canvas.left + shape[1]] = picture[..., 0]
    blocks = whole.reshape(canvas.side // STEP, STEP, -1, STEP).mean((1, 3))
    n_rows, n_columns = (np.array(laid_out.places[-1]) + SIZE) // STEP  # what lies beyond is no part of any tile
    n = len(blocks)
    blocks = np.pad(blocks[:n_rows, :n_columns], ((0, n - n_rows), (0, n - n_columns)), "edge")
    expected = image_probabilities(logit(np.clip(blocks / 255, 0.01, 0.99)).astype(np.float32), canvas)
    assert probabilities.shape == (1, *shape)
    np.testing.assert_allclose(probabilities[0], expected, atol=1e-4)


def test_a_periodic_picture_has_no_seam():
    """Its period is the distance of tiles, so that each sees the same; what the rim of a tile misses is not seen."""
    gap = first_pixels(16 * SIZE, SIZE)[1]
    length = SIZE + 6 * gap
    wave = np.tile(128 + 100 * np.sin(2 * np.pi * np.arange(gap // 2) / (gap // 2)), 2 * length // gap + 1)[:length]
    picture = np.repeat(np.sqrt(np.outer(wave, wave)).astype(np.uint8)[..., None], 3, 2)
    [probabilities], _ = segmented(picture, near_sighted)
    inside = probabilities[SIZE:-SIZE, SIZE:-SIZE]
    np.testing.assert_allclose(inside[:-gap], inside[gap:], atol=1e-4)
    np.testing.assert_allclose(inside[:, :-gap], inside[:, gap:], atol=1e-4)
    [truth], _ = segmented(picture, local)
    steps, true_steps = np.abs(np.diff(inside, axis=0)), np.abs(np.diff(truth[SIZE:-SIZE, SIZE:-SIZE], axis=0))
    assert (steps - true_steps).max() < 0.05
    near, far = (expit(network(picture[:SIZE, :SIZE])["mask_logits"][0]) for network in (near_sighted, local))
    assert np.abs(near - far).max() > 0.5  # what one tile misses at its rim


def test_what_is_said_of_a_prompt_is_that_of_the_tile_where_it_is_the_most_probable():
    canvas = lay_out(geometry_of(SIZE, 3 * SIZE), SIZE)
    blend = Blend(canvas, 2)
    for number, place in enumerate(canvas.places):
        logits = np.full((2, SIZE // STEP, SIZE // STEP), -9, np.float32)
        logits[number % 2, 3, 3] = number
        of_tile = {"similarities": np.float32([number, number]), "category_logits": np.full((2, 17), number)}
        blend.add(place, {"mask_logits": logits, **of_tile})
    found = blend.finish()
    last = len(canvas.places) - 1
    assert found["similarities"].tolist() == [last - last % 2, last - 1 + last % 2]
    assert found["category_logits"][:, 5].tolist() == found["similarities"].tolist()


def test_no_prompt():
    nothing = {"mask_logits": np.zeros((0, SIZE // STEP, SIZE // STEP), np.float32), "similarities": np.zeros(0)}
    probabilities, found = segmented(np.zeros((100, 90, 3), np.uint8), lambda tile: nothing, 0)
    assert probabilities.size == found["similarities"].size == 0


def test_the_canvas_says_where_the_picture_lies():
    geometry = lay_out(geometry_of(30, 201), SIZE).geometry
    assert (geometry.side, geometry.top, geometry.left, geometry.tiles) == (204, 17, 0, 4)
    assert (geometry.height, geometry.width, geometry.warnings) == (30, 201, ["a warning"])


def test_too_many_pixels_and_prompts_are_refused():
    canvas = lay_out(geometry_of(100, 200), SIZE)
    check_tiles(canvas, 3, 3 * 200 * 200)
    with pytest.raises(
        Refused, match=r"^4 prompts in tiles of a picture whose longer side is 200 .*; send fewer prompts"
    ):
        check_tiles(canvas, 4, 3 * 200 * 200)


def test_tiles_go_without_an_image_type():
    assert (read_tile(True, False), read_tile(False, True), read_tile(None, True)) == (True, False, False)
    with pytest.raises(Refused, match="tile goes with text alone.*; send no image_type"):
        read_tile(True, True)
