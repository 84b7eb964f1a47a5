"""The short form of `benchmarks/soak.py`: many clients, good, wrong and impatient requests to both models."""

import pytest
from helpers.running_server import triton_server
from medimageparse_demo.repository import demo_repository
from soak import N_CLIENTS, requests, share_apart, soak

N_REQUESTS = 104  # each kind eight times
LIMIT_S = 300


@pytest.fixture(scope="module")
def soaked(tmp_path_factory):
    repository = demo_repository(tmp_path_factory.mktemp("soak") / "model_repository")
    with triton_server(repository) as server:
        return soak(server, N_REQUESTS, N_CLIENTS, LIMIT_S)


def test_every_answer_is_what_the_request_gets_alone(soaked):
    assert soaked.wrong == []
    assert soaked.apart == 0
    assert soaked.n_done == N_REQUESTS
    assert set(soaked.outcomes) == {request.name for request in requests()}


def test_memory_stays(soaked):
    """Looser than the long form: a hundred requests hardly warm the server up."""
    assert soaked.growth(2) < 1.3
    assert soaked.growth(3) < 1.3


def test_a_wrong_answer_would_be_seen():
    right = (bytes(10_000), b"scores")
    assert share_apart(right, right) == 0
    assert share_apart((b"\x01" + bytes(9_999), b"scores"), right) == pytest.approx(1e-4)
    assert share_apart((bytes(10_000), b"others"), right) > 0
    assert share_apart("refused: no", right) == share_apart(right, "gave up") == share_apart((b"", b""), right) == 1
