"""Keys, rates, and how many requests at once."""

import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers.gateway import PATIENCE_S, FakeModels, running_gateway
from medimageparse_gateway import doors
from medimageparse_gateway.settings import Key

KEYS = {"radiology": "key-of-radiology", "pathology": "key-of-pathology"}


def keys(**limits):
    return tuple(Key(name, hashlib.sha256(key.encode()).hexdigest(), **limits) for name, key in KEYS.items())


@pytest.fixture(scope="module")
def locked():
    with running_gateway(keys=keys()) as gateway:
        yield gateway


@pytest.mark.parametrize("key", KEYS.values())
@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_every_configured_key_opens(locked, key, scheme):
    assert locked.http.get("/v1/models", headers={"authorization": f"{scheme} {key}"}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("authorization", "")],
        [("authorization", "Bearer")],
        [("authorization", "Bearer wrong")],
        [("authorization", "Bearer KEY-OF-RADIOLOGY")],
        [("authorization", "Basic key-of-radiology")],
        [("authorization", "key-of-radiology")],
        [("authorization", "Bearer key-of-radiology key-of-radiology")],
        [("authorization", "Bearer key-of-radiology"), ("authorization", "Bearer key-of-radiology")],
        [("authorization", b"Bearer \xff\xfe")],
        [("api-key", "key-of-radiology")],
    ],
)
@pytest.mark.parametrize("path", ["/v1/models", "/v1/volumes", "/score", "/nothing", "//v1/models"])
def test_without_a_key_nothing_is_told(locked, path, headers):
    answer = locked.http.get(path, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "key_auth_access_denied" in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/", "/ready", "/metrics"])
def test_what_a_probe_asks_needs_no_key_on_this_machine(locked, path):
    assert locked.http.get(path).status_code == 200


def test_metrics_need_a_key_from_elsewhere(locked, monkeypatch):
    monkeypatch.setattr(doors, "LOOPBACK", ())  # this machine counts as another
    assert locked.http.get("/metrics").status_code == 401
    headers = {"authorization": "Bearer key-of-radiology"}
    assert locked.http.get("/metrics", headers=headers).status_code == 200


@pytest.mark.parametrize("header", ["Forwarded", "X-Forwarded-For", "X-Real-IP", "Via"])
def test_metrics_need_a_key_through_a_proxy_on_this_machine(locked, header):
    assert locked.http.get("/metrics", headers={header: "127.0.0.1"}).status_code == 401


def test_a_large_body_with_a_wrong_key_is_refused_without_a_reset(locked):
    body = bytes(2**26)
    answer = locked.http.post("/v1/volumes", content=body, headers={"authorization": "Bearer wrong"})
    assert answer.status_code == 401


def bearer(name):
    return {"authorization": f"Bearer {KEYS[name]}"}


@pytest.mark.parametrize(
    ("settings", "other_status"),
    [({"keys": keys(requests_at_once=1)}, 200), ({"keys": keys(), "requests_at_once": 1}, 429)],
)
def test_beyond_its_requests_at_once_a_key_waits(picture_file, settings, other_status):
    models = FakeModels(is_held=True)
    form = {"files": {"image": picture_file}, "data": {"prompt": ["lung"]}}
    with running_gateway(models, **settings) as gateway, ThreadPoolExecutor(1) as pool:
        first = pool.submit(gateway.http.post, "/v1/images", headers=bearer("radiology"), **form)
        assert models.began.wait(PATIENCE_S)
        second = gateway.http.get("/v1/models", headers=bearer("radiology"))
        other = gateway.http.get("/v1/models", headers=bearer("pathology"))
        models.release()
        assert first.result().status_code == 200
        assert gateway.http.get("/v1/models", headers=bearer("radiology")).status_code == 200
    assert (second.status_code, other.status_code) == (429, other_status)
    assert second.headers["retry-after"] == "1"


def test_what_needs_no_key_is_answered_when_all_places_are_taken(picture_file):
    models = FakeModels(is_held=True)
    form = {"files": {"image": picture_file}, "data": {"prompt": ["lung"]}}
    with running_gateway(models, requests_at_once=1) as gateway, ThreadPoolExecutor(1) as pool:
        first = pool.submit(gateway.http.post, "/v1/images", **form)
        assert models.began.wait(PATIENCE_S)
        assert gateway.http.get("/").status_code == gateway.http.get("/ready").status_code == 200
        models.release()
        assert first.result().status_code == 200
