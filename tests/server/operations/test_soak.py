"""The short form of `benchmarks/soak.py`: many clients, good, wrong and impatient requests to both models."""

from collections import Counter

import pytest
from helpers.running_server import triton_server
from helpers.served_repository import demo_repository
from soak import N_CLIENTS, Soaked, requests, soak

N_REQUESTS = 104  # each kind eight times


@pytest.fixture(scope="module")
def soaked(tmp_path_factory):
    repository = demo_repository(tmp_path_factory.mktemp("soak") / "model_repository")
    with triton_server(repository) as server:
        return soak(server, N_REQUESTS, N_CLIENTS)


def test_every_answer_is_what_the_request_gets_alone(soaked):
    assert soaked.wrong == []
    assert soaked.outcomes.total() == N_REQUESTS
    assert set(soaked.outcomes) == {request.name for request in requests()}


def test_memory_stays(soaked):
    """Looser than the long form: a hundred requests hardly warm the server up."""
    assert max(soaked.growth()) < 1.3


def test_growth_is_of_the_last_quarter_over_the_second():
    samples = [(0, 9, 9), (26, 10, 4), (30, 20, 4), (49, 30, 4), (60, 1, 1), (75, 30, 6), (100, 50, 6)]
    assert Soaked(outcomes=Counter(volume=100), samples=samples).growth() == (2.0, 1.5)
