"""Which server a case is asked at: room, outages, cases that bring servers down."""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from medimageparse_client.cohort import servers
from medimageparse_client.cohort.servers import LOST_IN_COMPANY, Servers
from medimageparse_client.cohort.window import Window
from medimageparse_client.errors import (
    AccessDenied,
    InvalidRequest,
    OddAnswer,
    ServerBusy,
    ServerError,
    ServerUnavailable,
)
from medimageparse_client.retry import MAX_BREAKS


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr(servers, "pauses", lambda: itertools.repeat(1e-3))


def pool(*urls, most=4, limit_s=60.0, segments=lambda url: True):
    told = []
    made = Servers(urls or ("a",), most, limit_s, segments, told.append)
    made.told = told
    return made


def test_a_window_doubles_then_grows_by_one_a_round_and_halves_once_for_each_full_queue():
    window, sizes = Window(16), []
    for _ in range(6):
        window.answered(was_full=True)
        sizes.append(window.size)
    assert sizes == [3, 4, 5, 6, 7, 8]  # one for each answer: twice as many after a round
    window.refused(begun_s=1e12)
    assert window.size == 4
    window.refused(begun_s=0.0)  # was under way at that time
    assert window.size == 4
    for _ in range(5):
        window.answered(was_full=True)
    assert window.size == 5
    for _ in range(1000):
        window.answered(was_full=True)
    assert window.size == 16
    for _ in range(10):
        window.refused(begun_s=1e12)
    assert window.size == 1


def test_a_window_that_is_not_used_up_does_not_grow():
    window = Window(16)
    for _ in range(20):
        window.answered(was_full=False)
    assert window.size == 2


def test_there_are_never_more_requests_than_a_queue_holds_for_long_and_all_are_answered():
    room, n_refused, lock, under_way = 3, [], threading.Lock(), []
    asked = pool(most=32)

    def request(url):
        with lock:
            if len(under_way) >= room:
                n_refused.append(url)
                raise ServerBusy("full")
            under_way.append(url)
        threading.Event().wait(0.002)
        with lock:
            under_way.pop()
        return url

    with ThreadPoolExecutor(32) as threads:
        answers = list(threads.map(lambda _: asked.ask(request), range(200)))
    assert answers == ["a"] * 200
    assert n_refused
    assert asked.servers[0].window.size < 12


def test_work_goes_to_the_server_that_has_room():
    asked, busy, seen = pool("a", "b", most=1), threading.Event(), []

    def request(url):
        seen.append(url)
        if len(seen) == 1:
            busy.wait(10)
        return url

    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(asked.ask, request)
        while not seen:
            pass
        assert {asked.ask(request) for _ in range(5)} == {"b"}
        busy.set()
        assert first.result() == "a"


def test_a_server_that_is_gone_is_left_alone_until_it_answers_a_canary():
    well, probes = {"a": False, "b": True}, []

    def segments(url):
        probes.append(url)
        return well[url]

    asked = pool("a", "b", segments=segments)

    def request(url):
        if not well[url]:
            raise ServerUnavailable(f"the server at {url} is not available: refused")
        return url

    assert {asked.ask(request) for _ in range(6)} == {"b"}
    assert set(probes) <= {"a"}
    well.update(a=True, b=False)
    assert {asked.ask(request) for _ in range(6)} == {"a"}
    assert any("trying again for up to 60 s" in line for line in asked.told)
    assert "the server at a answers again" in asked.told


def test_all_servers_away_for_long_end_the_run_for_everybody():
    asked = pool("a", "b", limit_s=0.05, segments=lambda url: False)

    def request(url):
        raise ServerUnavailable("gone")

    for _ in range(2):
        with pytest.raises(ServerUnavailable, match=r"not available; that has lasted 0\.05 s"):
            asked.ask(request)
    assert asked.final


def test_zero_seconds_never_wait():
    asked = pool(limit_s=0.0, segments=lambda url: pytest.fail("nobody waits"))
    with pytest.raises(ServerUnavailable, match="gone; that has lasted 0 s"):
        asked.ask(lambda url: (_ for _ in ()).throw(ServerUnavailable("gone")))


@pytest.mark.parametrize("error", [InvalidRequest("send another"), OddAnswer("odd"), ServerError("failed")])
def test_what_would_fail_again_is_not_asked_again(error):
    asked, tries = pool(), []

    def request(url):
        tries.append(url)
        raise error

    with pytest.raises(type(error)):
        asked.ask(request)
    assert tries == ["a"]
    assert asked.final is None


def test_a_failure_of_a_server_that_is_ill_is_asked_again():
    health = iter([False, False, True])
    asked, tries = pool(segments=lambda url: next(health)), []

    def request(url):
        tries.append(url)
        if len(tries) == 1:
            raise ServerError("decode_volume failed")
        return url

    assert asked.ask(request) == "a"


def test_who_is_denied_ends_the_run():
    asked = pool()
    with pytest.raises(AccessDenied):
        asked.ask(lambda url: (_ for _ in ()).throw(AccessDenied("no key")))
    with pytest.raises(AccessDenied):
        asked.ask(lambda url: url)


def test_a_case_that_brings_servers_down_fails_alone_and_the_others_are_answered():
    asked, together, lock, under_way = pool(most=8), [], threading.Lock(), set()

    def request(name, url):
        with lock:
            under_way.add(name)
        try:
            threading.Event().wait(0.002)
            if name == "poison":
                with lock:
                    together.append(len(under_way))
                raise ServerUnavailable("one of its processes has died")
            return name
        finally:
            with lock:
                under_way.discard(name)

    names = ["poison" if k == 20 else str(k) for k in range(60)]
    with ThreadPoolExecutor(8) as threads:
        answers = [threads.submit(asked.ask, lambda url, name=name: request(name, url)) for name in names]
    for name, answer in zip(names, answers, strict=True):
        if name != "poison":
            assert answer.result() == name
    with pytest.raises(ServerError, match=f"a server failed {MAX_BREAKS} times while it had nothing else"):
        answers[20].result()
    assert together[LOST_IN_COMPANY:] == [1] * MAX_BREAKS
    assert asked.servers[0].claim is None


def test_who_stops_ends_every_wait():
    asked = pool(limit_s=1e6, segments=lambda url: False)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(asked.ask, lambda url: (_ for _ in ()).throw(ServerUnavailable("gone")))
        while not asked.told:
            pass
        asked.stop()
        with pytest.raises(ServerUnavailable, match="stopped"):
            waiting.result(timeout=60)
