"""The client's gRPC connection: pings, and which proxies are asked."""

import contextlib
import socket
import ssl
import threading

import pytest
from helpers.certificates import make_certificates
from helpers.http2 import ACKNOWLEDGED, PING, SETTINGS, Frames, PingCount, frame
from medimageparse_client import Client, servers
from medimageparse_client.proxies import proxy_variable
from medimageparse_client.urls import is_this_machine

SECRET = "kestrel-5502"
VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy", "no_grpc_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "url",
    [
        *("localhost:1", "LocalHost:1", "127.0.0.1:1", "127.9.8.7:1", "[::1]:1", "[0:0:0:0:0:0:0:1]:1"),
        *("0.0.0.0:1", "[::]:1", "[::ffff:127.0.0.1]:1"),
    ],
)
def test_this_machine_is_known(url, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://proxy:1")
    assert is_this_machine(url)
    assert proxy_variable(url) == ""
    assert dict(servers.channel_options(url))["grpc.enable_http_proxy"] == 0


@pytest.mark.parametrize(
    "url", ["hospital:1", "10.0.0.7:1", "128.0.0.1:1", "localhost.hospital:1", "127.0.0.1.hospital:1", "[fd00::1]:1"]
)
def test_other_machines_are_known(url):
    assert not is_this_machine(url)
    assert dict(servers.channel_options(url))["grpc.enable_http_proxy"] == 1


@pytest.mark.parametrize(
    ("environment", "asked"),
    [
        ({}, ""),
        ({"http_proxy": "http://p:1"}, "http_proxy"),
        ({"HTTP_PROXY": "http://p:1", "all_proxy": "http://p:1"}, ""),  # gRPC does not read them
        ({"https_proxy": "http://p:1", "http_proxy": "http://p:2"}, "https_proxy"),
        ({"grpc_proxy": "http://p:1", "https_proxy": "http://p:2"}, "grpc_proxy"),
        ({"https_proxy": "", "http_proxy": "http://p:2"}, ""),
        ({"http_proxy": "http://p:1", "no_proxy": "ct.hospital.org"}, ""),
        ({"http_proxy": "http://p:1", "no_proxy": "localhost, .hospital.org"}, ""),
        ({"http_proxy": "http://p:1", "no_proxy": ".clinic.org,"}, "http_proxy"),
        ({"http_proxy": "http://p:1", "no_proxy": "ct.hospital.org", "no_grpc_proxy": "x.org"}, "http_proxy"),
    ],
)
def test_the_proxy_that_grpc_asks_is_known(monkeypatch, environment, asked):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert proxy_variable("ct.hospital.org:8001") == asked


def test_networks_may_be_left_out(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://p:1")
    monkeypatch.setenv("no_proxy", "10.0.0.0/8")
    assert proxy_variable("10.1.2.3:8001") == ""
    assert proxy_variable("11.1.2.3:8001") == "http_proxy"


@contextlib.contextmanager
def listening(answer):
    """An address where each connection is given to `answer`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection, contextlib.suppress(OSError):
                        answer(connection)

        threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def proxy(monkeypatch):
    """What a proxy that lets nobody through was asked for."""
    asked = []

    def refuse(connection):
        asked.append(connection.recv(4096).split(b"\r\n")[0].decode())
        connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    with listening(refuse) as address:
        for name in ("http_proxy", "https_proxy", "grpc_proxy"):
            monkeypatch.setenv(name, f"http://user:{SECRET}@{address}")
        yield asked, address


@pytest.mark.parametrize("scheme", ["grpc", "grpcs", "http", "https"])
def test_a_server_on_this_machine_is_asked_past_proxies(proxy, scheme):
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    for host in ("localhost", "127.0.0.1"):
        with Client(f"{scheme}://{host}:{port}", timeout_s=20) as client:
            problem = client.health().problem
        assert "not available" in problem
        assert "proxy" not in problem
    assert proxy[0] == []


@pytest.mark.parametrize("scheme", ["grpc", "grpcs"])
def test_an_unreachable_server_behind_a_proxy_is_called_that(proxy, scheme):
    asked, address = proxy
    with Client(f"{scheme}://ct.hospital.invalid:8001", timeout_s=20) as client:
        problem = client.health().problem
    assert asked[0] == "CONNECT ct.hospital.invalid:8001 HTTP/1.1"
    assert problem == (
        "the server at ct.hospital.invalid:8001 is not available: a proxy answered with HTTP 403; "
        "grpc_proxy is set, so its proxy was asked; no_proxy=ct.hospital.invalid goes past it"
    )
    assert SECRET not in problem
    assert address not in problem


def test_without_proxies_none_is_named():
    with Client("ct.hospital.invalid:8001", timeout_s=20) as client:
        assert "proxy" not in client.health().problem


@pytest.mark.parametrize("scheme", ["grpc", "grpcs"])
def test_the_client_pings_as_long_as_it_waits(scheme, monkeypatch, tmp_path):
    """More often than gRPC does of itself without data: twice."""
    monkeypatch.setattr(servers, "PING_EVERY", 1)  # gRPC makes a second of it
    certificates = make_certificates(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    tls.set_alpn_protocols(["h2"])
    pings = PingCount()

    def count(accepted):
        frames = Frames()
        with tls.wrap_socket(accepted, server_side=True) if scheme == "grpcs" else accepted as stream:
            stream.sendall(frame(SETTINGS))
            while data := stream.recv(2**16):
                for kind, flags, content in frames.feed(data):
                    if kind in (PING, SETTINGS) and not flags & ACKNOWLEDGED:
                        stream.sendall(frame(kind, ACKNOWLEDGED, content if kind == PING else b""))
                        if kind == PING:
                            pings.add()

    with listening(count) as address:
        url = f"{scheme}://localhost:{address.rpartition(':')[2]}"
        ca = {"ca": certificates / "ca.pem"} if scheme == "grpcs" else {}
        client = Client(url, timeout_s=60, **ca)
        waiting = threading.Thread(target=client.health)
        waiting.start()
        try:
            assert pings.has_grown_by(3, 60)
        finally:
            client.close()  # which ends the call
            waiting.join()
