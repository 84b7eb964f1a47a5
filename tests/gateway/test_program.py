"""python -m medimageparse_gateway, as it is started and stopped."""

import json
import resource
import signal
import socket
import ssl
import subprocess
import sys
from contextlib import ExitStack, contextmanager

import httpx2
import pytest
from helpers.certificates import make_certificates
from helpers.gateway import PATIENCE_S
from helpers.running_server import wait_until
from medimageparse_gateway.__main__ import main

COMMAND = [sys.executable, "-m", "medimageparse_gateway", "--port", "0", "--triton", "127.0.0.1:1"]


@contextmanager
def running(*arguments):
    """The process, and the url that it prints."""
    process = subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        ready, _, url = process.stdout.readline().strip().partition(": ")
        assert ready == "ready", process.stderr.read()
        yield process, url
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_listens_and_ends_without_a_word(signum):
    with running() as (process, url):
        assert httpx2.get(url, trust_env=False).text == "Healthy"
        assert httpx2.get(url + "/ready", trust_env=False).status_code == 503
        process.send_signal(signum)
        _, log = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert [json.loads(line)["route"] for line in log.splitlines()] == ["/", "/ready"]


@pytest.mark.slow
def test_it_leaves_no_core_dump_and_takes_as_many_connections_as_it_may():
    with running() as (process, _):
        assert resource.prlimit(process.pid, resource.RLIMIT_CORE) == (0, 0)
        soft, hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        assert soft == hard


@pytest.mark.slow
def test_it_speaks_tls(certificates):
    files = ("--tls-certificate", certificates / "server.pem", "--tls-key", certificates / "server.key")
    trusted = ssl.create_default_context(cafile=certificates / "ca.pem")
    with running(*files) as (_, url):
        assert url.startswith("https://")
        assert httpx2.get(url, verify=trusted, trust_env=False).text == "Healthy"
        with pytest.raises(httpx2.ConnectError):
            httpx2.get(url, trust_env=False)
        with pytest.raises(httpx2.HTTPError):
            httpx2.get(url.replace("https", "http"), trust_env=False)


@pytest.mark.slow
def test_a_tls_hello_that_does_not_come_is_ended(certificates, tmp_path):
    config = tmp_path / "gateway.toml"
    files = f'tls_certificate = "{certificates / "server.pem"}"\ntls_key = "{certificates / "server.key"}"\n'
    config.write_text(files + "tls_timeout_s = 0.1\n")
    trusted = ssl.create_default_context(cafile=certificates / "ca.pem")
    with running("--config", config) as (_, url), httpx2.Client(verify=trusted, trust_env=False) as client:
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=PATIENCE_S) as silent:
            assert silent.recv(1) == b""
        assert client.get(url).text == "Healthy"


@pytest.mark.slow
def test_silent_tls_hellos_count_as_connections_as_long_as_they_may_last(certificates, tmp_path):
    config = tmp_path / "gateway.toml"
    files = f'tls_certificate = "{certificates / "server.pem"}"\ntls_key = "{certificates / "server.key"}"\n'
    config.write_text(files + "tls_timeout_s = 2\nmax_connections = 3\n")
    trusted = ssl.create_default_context(cafile=certificates / "ca.pem")
    with running("--config", config) as (_, url), ExitStack() as stack:
        address = ("127.0.0.1", int(url.rpartition(":")[2]))
        silent = [stack.enter_context(socket.create_connection(address, timeout=PATIENCE_S)) for _ in range(3)]
        with pytest.raises(httpx2.TransportError):
            httpx2.get(url, verify=trusted, trust_env=False)
        for connection in silent:
            assert connection.recv(1) == b""
        wait_until(lambda: answers(url, trusted))


def answers(url, trusted):
    try:
        return httpx2.get(url, verify=trusted, trust_env=False).text == "Healthy"
    except httpx2.TransportError:
        return False


@pytest.mark.parametrize(
    ("certificate", "key"),
    [("server.pem", "client.key"), ("client.pem", "locked.key"), ("extensions", "server.key"), ("gone", "gone")],
)
def test_certificates_that_are_no_use_are_told_in_a_sentence(certificates, certificate, key, capsys):
    files = ["--tls-certificate", certificates / certificate, "--tls-key", certificates / key]
    assert main([*COMMAND[3:], *map(str, files)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("medimageparse_gateway: it does not start: ")


def test_a_port_that_is_taken_is_told_in_a_sentence(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["--port", str(taken.getsockname()[1])]) == 2
    assert "in use" in capsys.readouterr().err
