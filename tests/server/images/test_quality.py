"""Right answers in 2D: phantom images that training never saw, through the server, by `medimageparse evaluate`."""

import json

import numpy as np
import pytest
from helpers.evaluation import evaluate, values
from helpers.running_server import triton_server
from medimageparse_client import Client
from medimageparse_demo.datasets import IMAGE_SEEDS, write_images
from medimageparse_demo.images import KIND_STRUCTURES, STRUCTURES, make_image
from medimageparse_demo.training import FIRST_TRAINING_SEED


@pytest.fixture(scope="module")
def image_server(images_alone):
    with triton_server(images_alone) as server:
        yield server


@pytest.fixture(scope="module", params=[False, True], ids=["trained words", "paraphrased"])
def tables(request, image_server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    write_images(folder, paraphrased=request.param)
    options = ("--prompt", "first", "--worst", 0)
    return evaluate(image_server.grpc_url, folder, folder / "out", *options)["tables"]


def test_the_images_are_unseen_and_of_every_kind():
    assert max(IMAGE_SEEDS) < FIRST_TRAINING_SEED
    assert {make_image(seed).kind for seed in IMAGE_SEEDS} == set(KIND_STRUCTURES)


def test_structures_are_segmented(tables):
    dice = values(tables["Tasks"], "mean Dice")
    assert {task.split("_")[2].split(" (")[0].replace("+", " ") for task in dice} == set(STRUCTURES)
    assert tables["Modalities, Dice"]["All"]["mean over masks"]["value"] >= 0.94
    assert {name: value for name, value in dice.items() if value < 0.75} == {}


def test_categories_are_right(tables):
    assert tables["Absence"]["all images"]["right category"]["value"] >= 0.90


def test_masks_are_counted_as_the_client_gets_them(image_server, tmp_path):
    write_images(tmp_path, range(3))
    summary = evaluate(image_server.grpc_url, tmp_path, tmp_path / "out", "--prompt", "first", "--worst", 0)
    lines = (tmp_path / "out" / "cases.jsonl").read_text().splitlines()[1:]
    rows = [(record["name"], row) for record in map(json.loads, lines) for row in record["rows"] if row["is_present"]]
    assert summary["n_answered"] == len(lines) == 3
    assert len(rows) > 3
    with Client(image_server.grpc_url) as client:
        for name, row in rows:
            kind, phantom = tmp_path / "phantoms" / "test" / name.rsplit("/", 1)[1], make_image(int(name[22:25]))
            answer = client.segment_image(kind, row["prompt"], joint=False)
            [mask] = answer.probabilities > 127
            truth = phantom.masks[row["task"].split("_")[2].replace("+", " ")]
            assert (row["predicted"], row["common"]) == (mask.sum(), (mask & truth).sum())


def test_prompts_that_are_decoded_together_are_segmented_as_well(image_server):
    with Client(image_server.grpc_url) as client:
        dice = [overlap for seed in range(20) for overlap in ask_together(client, seed)]
    assert np.mean(dice) >= 0.88
    assert min(dice) > 0.5


def ask_together(client, seed):
    """Dice of each structure of an image, all asked in one joint request."""
    phantom = make_image(seed)
    result = client.segment_image(phantom.pixels, list(phantom.masks), joint=True)
    return [overlap_of(result.mask(structure), mask) for structure, mask in phantom.masks.items()]


def overlap_of(mask, truth):
    return 2 * (mask & truth).sum() / (mask.sum() + truth.sum())


def test_recognition_finds_both_lungs(image_server):
    phantom = make_image(1, "X-Ray-Chest")
    with Client(image_server.grpc_url) as client:
        found = client.segment_image(phantom.pixels, image_type="X-Ray-Chest")
    assert set(found.prompts) == {"left lung", "right lung"}
    for lung in found.prompts:
        assert overlap_of(found.mask(lung), phantom.masks[lung]) > 0.9
    assert not (found.mask("left lung") & found.mask("right lung")).any()
