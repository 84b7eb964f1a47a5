"""Right answers: phantoms that training never saw, through the server, by `medimageparse evaluate`."""

import pytest
from helpers.evaluation import evaluate, values
from medimageparse_demo.datasets import VOLUME_SEEDS, write_volumes
from medimageparse_demo.phantoms import STRUCTURES
from medimageparse_demo.training import FIRST_TRAINING_SEED


@pytest.fixture(scope="module", params=[False, True], ids=["trained words", "paraphrased"])
def summary(request, server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    write_volumes(folder, paraphrased=request.param)
    return evaluate(server.grpc_url, folder / "images", folder / "out", "--worst", 0)


def test_the_phantoms_are_unseen_and_half_of_the_structures_absent(summary):
    assert len(VOLUME_SEEDS) == summary["n_answered"] == 20
    assert max(VOLUME_SEEDS) < FIRST_TRAINING_SEED
    existence = summary["tables"]["Existence"]["all, volumes"]
    assert existence["tp"]["value"] + existence["fn"]["value"] == pytest.approx(0.5, abs=0.02)


def test_present_structures_are_segmented(summary):
    dice = values(summary["tables"]["Structures"], "mean Dice")
    assert set(dice) == {*STRUCTURES, "all"}
    assert dice["all"] >= 0.94
    assert {name: value for name, value in dice.items() if value < 0.75} == {}


def test_existence_is_judged_right(summary):
    assert summary["tables"]["Existence"]["all, volumes"]["accuracy"]["value"] >= 0.95
