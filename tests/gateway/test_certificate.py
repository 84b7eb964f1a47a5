"""A renewed TLS certificate: real connections to a running gateway, whose files change."""

import logging
import shutil
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers.certificates import make_certificates
from helpers.gateway import PATIENCE_S, FakeModels, running_gateway
from helpers.running_server import wait_until
from medimageparse_gateway import connections
from medimageparse_gateway.certificate import Certificate
from medimageparse_gateway.settings import Settings

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """server.pem is the first, stranger.pem the renewed one: of another authority, so nobody mistakes it."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


class Pair:
    """The two files that a gateway is told."""

    def __init__(self, folder, certificates):
        self.certificates, self.certificate, self.key = certificates, folder / "tls.crt", folder / "tls.key"
        self.settings = {"tls_certificate": str(self.certificate), "tls_key": str(self.key)}
        self.bring("server")

    def bring(self, name):
        """Moves a pair into place, one file after the other."""
        for file, ending in ((self.certificate, "pem"), (self.key, "key")):
            self.move(self.certificates / f"{name}.{ending}", file)

    def move(self, source, file):
        new = file.with_suffix(".new")
        shutil.copy(source, new)
        new.rename(file)


@pytest.fixture
def pair(tmp_path, certificates):
    return Pair(tmp_path, certificates)


@pytest.fixture
def gateway(pair, monkeypatch):
    monkeypatch.setattr(connections, "LOOK_EVERY", 1)
    with running_gateway(FakeModels(is_held=True), **pair.settings) as gateway:
        yield gateway


@pytest.fixture
def told(caplog):
    caplog.set_level(logging.INFO)
    return lambda: [r.msg["message"] for r in caplog.records if "certificate" in str(r.msg) and isinstance(r.msg, dict)]


def hello(gateway, certificates, name="server", server_name="localhost"):
    """A TLS connection to a gateway whose certificate is NAME.pem; ssl.SSLError if it has another one."""
    context = ssl.create_default_context(cafile=certificates / {"server": "ca.pem", "stranger": "other_ca.pem"}[name])
    context.check_hostname = server_name is not None
    return context.wrap_socket(gateway.connect(), server_hostname=server_name)


def has(gateway, certificates, name, server_name="localhost"):
    try:
        with hello(gateway, certificates, name, server_name) as connection:
            return is_answered(connection)
    except ssl.SSLCertVerificationError:
        return False


def is_answered(connection):
    connection.sendall(REQUEST)
    answer = b""
    while not answer.endswith(b"Healthy"):
        piece = connection.recv(2**16)
        assert piece
        answer += piece
    return True


@pytest.mark.parametrize("server_name", ["localhost", None])
def test_new_connections_get_the_renewed_one_and_open_ones_go_on(
    gateway, pair, certificates, told, picture_file, server_name
):
    models, form = gateway.app.state.triton, {"files": {"image": picture_file}, "data": {"prompt": ["lung"]}}
    request = gateway.http.build_request("POST", "/v1/images", **form)
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    sent = f"POST /v1/images HTTP/1.1\r\n{head}\r\n".encode() + request.read()
    with (
        hello(gateway, certificates, server_name=server_name) as idle,
        hello(gateway, certificates, server_name=server_name) as sending,
        hello(gateway, certificates, server_name=server_name) as waiting,
    ):
        assert is_answered(idle)
        waiting.sendall(sent)
        assert models.began.wait(PATIENCE_S)
        sending.sendall(sent[:-100])
        pair.bring("stranger")
        wait_until(lambda: has(gateway, certificates, "stranger", server_name))
        assert not has(gateway, certificates, "server", server_name)
        assert is_answered(idle)
        sending.sendall(sent[-100:])
        models.release()
        assert sending.recv(12) == waiting.recv(12) == b"HTTP/1.1 200"
    assert told() == ["the TLS certificate changed: new connections have the new one"]


def cut(pair):
    text = pair.certificate.read_text()
    pair.certificate.write_text(text[: len(text) // 2])


NO_USE = {
    "half-written": cut,
    "empty": lambda pair: pair.key.write_text(""),
    "another's key": lambda pair: pair.move(pair.certificates / "stranger.key", pair.key),
    "another's certificate": lambda pair: pair.move(pair.certificates / "stranger.pem", pair.certificate),
    "a key with a passphrase": lambda pair: pair.move(pair.certificates / "locked.key", pair.key),
    "no certificate": lambda pair: pair.certificate.unlink(),
    "no key": lambda pair: pair.key.unlink(),
}


@pytest.mark.parametrize("damage", NO_USE.values(), ids=NO_USE)
def test_a_pair_that_is_no_use_is_told_once_and_the_one_before_stays(gateway, pair, certificates, told, damage):
    damage(pair)
    wait_until(told)
    assert has(gateway, certificates, "server")
    pair.bring("stranger")
    wait_until(lambda: has(gateway, certificates, "stranger"))
    refused, taken = told()
    assert refused.startswith("the TLS certificate changed, and the one before stays: tls_certificate ")
    assert "/" not in refused
    assert "new connections" in taken


def test_a_pair_is_taken_once_it_stays_the_same(pair, told):
    certificate = Certificate(Settings(**pair.settings))
    first = certificate.current
    for source in ("stranger.key", "client.key", "stranger.key"):  # still being written
        pair.move(pair.certificates / source, pair.key)
        certificate.look()
        assert certificate.current is first
    assert told() == []
    pair.bring("stranger")
    certificate.look()
    certificate.look()
    assert certificate.current is not first
    renewed = certificate.current
    certificate.look()
    assert certificate.current is renewed
    assert len(told()) == 1


def test_no_connection_is_lost_while_certificates_are_renewed(gateway, pair, certificates):
    trusted = ssl.create_default_context(cafile=certificates / "ca.pem")
    trusted.load_verify_locations(certificates / "other_ca.pem")
    has_ended, seen = threading.Event(), set()

    def connect_always():
        n_answered = 0
        while not has_ended.is_set():
            with trusted.wrap_socket(gateway.connect(), server_hostname="localhost") as connection:
                seen.add(connection.getpeercert(binary_form=True))
                n_answered += is_answered(connection)
        return n_answered

    with ThreadPoolExecutor(3) as pool:
        callers = [pool.submit(connect_always) for _ in range(3)]
        for n_renewals in range(6):
            taken = gateway.server.certificate.current
            pair.bring("stranger" if n_renewals % 2 == 0 else "server")
            wait_until(lambda taken=taken: gateway.server.certificate.current is not taken)
        has_ended.set()
        assert all(caller.result() for caller in callers)
    assert len(seen) == 2
