"""TLS and keys of the client, against sockets that hardly say anything."""

import contextlib
import http.server
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import medimageparse_client
import pytest
from helpers.certificates import make_certificates
from medimageparse_client import AccessDenied, Client
from medimageparse_client.cli import main

KEY = "kestrel-5502"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def elsewhere(certificates):
    """The address of somebody with another host's certificate, who shakes hands and hangs up."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates / "elsewhere.pem", certificates / "elsewhere.key")
    context.set_alpn_protocols(["h2", "http/1.1"])

    def shake_hands(listener):
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:  # the test is over
                return
            with connection, contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True):
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=shake_hands, args=(listener,))
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(timeout=10)


@pytest.mark.parametrize("scheme", ["grpcs", "https"])
def test_another_hosts_certificate_is_refused(elsewhere, certificates, volume, affine, scheme):
    with (
        Client(f"{scheme}://{elsewhere}", ca=certificates / "ca.pem", timeout_s=10) as client,
        pytest.raises(AccessDenied, match="its certificate is for another host"),
    ):
        client.segment(volume, "liver", affine=affine)


@pytest.mark.parametrize("scheme", ["grpcs", "https"])
def test_the_command_says_it_in_one_line(elsewhere, certificates, scheme):
    command = [sys.executable, "-m", "medimageparse_client", "health", "--url", f"{scheme}://{elsewhere}"]
    command += ["--ca", certificates / "ca.pem", "--timeout", "10"]
    folder = str(Path(medimageparse_client.__file__).parents[1])
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": folder})
    assert done.returncode == 3
    assert re.fullmatch(r"medimageparse: the server at \S+ is not available: its certificate .*\n", done.stderr)


@pytest.mark.parametrize("scheme", ["grpcs", "https"])
@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"ca": "extensions"}, "not a PEM file"),
        ({"certificate": "client.pem"}, "go together"),
        ({"certificate_key": "client.key"}, "go together"),
        ({"certificate": "client.pem", "certificate_key": "server.key"}, "a certificate and its own key"),
        ({"certificate": "client.pem", "certificate_key": "locked.key"}, "has no passphrase"),
    ],
)
def test_files_that_are_no_use(certificates, scheme, files, sentence):
    with pytest.raises(ValueError, match=sentence):
        Client(f"{scheme}://localhost:1", **{option: certificates / name for option, name in files.items()})


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        Client("grpcs://localhost:1", ca=tmp_path / "nothing.pem")


@pytest.mark.parametrize("url", ["localhost:1", "grpc://localhost:1", "http://localhost:1"])
def test_certificates_without_tls(url):
    with pytest.raises(ValueError, match="need https:// or grpcs://"):
        Client(url, ca="ca.pem")


@pytest.mark.parametrize("url", ["hospital:8001", "grpc://10.0.0.7:8001", "http://localhost.hospital:8000"])
def test_a_key_does_not_travel_unencrypted(url):
    with pytest.raises(ValueError, match="would travel unencrypted") as refused:
        Client(url, api_key=KEY)
    assert KEY not in str(refused.value)


@pytest.mark.parametrize("key", ["", "two words", f"{KEY}\n", "schlüssel"])
def test_keys_that_no_header_can_hold(key):
    with pytest.raises(ValueError, match="API key is empty, or has") as refused:
        Client("https://localhost:1", api_key=key)
    assert "two" not in str(refused.value)


@pytest.fixture
def keys():
    """What callers of `address` sent as authorization."""

    class Listener(http.server.BaseHTTPRequestHandler):
        received = []

        def do_GET(self):
            self.received.append(self.headers["authorization"])
            self.send_response(401)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Listener) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", Listener.received
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("way", ["file", "environment", "both", "neither"])
def test_where_the_command_takes_the_key_from(keys, way, tmp_path, monkeypatch, capsys):
    url, received = keys
    (tmp_path / "key").write_text(f"{KEY}\n")
    monkeypatch.delenv("MEDIMAGEPARSE_API_KEY", raising=False)
    if way in ("environment", "both"):
        monkeypatch.setenv("MEDIMAGEPARSE_API_KEY", KEY if way == "environment" else "another")
    options = ["--api-key-file", str(tmp_path / "key")] if way in ("file", "both") else []
    assert main(["health", "--url", url, *options]) == 3
    assert set(received) == {None if way == "neither" else f"Bearer {KEY}"}
    assert KEY not in "".join(capsys.readouterr())


def test_a_key_file_that_is_not_there(tmp_path, capsys):
    assert main(["health", "--api-key-file", str(tmp_path / "nothing")]) == 5
    assert "No such file" in capsys.readouterr().err
