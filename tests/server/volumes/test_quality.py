"""Right answers: phantoms that training never saw, through the server."""

import numpy as np
import pytest
from medimageparse_demo.evaluate import TEST_SEEDS, dice_by_structure, evaluate, mean_dice, right_existence
from medimageparse_demo.phantoms import STRUCTURES
from medimageparse_demo.training import FIRST_TRAINING_SEED


@pytest.fixture(scope="module")
def answers(client):
    return evaluate(client)


@pytest.fixture(scope="module")
def paraphrased(client):
    return evaluate(client, paraphrased=True)


def test_the_phantoms_are_unseen_and_half_of_the_structures_absent(answers):
    assert len(TEST_SEEDS) == 20
    assert max(TEST_SEEDS) < FIRST_TRAINING_SEED
    assert {answer.seed for answer in answers} == set(TEST_SEEDS)
    assert np.mean([answer.is_present for answer in answers]) == pytest.approx(0.5, abs=0.02)


def test_present_structures_are_segmented(answers):
    by_structure = dice_by_structure(answers)
    assert set(by_structure) == set(STRUCTURES)
    assert mean_dice(answers) >= 0.90
    assert {name: dice for name, dice in by_structure.items() if dice < 0.75} == {}


def test_existence_is_judged_right(answers):
    assert right_existence(answers) >= 0.95


def test_paraphrases_cost_little(answers, paraphrased):
    assert mean_dice(answers) - mean_dice(paraphrased) <= 0.03
