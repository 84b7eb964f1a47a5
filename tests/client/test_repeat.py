"""A client asks again by itself, on a clock that only waiting moves."""

import logging
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from medimageparse_client import (
    AccessDenied,
    Client,
    InvalidRequest,
    InvalidVolume,
    RequestTimeout,
    ServerBusy,
    ServerError,
    ServerUnavailable,
    repeat,
    retry,
)
from medimageparse_client.errors import OddAnswer
from tritonclient.utils import InferenceServerException

GONE = ServerUnavailable("the server is not available")
UNAVAILABLE = InferenceServerException("Socket closed", "StatusCode.UNAVAILABLE")
DIED = InferenceServerException("Stub process is not healthy.", "StatusCode.INTERNAL")
TIMEOUT_S = 600


class World:
    """Requests that fail as told, each after `work_s`, and then succeed."""

    def __init__(self, retries=10, retry_for_s=60.0, work_s=0.0):
        self.now_s, self.work_s, self.pauses, self.limits_s = 0.0, work_s, [], []
        self.repeat = repeat.Repeat(retries, retry_for_s)
        self.repeat._stopped = SimpleNamespace(wait=self.wait)

    def wait(self, pause_s):
        self.pauses.append(pause_s)
        self.now_s += pause_s
        return False

    def ask(self, *failures, timeout_s=TIMEOUT_S):
        failures = list(failures)

        def request(left_s):
            self.limits_s.append(left_s)
            self.now_s += self.work_s
            if failures:
                raise failures.pop(0)
            return "answer"

        return self.repeat.ask(request, timeout_s)


@pytest.fixture
def world(monkeypatch):
    def make(**options):
        world = World(**options)
        monkeypatch.setattr(repeat, "time", SimpleNamespace(monotonic=lambda: world.now_s))
        return world

    return make


@pytest.mark.parametrize("error", [GONE, ServerBusy("its queue is full")])
def test_a_server_that_is_away_is_asked_again_and_the_first_time_is_told(world, error, caplog):
    away = world()
    with caplog.at_level(logging.WARNING, "medimageparse_client"):
        assert away.ask(error, error, error) == "answer"
    assert len(away.limits_s) == 4
    assert [record.getMessage() for record in caplog.records] == [f"{error}; trying again for up to 60 s"]


def test_pauses_double_up_to_a_bound_and_differ_between_clients(world):
    first, second = world(), world()
    for client in (first, second):
        client.ask(GONE, GONE, GONE, GONE, GONE)
    bounds = [min(retry.FIRST_PAUSE_S * 2**k, retry.LONGEST_PAUSE_S) for k in range(5)]
    assert all(bound / 2 <= pause <= bound for pause, bound in zip(first.pauses, bounds, strict=True))
    assert first.pauses != second.pauses


@pytest.mark.parametrize(
    "error",
    [
        AccessDenied("no key"),
        InvalidRequest("the prompt is bad"),
        InvalidVolume("this is not a NIfTI file"),
        RequestTimeout("no answer"),
        ServerError("boom"),
        OddAnswer("no report"),
        ValueError("a fault"),
    ],
)
def test_what_would_only_fail_again_is_asked_once(world, error):
    server = world()
    with pytest.raises(type(error)) as caught:
        server.ask(error)
    assert caught.value is error
    assert (len(server.limits_s), server.pauses) == (1, [])


@pytest.mark.parametrize(("retries", "retry_for_s", "n_asked"), [(0, 60, 1), (3, 60, 4), (10, 0, 1), (100, 1.5, 3)])
def test_tries_and_pauses_are_bounded(world, monkeypatch, retries, retry_for_s, n_asked):
    monkeypatch.setattr(retry.random, "uniform", lambda low, high: high)
    gone = world(retries=retries, retry_for_s=retry_for_s)
    with pytest.raises(ServerUnavailable) as caught:
        gone.ask(*[GONE] * 200)
    assert caught.value is GONE
    assert len(gone.limits_s) == n_asked
    assert sum(gone.pauses) <= retry_for_s


def test_all_tries_together_keep_the_time_out(world):
    """Each gets what is left, and none begins after it."""
    gone = world(retries=1000, retry_for_s=1000, work_s=7)
    with pytest.raises(ServerUnavailable):
        gone.ask(*[GONE] * 200, timeout_s=50)
    assert gone.now_s <= 50 + 7
    assert gone.limits_s[0] == 50
    assert gone.limits_s == sorted(gone.limits_s, reverse=True)
    assert gone.limits_s[-1] > 0


@pytest.mark.parametrize("wrong", [{"retries": -1}, {"retry_for_s": -1}, {"retry_for_s": float("nan")}])
def test_bounds_are_not_negative(wrong):
    with pytest.raises(ValueError, match="0 or more"):
        Client(**wrong)


def fail_at_first(triton, failures):
    """The fake server raises the failures, one a request, and then answers; gives what is set once they are used up."""
    usual, is_over = triton.infer, threading.Event()

    def infer(self, *arguments, **options):
        answer = usual(self, *arguments, **options)
        if not failures:
            return answer
        failure = failures.pop(0)
        if not failures:
            is_over.set()
        raise failure

    triton.infer = infer
    return is_over


@pytest.mark.parametrize("failure", [UNAVAILABLE, DIED, InferenceServerException("Exceeds maximum queue size", "503")])
@pytest.mark.parametrize("progress", [None, lambda *told: None])
@pytest.mark.parametrize("url", ["grpc://localhost:1", "http://localhost:1"])
def test_segment_comes_through_a_restart(triton, volume, affine, url, progress, failure):
    fail_at_first(triton, [failure, failure])
    with Client(url) as client:
        assert client.segment(volume, "liver", affine=affine, progress=progress).mask("liver").any()
    assert len(triton.requests) == 3


def test_segment_image_comes_through_a_restart_and_a_mistake_is_sent_once(triton):
    picture = np.full((4, 4, 3), 255, np.uint8)
    fail_at_first(triton, [UNAVAILABLE])
    with Client() as client:
        assert client.segment_image(picture, "left lung").mask("left lung").any()
        assert len(triton.requests) == 2
        with pytest.raises(InvalidRequest):
            client.segment_image(picture, "refused")
    assert len(triton.requests) == 3


def test_health_tells_at_once(triton):
    fail_at_first(triton, [UNAVAILABLE] * 9)
    with Client() as client:
        assert "Socket closed" in client.health(canary=True).problem
    assert len(triton.requests) == 2  # one a model


def test_closing_the_client_ends_a_wait(triton, volume, affine, monkeypatch):
    monkeypatch.setattr(repeat, "pauses", lambda: iter([1e5]))
    has_failed = fail_at_first(triton, [UNAVAILABLE])
    client, raised = Client(timeout_s=1e6, retry_for_s=1e6), []

    def ask():
        with pytest.raises(ServerUnavailable) as caught:
            client.segment(volume, "liver", affine=affine)
        raised.append(caught.value)

    thread = threading.Thread(target=ask)
    thread.start()
    assert has_failed.wait(30)
    client.close()
    thread.join(30)
    assert len(raised) == 1
