"""How much is taken, and how long it may take to come."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers.gateway import PATIENCE_S, FakeModels, drip, memory_bytes, running_gateway
from medimageparse_gateway.errors import TritonError

LIMIT = 2**20
FORM = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
HEADERS = {"content-type": "multipart/form-data; boundary=b"}
HEAD = b"POST /v1/volumes HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=b\r\n"


def form_of(n_bytes):
    """A form of so many bytes in all."""
    end = b'\r\n--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\nliver\r\n--b--\r\n'
    return FORM + bytes(n_bytes - len(FORM) - len(end)) + end


def in_chunks(body, size=2**16):
    """Makes the client send it without a length."""
    for start in range(0, len(body), size):
        yield body[start : start + size]


REFUSING = TritonError("invalid_argument", "send another")


@pytest.fixture(scope="module")
def small():
    with running_gateway(FakeModels(error=REFUSING), max_body_bytes=LIMIT) as gateway:
        yield gateway


@pytest.mark.parametrize("wrap", [bytes, in_chunks])
@pytest.mark.parametrize(("n_bytes", "status"), [(LIMIT, 400), (LIMIT + 1, 413), (16 * LIMIT, 413)])
def test_a_body_over_the_limit_is_413_and_one_at_it_is_read(small, wrap, n_bytes, status):
    answer = small.http.post("/v1/volumes", content=wrap(form_of(n_bytes)), headers=HEADERS)
    assert answer.status_code == status
    assert answer.json()["message"]


def test_memory_does_not_grow_by_a_body_that_is_refused(small):
    body = form_of(64 * LIMIT)
    small.http.post("/v1/volumes", content=body, headers=HEADERS)
    before = memory_bytes()
    for wrap in (bytes, in_chunks):
        assert small.http.post("/v1/volumes", content=wrap(body), headers=HEADERS).status_code == 413
    assert memory_bytes() - before < 16 * LIMIT


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, identity", "nonsense"])
def test_a_compressed_body_is_refused_unread(small, encoding):
    answer = small.http.post("/v1/volumes", content=b"\x1f\x8b", headers={**HEADERS, "content-encoding": encoding})
    assert answer.status_code == 415
    assert "Content-Encoding" in answer.json()["message"]


@pytest.mark.parametrize("wrap", [bytes, in_chunks])
def test_all_bodies_together_are_bounded(wrap, volume_file):
    models = FakeModels(is_held=True)
    form = {"files": {"image": volume_file}, "data": {"prompt": ["liver"]}}
    with running_gateway(models, max_held_bytes=LIMIT) as gateway, ThreadPoolExecutor(1) as pool:
        first = pool.submit(gateway.http.post, "/v1/volumes", **form)
        assert models.began.wait(PATIENCE_S)
        full = gateway.http.post("/v1/volumes", content=wrap(form_of(LIMIT)), headers=HEADERS)
        models.release()
        assert first.result().status_code == 200
        models.error = REFUSING
        assert gateway.http.post("/v1/volumes", content=wrap(form_of(LIMIT)), headers=HEADERS).status_code == 400
        metrics = gateway.http.get("/metrics").text
    assert (full.status_code, full.headers["retry-after"]) == (429, "1")
    assert "medimageparse_gateway_held_bytes 0.0" in metrics
    assert 'refusals_total{reason="held_bytes",route="/v1/volumes"} 1.0' in metrics


@pytest.mark.parametrize(
    "times",
    [{"pause_timeout_s": 0.1}, {"body_timeout_s": 0.1}],
    ids=["nothing comes for too long", "it takes too long in all"],
)
@pytest.mark.parametrize("head", [b"Content-Length: 1000\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_a_body_that_comes_too_slowly_is_408_and_its_connection_ends(times, head):
    with running_gateway(**times) as gateway, gateway.connect() as connection:
        connection.sendall(HEAD + head + b"\r\n")
        answer = b"".join(iter(lambda: connection.recv(2**16), b""))
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"too slowly" in answer


def test_a_body_that_drips_is_ended_too():
    with running_gateway(pause_timeout_s=PATIENCE_S, body_timeout_s=0.3) as gateway, gateway.connect() as connection:
        connection.sendall(HEAD + b"Content-Length: 100000000\r\n\r\n" + FORM)
        drip(connection, b"x")
        assert "slow_body" in gateway.get("/metrics").text


def test_nothing_is_sent_to_a_caller_who_expects_to_go_on_with_too_much(small):
    with small.connect() as connection:
        connection.sendall(
            b"POST /v1/volumes HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 99999999\r\n\r\n"
        )
        assert connection.recv(2**16).startswith(b"HTTP/1.1 413 ")
