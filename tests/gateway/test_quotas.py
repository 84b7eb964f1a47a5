"""How much a key may send: by a clock that the test sets, with callers side by side."""

import hashlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed

import pytest
from helpers.gateway import PATIENCE_S, FakeModels, running_gateway
from medimageparse_gateway.errors import HttpError
from medimageparse_gateway.quotas import Quota
from medimageparse_gateway.settings import Key
from prometheus_client.parser import text_string_to_metric_families

KEYS = {"radiology": "key-of-radiology-5120", "pathology": "key-of-pathology-7731"}
PREFIX = "medimageparse_gateway_caller_"


def keys(**limits):
    return tuple(Key(name, hashlib.sha256(key.encode()).hexdigest(), **limits) for name, key in KEYS.items())


def bearer(name):
    return {"authorization": f"Bearer {KEYS[name]}"}


class Clock:
    """Stands still until the test moves it."""

    now_s = 1000.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def quota(clock):
    return Quota(Key("radiology", "0" * 64, requests_per_minute=6), clock)


def n_let_in(quota, n_tries):
    return sum(is_let_in(quota) for _ in range(n_tries))


def is_let_in(quota):
    try:
        quota.count()
    except HttpError:
        return False
    return True


@pytest.mark.parametrize(("waited_s", "n_more"), [(0, 0), (9.9, 0), (10, 1), (25, 2), (59, 5), (60, 6), (1e6, 6)])
def test_a_minutes_requests_come_back_with_the_minute(quota, clock, waited_s, n_more):
    assert n_let_in(quota, 20) == 6
    clock.now_s += waited_s
    assert n_let_in(quota, 20) == n_more


@pytest.mark.parametrize("waited_s", [0, 1, 4, 9.5])
def test_who_waits_as_told_is_let_in(quota, clock, waited_s):
    n_let_in(quota, 6)
    clock.now_s += waited_s
    with pytest.raises(HttpError) as refused:
        quota.count()
    clock.now_s += int(refused.value.headers["Retry-After"])
    quota.count()


def test_who_asks_all_the_time_is_let_in_as_often_as_its_rate(quota, clock):
    n_in = 0
    for _ in range(6000):  # ten a second for ten minutes
        n_in += n_let_in(quota, 1)
        clock.now_s += 0.1
    assert n_in in (65, 66)  # a minute's at the beginning, and the last one may not be due yet


def ask(gateway, name):
    return gateway.http.get("/v1/models", headers=bearer(name))


def ask_at_once(gateway, name, n_requests):
    with ThreadPoolExecutor(n_requests) as pool:
        return list(pool.map(lambda _: ask(gateway, name), range(n_requests)))


def test_callers_side_by_side_get_their_rate_and_take_none_of_anothers(clock):
    with running_gateway(clock=clock, keys=keys(requests_per_minute=7)) as gateway:
        first = ask_at_once(gateway, "radiology", 40)
        other = ask_at_once(gateway, "pathology", 40)
        clock.now_s += 60
        later = ask_at_once(gateway, "radiology", 40)
    for answers in (first, other, later):
        assert Counter(answer.status_code for answer in answers) == {200: 7, 429: 33}
    refused = next(answer for answer in first if answer.status_code == 429)
    assert refused.headers["retry-after"] == "9"  # a seventh of a minute, rounded up
    sentence = "this key may send 7 requests a minute; try again later"
    assert refused.json() == {"message": sentence, "error": {"code": "TooManyRequests", "message": sentence}}


def test_callers_side_by_side_get_their_places_and_take_none_of_anothers(picture_file):
    models = FakeModels(is_held=True)
    form = {"files": {"image": picture_file}, "data": {"prompt": ["lung"]}}
    with running_gateway(models, keys=keys(requests_at_once=3)) as gateway, ThreadPoolExecutor(20) as pool:
        asked = [
            pool.submit(gateway.http.post, "/v1/images", headers=bearer("radiology"), **form, timeout=PATIENCE_S)
            for _ in range(20)
        ]
        refused = [done.result() for _, done in zip(range(17), as_completed(asked), strict=False)]
        assert {answer.status_code for answer in refused} == {429}
        assert refused[0].headers["retry-after"] == "1"
        assert "3 requests under way" in refused[0].json()["error"]["message"]
        assert ask(gateway, "radiology").status_code == 429
        assert ask(gateway, "pathology").status_code == 200
        assert counted(gateway)[PREFIX + "requests_under_way", ("caller", "radiology")] == 3
        models.release()
        assert Counter(future.result().status_code for future in asked) == {200: 3, 429: 17}
        assert ask(gateway, "radiology").status_code == 200


def test_a_request_that_ends_in_an_error_gives_its_place_back(volume_file):
    models = FakeModels(error=RuntimeError("any"))
    form = {"files": {"image": volume_file}, "data": {"prompt": ["liver"]}}
    with running_gateway(models, keys=keys(requests_at_once=1)) as gateway:
        for _ in range(3):
            assert gateway.http.post("/v1/volumes", headers=bearer("radiology"), **form).status_code == 500
        assert ask(gateway, "radiology").status_code == 200


def counted(gateway):
    """Prometheus's own reading: name and labels -> value."""
    families = text_string_to_metric_families(gateway.http.get("/metrics").text)
    return {(s.name, *sorted(s.labels.items())): s.value for family in families for s in family.samples}


def test_metrics_name_the_caller_and_never_the_key(clock):
    with running_gateway(clock=clock, keys=keys(requests_per_minute=2)) as gateway:
        for _ in range(5):
            ask(gateway, "radiology")
        found, text = counted(gateway), gateway.http.get("/metrics").text
    radiology, pathology = ("caller", "radiology"), ("caller", "pathology")
    assert found[PREFIX + "requests_total", radiology] == 2
    assert found[PREFIX + "refusals_total", radiology, ("reason", "rate")] == 3
    assert found[PREFIX + "refusals_total", radiology, ("reason", "at_once")] == 0
    assert found[PREFIX + "requests_total", pathology] == 0
    for name, key in KEYS.items():
        assert name in text
        assert key not in text
        assert hashlib.sha256(key.encode()).hexdigest() not in text


def test_any_number_of_unknown_keys_is_one_number():
    with running_gateway(keys=keys()) as gateway:
        told = set()
        for number in range(100):
            headers = {"authorization": f"Bearer unknown-{number}"}
            assert gateway.http.get("/v1/models", headers=headers).status_code == 401
            if number < 2 or number % 10 == 9:  # what was counted stays
                told.add(frozenset(counted(gateway)))
    assert len(told) <= 2  # /metrics counts its own asking from the second time on
