"""Connections that are slow, half open or too many; and the end."""

import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
import pytest
from helpers.fake_server import FakeAnswer
from helpers.gateway import PATIENCE_S, FakeModels, drip, running_gateway
from helpers.running_server import wait_until
from medimageparse_gateway import connections, linger

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n"


@pytest.fixture(scope="module")
def hasty():
    with pytest.MonkeyPatch.context() as patch, running_gateway(header_timeout_s=0.1, pause_timeout_s=0.5) as gateway:
        patch.setattr(connections, "LOOK_EVERY", 1)
        patch.setattr(linger, "LINGER_S", 0.1)
        yield gateway


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"G",
        REQUEST,
        REQUEST + b"X: " + b"x" * 1000,
        REQUEST + b"\r\n",
        REQUEST + b"\r\nGET / HT",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n",
        b"POST /v1/volumes HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
    ],
)
def test_a_connection_without_a_whole_request_is_closed(hasty, sent):
    with hasty.connect() as connection:
        connection.sendall(sent)
        try:
            while connection.recv(2**16):
                pass
        except ConnectionResetError:
            pass
    assert hasty.get("/").status_code == 200


def test_a_head_that_drips_is_closed(hasty):
    with hasty.connect() as connection:
        connection.sendall(REQUEST)
        drip(connection, b"X: y\r\n")
    assert hasty.get("/").status_code == 200


@pytest.mark.parametrize("path", ["/v1/volumes", "/", "/nothing"])
def test_a_body_in_crumbs_is_ended_and_not_read_to_its_end(gateway, path):
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    with gateway.connect() as connection:
        connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n3\r\n--b\r\n".encode())
        with pytest.raises(ConnectionError):
            send_forever(connection, b"1\r\nx\r\n" * 10_000)


def send_forever(connection, content):
    while True:
        connection.sendall(content)


def test_a_large_body_in_fair_pieces_is_read_to_its_end(gateway):
    body = b'--b\r\nContent-Disposition: form-data; name="image"\r\n\r\n' + bytes(2**24)
    pieces = (body[k : k + 1024] for k in range(0, len(body), 1024))
    answer = gateway.http.post(
        "/v1/volumes", content=pieces, headers={"content-type": "multipart/form-data; boundary=b"}
    )
    assert "the form is damaged" in answer.json()["message"]  # it has no end


def raw_request(gateway, volume_file, **headers):
    """The bytes of a right request for a volume."""
    form = {"files": {"image": volume_file}, "data": {"prompt": ["liver"]}}
    request = gateway.http.build_request("POST", "/v1/volumes", headers=headers, **form)
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    return f"POST /v1/volumes HTTP/1.1\r\n{head}\r\n".encode() + request.read()


class LargeModels(FakeModels):
    """Answers with 64 MiB."""

    def answer_volume(self, image, prompts):
        return FakeAnswer("", report=np.array([b" " * 2**26], np.object_))


def test_an_answer_that_nobody_takes_is_dropped(hasty, volume_file):
    hasty.app.state.triton = LargeModels()
    request = raw_request(hasty, volume_file, accept="application/json")
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**12)
        connection.settimeout(PATIENCE_S)
        connection.connect(("127.0.0.1", hasty.port))
        connection.sendall(request)
        assert connection.recv(12) == b"HTTP/1.1 200"
        connections = hasty.server.server_state.connections
        while any(c.client[1] == connection.getsockname()[1] for c in list(connections)):
            connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # reads nothing
    assert hasty.get("/").status_code == 200


def test_no_answer_waits_for_its_head_to_be_acknowledged(gateway):
    with gateway.connect() as caller:
        assert is_answered(caller)
        [connection] = [c for c in gateway.server.server_state.connections if c.client == caller.getsockname()]
        assert connection.transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def is_answered(connection):
    try:
        connection.sendall(REQUEST + b"\r\n")
        answer = b""
        while not answer.endswith(b"Healthy"):
            piece = connection.recv(2**16)
            if not piece:
                return False
            answer += piece
    except ConnectionError:
        return False
    return True


def test_connections_beyond_the_limit_are_closed_and_the_others_stay():
    with running_gateway(max_connections=3) as gateway, ExitStack() as stack:
        held = [stack.enter_context(gateway.connect()) for _ in range(3)]
        assert all(map(is_answered, held))
        with gateway.connect() as extra:
            assert not is_answered(extra)
        assert all(map(is_answered, held))


def test_connections_leave_descriptors_for_the_rest_of_the_gateway(monkeypatch):
    few = connections.SPARE_DESCRIPTORS + 3
    monkeypatch.setattr(connections.resource, "getrlimit", lambda kind: (few, few))
    with running_gateway() as gateway, ExitStack() as stack:
        held = [stack.enter_context(gateway.connect()) for _ in range(3)]
        assert all(map(is_answered, held))
        with gateway.connect() as extra:
            assert not is_answered(extra)


def takes_connections(gateway):
    try:
        gateway.connect().close()
    except ConnectionError:
        return False
    return True


def test_what_is_under_way_at_the_end_is_answered_and_nothing_else(volume_file):
    models = FakeModels(is_held=True)
    form = {"files": {"image": volume_file}, "data": {"prompt": ["liver"]}}
    with ThreadPoolExecutor(1) as pool, running_gateway(models) as gateway:
        answer = pool.submit(gateway.http.post, "/v1/volumes", **form)
        assert models.began.wait(PATIENCE_S)
        gateway.server.should_exit = True
        wait_until(lambda: not takes_connections(gateway))
        models.release()
        assert answer.result().status_code == 200


def test_a_caller_who_hangs_up_ends_the_work(before, volume_file):
    models = FakeModels(is_held=True)
    gateway = before(models)
    with gateway.connect() as connection:
        connection.sendall(raw_request(gateway, volume_file))
        assert models.began.wait(PATIENCE_S)
    assert models.cancelled.wait(PATIENCE_S)
