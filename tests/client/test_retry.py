"""A server that is away for a while, on a clock that only waiting moves."""

import threading
from types import SimpleNamespace

import pytest
from medimageparse_client import (
    AccessDenied,
    InvalidRequest,
    InvalidVolume,
    RequestTimeout,
    ServerBusy,
    ServerError,
    ServerUnavailable,
    retry,
)

GONE = ServerUnavailable("the server is not available")


class World:
    """A server that is back after `back_s` on its clock, and requests that fail as told and then succeed."""

    def __init__(self, limit_s=120, back_s=0):
        self.now_s, self.back_s = 0, back_s
        self.pauses, self.told, self.n_asked = [], [], 0
        self.retry = retry.Retry(limit_s, is_back=lambda: self.now_s >= self.back_s, tell=self.told.append)
        self.retry._stopped = SimpleNamespace(is_set=lambda: False, wait=self.wait)

    def wait(self, pause_s):
        self.pauses.append(pause_s)
        self.now_s += pause_s
        return False

    def ask(self, *failures):
        failures = list(failures)

        def request():
            self.n_asked += 1
            if failures:
                raise failures.pop(0)
            return "answer"

        return self.retry.ask(request)


@pytest.fixture
def world(monkeypatch):
    def make(**options):
        world = World(**options)
        monkeypatch.setattr(retry, "time", SimpleNamespace(monotonic=lambda: world.now_s))
        return world

    return make


def test_a_server_that_restarts_is_asked_again_once_it_is_back(world):
    restarting = world(back_s=30)
    assert restarting.ask(GONE) == "answer"
    assert restarting.n_asked == 2
    assert restarting.now_s >= 30
    assert restarting.told == ["the server is not available; trying again for up to 120 s"]
    assert restarting.retry.final is None


def test_a_server_that_is_back_at_once_is_not_told_of(world):
    blink = world()
    assert blink.ask(GONE) == "answer"
    assert blink.told == []


def test_pauses_double_up_to_a_bound_and_differ_between_clients(world):
    first, second = (world(back_s=100) for _ in range(2))
    first.ask(GONE)
    pauses = first.pauses
    bounds = [min(retry.FIRST_PAUSE_S * 2**k, retry.LONGEST_PAUSE_S) for k in range(len(pauses))]
    assert all(bound / 2 <= pause <= bound for pause, bound in zip(pauses, bounds, strict=True))
    assert max(pauses) > retry.LONGEST_PAUSE_S / 2
    second.ask(GONE)
    assert second.pauses != pauses


@pytest.mark.parametrize(
    "error",
    [
        InvalidRequest("the prompt is bad"),
        InvalidVolume("this is not a NIfTI file"),
        RequestTimeout("no answer"),
        ServerError("boom"),
        OSError("no such file"),
        ValueError("a fault"),
    ],
)
def test_what_would_only_fail_again_is_asked_once_and_ends_nothing(world, error):
    server = world()
    with pytest.raises(type(error)) as caught:
        server.ask(error)
    assert caught.value is error
    assert (server.n_asked, server.pauses) == (1, [])
    assert server.ask() == "answer"


def test_who_is_not_let_in_is_not_asked_again_nor_is_anybody_else(world):
    server = world()
    with pytest.raises(AccessDenied):
        server.ask(AccessDenied("no key"))
    with pytest.raises(AccessDenied):
        server.ask()
    assert (server.n_asked, server.pauses) == (1, [])


def test_a_failure_of_a_server_that_segments_nothing_any_more_is_tried_again(world):
    broken = world(back_s=20)
    assert broken.ask(ServerError("a step failed")) == "answer"
    assert broken.now_s >= 20


def test_after_the_limit_the_run_ends_for_all(world):
    gone = world(limit_s=10, back_s=1e9)
    with pytest.raises(ServerUnavailable, match="not available; that has lasted 10 s"):
        gone.ask(GONE)
    assert gone.now_s == pytest.approx(10)
    with pytest.raises(ServerUnavailable) as caught:
        gone.ask()
    assert caught.value is gone.retry.final
    assert gone.n_asked == 1


def test_without_patience_the_first_failure_ends_the_run(world):
    gone = world(limit_s=0)
    with pytest.raises(ServerUnavailable):
        gone.ask(GONE)
    assert gone.retry.final is GONE
    assert (gone.n_asked, gone.pauses) == (1, [])


def test_without_patience_the_server_is_not_even_checked_after_a_failure(world):
    broken = world(limit_s=0, back_s=1e9)
    with pytest.raises(ServerError, match="boom"):
        broken.ask(ServerError("boom"))
    assert broken.retry.final is None


def test_a_request_that_brings_the_server_down_is_given_up_and_the_others_go_on(world):
    server = world()
    with pytest.raises(ServerUnavailable, match="that happened 3 times while nothing else was sent"):
        server.ask(*[ServerUnavailable("socket closed")] * 9)
    assert server.n_asked == 1 + retry.MAX_BREAKS
    assert server.retry.final is None
    assert server.ask() == "answer"


def test_a_full_queue_is_asked_more_and_more_seldom_until_the_limit(world):
    server = world(limit_s=60)
    assert server.ask(*[ServerBusy("its queue is full")] * 6) == "answer"
    assert server.pauses[-1] > 4 * server.pauses[0]
    with pytest.raises(ServerUnavailable, match="queue is full; that has lasted 60 s"):
        world(limit_s=60, back_s=1e9).ask(ServerBusy("its queue is full"))


def test_several_threads_wait_together_and_come_back_one_by_one():
    """One of them checks the server, the others send nothing; nor do they while the first is asked again."""
    all_failed, n_threads = threading.Barrier(3, timeout=30), 3
    checks, answers, was_alone = [], [], []

    def is_back():
        checks.append(threading.get_ident())
        return len(checks) > 3

    def run():
        failures = [GONE]

        def request():
            if failures:
                all_failed.wait()
                raise failures.pop()
            was_alone.append(patience._trouble.locked())
            return "answer"

        answers.append(patience.ask(request))

    patience = retry.Retry(120, is_back, tell=lambda sentence: None)
    patience._stopped = SimpleNamespace(is_set=lambda: False, wait=lambda pause_s: False)
    threads = [threading.Thread(target=run) for _ in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert answers == ["answer"] * n_threads
    assert was_alone == [True] * n_threads
    assert len(set(checks[:4])) == 1
    assert len(checks) == 4 + n_threads - 1


def test_stopping_ends_a_wait_at_once(monkeypatch):
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 1e5)
    monkeypatch.setattr(retry, "LONGEST_PAUSE_S", 1e5)
    patience = retry.Retry(1e6, is_back=lambda: True, tell=lambda sentence: None)
    raised = []

    def request():
        raise GONE

    def run():
        with pytest.raises(ServerUnavailable) as caught:
            patience.ask(request)
        raised.append(caught.value)

    thread = threading.Thread(target=run)
    thread.start()
    patience.stop()
    thread.join(timeout=30)
    assert len(raised) == 1
    with pytest.raises(ServerUnavailable, match="the run was stopped"):
        patience.ask(lambda: "answer")
