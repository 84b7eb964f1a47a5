"""Right answers in 2D: phantom images that training never saw, through the client and the server."""

import pytest
from medimageparse_client import Client
from medimageparse_demo.evaluate import dice, dice_by_structure, mean_dice
from medimageparse_demo.evaluate_images import TEST_SEEDS, evaluate, right_categories
from medimageparse_demo.images import KIND_STRUCTURES, STRUCTURES, make_image
from medimageparse_demo.repository import WEIGHTS_2D, demo_repository
from medimageparse_demo.training import FIRST_TRAINING_SEED
from medimageparse_serving.launch.serve import TritonServer


@pytest.fixture(scope="module")
def image_client(tmp_path_factory):
    repository = demo_repository(tmp_path_factory.mktemp("demo_2d") / "model_repository", WEIGHTS_2D)
    with TritonServer(repository) as server, Client(server.grpc_url, timeout_s=300) as client:
        yield client


@pytest.fixture(scope="module", params=[True, False], ids=["together", "alone"])
def answers(request, image_client):
    return evaluate(image_client, joint=request.param)


def test_the_images_are_unseen_and_of_every_kind():
    assert max(TEST_SEEDS) < FIRST_TRAINING_SEED
    assert {make_image(seed).kind for seed in TEST_SEEDS} == set(KIND_STRUCTURES)


def test_structures_are_segmented(answers):
    by_structure = dice_by_structure(answers)
    assert set(by_structure) == set(STRUCTURES)
    assert mean_dice(answers) >= 0.88
    assert {name: dice for name, dice in by_structure.items() if dice < 0.75} == {}


def test_categories_are_right(answers):
    assert right_categories(answers) >= 0.90


def test_paraphrases_cost_little(answers, image_client):
    paraphrased = evaluate(image_client, paraphrased=True)
    assert mean_dice(answers) - mean_dice(paraphrased) <= 0.03
    assert right_categories(paraphrased) >= 0.90


def test_recognition_finds_both_lungs(image_client):
    phantom = make_image(1, "X-Ray-Chest")
    found = image_client.segment_image(phantom.pixels, image_type="X-Ray-Chest")
    assert set(found.prompts) == {"left lung", "right lung"}
    for lung in found.prompts:
        assert dice(found.mask(lung), phantom.masks[lung]) > 0.9
    assert not (found.mask("left lung") & found.mask("right lung")).any()
