"""The probe port: few connections, each for a short time, and right answers beside any number of bad ones."""

import os
import socket
import threading
import urllib.request

import pytest
from medimageparse_serving.launch import probes
from medimageparse_serving.launch.probes import MAX_CONNECTIONS, ProbeServer


@pytest.fixture
def server():
    server = ProbeServer("127.0.0.1", 0, lambda: {"/ready": (True, "ready")}, lambda: "a_metric 1\n")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def connect(server):
    return socket.create_connection(("127.0.0.1", server.server_port), timeout=30)


def ask(server):
    with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/ready", timeout=30) as answer:
        return answer.status


def test_many_idle_connections_take_few_descriptors_and_a_probe_is_answered(server):
    before = len(os.listdir("/proc/self/fd"))
    ours = []
    try:
        for _ in range(5):
            ours += [connect(server) for _ in range(2 * MAX_CONNECTIONS)]
            assert ask(server) == 200  # none is left in the queue, where one too many would come back a second later
        for connection in ours:
            connection.sendall(b"G")
        assert [ask(server) for _ in range(20)] == [200] * 20
        assert len(server.connections) <= MAX_CONNECTIONS
        of_both_ends = len(os.listdir("/proc/self/fd"))
        assert of_both_ends - len(ours) - before < 3 * MAX_CONNECTIONS
    except ConnectionError:
        pytest.fail("the newest connections are not those that make room")
    finally:
        for connection in ours:
            connection.close()


def test_a_request_that_comes_byte_by_byte_is_ended_at_its_deadline(server, monkeypatch):
    monkeypatch.setattr(probes, "DEADLINE_S", 0.2)
    with connect(server) as connection:
        connection.settimeout(0.05)
        ended = False
        while not ended:
            try:
                connection.sendall(b"G")
                ended = connection.recv(1) == b""
            except TimeoutError:
                continue
            except ConnectionError:
                ended = True
    assert ask(server) == 200


@pytest.mark.parametrize(
    "words", [b"\r\n\r\n", b"GET\r\n\r\n", b"GET /" + b"a" * 70_000, b"\x16\x03\x01" * 99, b"POST / HTTP/1.1\r\n\r\n"]
)
def test_what_is_no_probe_says_nothing_and_disturbs_nothing(server, words, capsys):
    with connect(server) as connection:
        connection.sendall(words)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(100)
    assert ask(server) == 200
    assert capsys.readouterr() == ("", "")
