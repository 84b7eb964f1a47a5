"""`tile`: large pictures at their own pixels, through the server, the gateway's way of asking and the client's."""

import time

import numpy as np
import pytest
from helpers.image_answers import image_file, maps_of, report_of
from helpers.inference import IMAGE_PROMPTS, executions
from helpers.running_server import wait_until
from medimageparse.variants import TINY_2D
from medimageparse_client import Client, InvalidRequest, RequestTimeout
from nibabel.nifti1 import Nifti1Image
from tritonclient.utils import InferenceServerException

SIZE = TINY_2D.image_size
GAP = SIZE - SIZE // 4  # from tile to tile
TEXT = " & ".join(IMAGE_PROMPTS).encode()
TILE = {"tile": np.array([True])}


@pytest.fixture(scope="module")
def periodic():
    """A picture that is the same again after the distance of two tiles: [5 tiles, 7 tiles, 3]."""
    block = np.random.default_rng(5).integers(0, 256, (GAP // 12, GAP // 12, 3), dtype=np.uint8)
    return np.tile(block.repeat(12, 0).repeat(12, 1), (7, 9, 1))[: SIZE + 4 * GAP, : SIZE + 6 * GAP]


@pytest.fixture(scope="module")
def answer(infer_image, periodic):
    return infer_image({"image": image_file(periodic), "text": TEXT, **TILE})


def test_a_periodic_picture_gives_periodic_masks_without_a_seam(answer, periodic):
    maps = maps_of(answer).astype(int)
    assert maps.shape == (len(IMAGE_PROMPTS), *periodic.shape[:2])
    inside = maps[:, SIZE:-SIZE, SIZE:-SIZE]
    assert np.abs(inside[:, GAP:] - inside[:, :-GAP]).max() <= 1
    assert np.abs(inside[..., GAP:] - inside[..., :-GAP]).max() <= 1
    assert np.ptp(inside, axis=(1, 2)).max() > 3  # and that is not because they show nothing
    # between neighbours on both sides of a tile's rim no more changes than between others
    steps = np.abs(np.diff(inside, axis=2)).max((0, 1))
    rims = np.arange(0, len(steps), GAP)
    assert steps[rims].max() <= np.delete(steps, rims).max()


def test_a_tile_is_what_the_networks_give_for_it(infer_image, answer, periodic):
    """In a tile's middle, where no other tile lies, as if it had been sent alone."""
    first = 2 * GAP
    alone = maps_of(infer_image({"image": image_file(periodic[first:, first:][:SIZE, :SIZE]), "text": TEXT}))
    middle = slice(SIZE // 4 + 4, SIZE - SIZE // 4 - 4)
    found = maps_of(answer)[:, first:, first:][:, :SIZE, :SIZE]
    assert np.abs(found[:, middle, middle].astype(int) - alone[:, middle, middle]).max() <= 1


def test_the_report_tells_of_the_tiles(answer, periodic):
    described, image = report_of(answer)["prompts"], report_of(answer)["image"]
    assert (image["tiles"], image["height"], image["width"]) == (35, *periodic.shape[:2])
    for prompt, one in zip(described, maps_of(answer), strict=True):
        assert prompt["area_pixels"] == (one > 127).sum()
        assert prompt["category"]


@pytest.mark.parametrize("shape", [(SIZE, SIZE), (SIZE, 9), (20, 30)], ids=str)
def test_what_fits_into_the_networks_is_answered_as_without_tiles(infer_image, shape):
    image = image_file(np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8))
    found, expected = (infer_image({"image": image, "text": TEXT, **options}) for options in (TILE, {}))
    assert np.array_equal(maps_of(found), maps_of(expected))
    assert report_of(found)["image"] == report_of(expected)["image"]


@pytest.mark.parametrize(
    ("shape", "options", "sentence"),
    [
        ((90, 120), {"image_type": b"OCT"}, "tile goes with text alone"),
        ((90, 120), {"image_type": b"OCT", "text": None}, "tile goes with text alone"),
        ((8192, 80), {"text": b"a & b & c"}, "3 prompts in tiles of a picture whose longer side is 8192 are more than"),
    ],
)
def test_wrong_requests(infer_image, shape, options, sentence):
    sent = {"image": image_file(np.zeros(shape, np.uint8)), "text": TEXT} | TILE | options
    with pytest.raises(InferenceServerException, match=sentence) as refused:
        infer_image({name: value for name, value in sent.items() if value is not None})
    assert "send" in refused.value.message()


def test_the_client_asks_for_tiles(both_models, answer, periodic, tmp_path):
    with Client(both_models.grpc_url) as client:
        result = client.segment_image(periodic, list(IMAGE_PROMPTS), tile=True)
    assert np.array_equal(result.probabilities, maps_of(answer))
    result.preview(tmp_path / "overlay.png")


def test_a_caller_who_gives_up_ends_it_between_two_tiles(both_models):
    """Thousands of tiles take longer than he waits, and most of them are not computed."""
    field = np.random.default_rng(9).integers(0, 256, (60 * GAP, 60 * GAP), dtype=np.uint8)
    before = executions(both_models, "mask_decoder")
    with Client(both_models.grpc_url, timeout_s=1.5) as client, pytest.raises(RequestTimeout):
        client.segment_image(field, "lung", tile=True)
    wait_until(lambda: not is_at_work(both_models))
    assert 0 < executions(both_models, "mask_decoder") - before < 60 * 60 / 2


def is_at_work(server):
    """Whether tiles are computed: two looks differ."""
    first = executions(server, "mask_decoder")
    time.sleep(0.5)
    return executions(server, "mask_decoder") != first


def test_a_slice_is_not_cut_into_tiles(both_models):
    volume = Nifti1Image(np.random.default_rng(0).integers(1, 99, (9, 9, 9)).astype(np.int16), np.eye(4))
    with Client(both_models.grpc_url) as client, pytest.raises(InvalidRequest, match="leave tile out"):
        client.segment_image(volume, "lung", slice_number=2, tile=True)
