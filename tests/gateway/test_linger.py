"""Who sends a large body and is refused by its head gets the answer, and not a reset."""

import hashlib
import http.client
import json

import pytest
from helpers.gateway import running_gateway
from medimageparse_gateway import linger
from medimageparse_gateway.settings import Key

LARGE = bytes(32 * 2**20)


@pytest.fixture(scope="module")
def locked():
    keys = (Key("radiology", hashlib.sha256(b"key").hexdigest()),)
    with running_gateway(keys=keys, max_body_bytes=2**20) as gateway:
        yield gateway


def answer_of(gateway, body, path="/score", **headers):
    """What a caller gets who sends all before it reads, and closes afterwards."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=60)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("POST", path, body, {"Connection": "close", **named})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())["message"]
    finally:
        connection.close()


@pytest.mark.parametrize("path", ["/score", "/v1/volumes", "/nowhere"])
def test_without_a_key_a_large_body_is_answered(locked, path):
    for body in (LARGE, iter([LARGE[: 2**20]] * 32)):
        status, sentence = answer_of(locked, body, path)
        assert (status, sentence[:22]) == (401, "key_auth_access_denied")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content_type": "application/json"}, 413),
        ({"content_type": "application/json", "content_encoding": "gzip"}, 415),
        ({}, 413),
    ],
)
def test_whatever_the_refusal_it_is_answered(locked, headers, status):
    assert answer_of(locked, LARGE, authorization="Bearer key", **headers)[0] == status
    assert answer_of(locked, iter([LARGE[: 2**20]] * 32), authorization="Bearer key", **headers)[0] in (status, 415)


def test_a_caller_who_never_ends_is_answered_and_let_go(locked, monkeypatch):
    monkeypatch.setattr(linger, "LINGER_S", 0.1)
    with locked.connect() as caller:
        caller.sendall(b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\nConnection: close\r\n\r\n{")
        received = b""
        while piece := caller.recv(2**16):
            received += piece
    assert received.startswith(b"HTTP/1.1 401 ")
    assert received.endswith(b"}")


def test_who_asks_for_leave_gets_the_answer_in_its_place(locked):
    with locked.connect() as caller:
        head = b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n"
        caller.sendall(head + b"Connection: close\r\n\r\n")
        received = b""
        while piece := caller.recv(2**16):
            received += piece
    assert received.startswith(b"HTTP/1.1 401 ")


def test_the_next_request_on_the_connection_is_answered(locked):
    connection = http.client.HTTPConnection("127.0.0.1", locked.port, timeout=60)
    for _ in range(3):
        connection.request("POST", "/score", LARGE)
        answer = connection.getresponse()
        assert (answer.status, bool(answer.read())) == (401, True)
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"Healthy"
    connection.close()
