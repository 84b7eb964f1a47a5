"""deploy/nginx.conf before the server: TLS, a key for each caller, and nothing but what callers need."""

import http.client
import os
import shutil
import ssl
import subprocess
import time

import numpy as np
import pytest
from helpers.certificates import make_certificates
from helpers.places import ROOT
from medimageparse_client import Client, InvalidRequest, ServerUnavailable
from medimageparse_client.cli import main
from medimageparse_serving.launch.serve import free_port

DEPLOY = ROOT / "deploy"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
KEY = "kestrel-5502-kestrel-5502"
LARGEST_BODY = 200_000


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def configuration(folder, certificates, upstream, port):
    """The example with this test's files and ports in place of the installed ones, and a smaller body."""
    text = (DEPLOY / "nginx.conf").read_text()
    for installed, ours in {
        "/etc/nginx/medimageparse_api_keys": folder / "api_keys",
        "/etc/nginx/medimageparse.pem": certificates / "server.pem",
        "/etc/nginx/medimageparse.key": certificates / "server.key",
        "/var/log/nginx/medimageparse.log": folder / "access.log",
        "/var/log/nginx/medimageparse_error.log crit": f"{folder / 'error.log'} info",
        "server 127.0.0.1:8000;": f"server {upstream};",
        "listen 8443 ssl;": f"listen 127.0.0.1:{port} ssl;",
        "client_max_body_size 1g;": f"client_max_body_size {LARGEST_BODY};",
    }.items():
        head, found, tail = text.rpartition(installed)  # the comment at the top names some of them too
        assert found
        text = f"{head}{ours}{tail}"
    return text


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("nginx")


def run_nginx(folder, site):
    """A running nginx that reads `site`; the rest of its configuration is what Debian's would be."""
    keys = (DEPLOY / "api_keys.example").read_text()
    assert keys.count('\n# "Bearer KEY" ') == keys.count('"Bearer ') == 1  # nobody is let in by the example itself
    (folder / "api_keys").write_text(keys.replace('# "Bearer KEY"', f'"Bearer {KEY}"'))
    (folder / "site.conf").write_text(site)
    workers = "user root;\n" if os.geteuid() == 0 else ""  # or they could not write into the test's folder
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    places = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    (folder / "nginx.conf").write_text(
        f"{workers}daemon off;\nworker_processes 1;\npid {folder}/pid;\nerror_log {folder}/start.log;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{places}include {folder}/site.conf;\n}}\n"
    )
    return subprocess.Popen([NGINX, "-p", folder, "-c", folder / "nginx.conf"], stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def proxy(folder, certificates, both_models):
    """Its "host:port"."""
    if NGINX is None:
        pytest.skip("there is no nginx here: apt-get install nginx")
    port = free_port()
    process = run_nginx(folder, configuration(folder, certificates, both_models.http_url, port))
    try:
        deadline = time.monotonic() + 20
        while process.poll() is None and not (folder / "pid").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert process.poll() is None, process.stderr.read()
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.communicate(timeout=20)


@pytest.fixture
def connect(proxy, certificates):
    def connect(**options):
        return Client(f"https://{proxy}", **{"ca": certificates / "ca.pem", "api_key": KEY, "timeout_s": 120} | options)

    return connect


def test_with_the_key_it_is_the_server(connect, both_models, image, volume):
    with connect() as client, Client(both_models.http_url, protocol="http") as direct:
        assert client.health() == direct.health()
        assert client.health().is_ready
        found, expected = (c.segment_image(image, ["lung", "heart"]) for c in (client, direct))
        assert np.array_equal(found.probabilities, expected.probabilities)
        found, expected = (c.segment(volume.slicer[:, :, 2:3], ["liver"]) for c in (client, direct))
        assert np.array_equal(found.label_map, expected.label_map)


def test_the_servers_refusals_pass(connect):
    with connect() as client, pytest.raises(InvalidRequest, match="image"):
        client.segment_image(b"\x89PNG\r\n\x1a\nno picture", ["lung"])


@pytest.mark.parametrize("key", [None, "kestrel", KEY[:-1], f"{KEY}1"])
def test_without_the_key_nobody_is_served(connect, image, key):
    with connect(api_key=key) as client:
        with pytest.raises(ServerUnavailable, match="the API key is missing or not known here"):
            client.segment_image(image, ["lung"])
        state = client.health()
    assert not state.is_ready
    assert "API key" in state.problem


@pytest.mark.parametrize("ca", [None, "other_ca.pem"])
def test_another_authority_is_not_trusted(connect, certificates, image, ca):
    with (
        connect(ca=ca and certificates / ca) as client,
        pytest.raises(ServerUnavailable, match="its authority is not trusted here"),
    ):
        client.segment_image(image, ["lung"])


def test_without_tls_nobody_is_served(proxy, image):
    with (
        Client(f"http://{proxy}", api_key=KEY) as client,
        pytest.raises(InvalidRequest, match="speaks TLS: write https://"),
    ):
        client.segment_image(image, ["lung"])


def test_too_large_a_request(connect):
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    with connect() as client, pytest.raises(InvalidRequest, match="larger than the proxy"):
        client.segment_image(noise, ["lung"])


def ask(proxy, certificates, method, path, headers):
    context = ssl.create_default_context(cafile=certificates / "ca.pem")
    connection = http.client.HTTPSConnection(proxy, timeout=30, context=context)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    status, body = answer.status, answer.read()
    connection.close()
    return status, body


@pytest.mark.parametrize(
    "path",
    [
        "/v2/repository/index",
        "/v2/models/medimageparse/stats",
        "/v2/models/stats",
        "/v2/logging",
        "/v2/trace/setting",
        "/v2/systemsharedmemory/status",
        "/v2/models/decode_image/infer",
        "/v2/models/medimageparse/../decode_image",
        "/metrics",
        "/",
    ],
)
def test_what_callers_do_not_need_is_closed(proxy, certificates, both_models, path):
    headers = {"Authorization": f"Bearer {KEY}"} | both_models.admin_headers
    status, body = ask(proxy, certificates, "GET", path, headers)
    assert (status, body) == (404, b'{"error": "there is nothing at this address"}')


def test_no_key_and_no_image_in_its_files(proxy, certificates, folder, image, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("MEDIMAGEPARSE_API_KEY", "merlin-8813-merlin")
    (tmp_path / "xray.png").write_bytes(image)
    command = ["segment-image", str(tmp_path / "xray.png"), "osprey-4471", "-o", str(tmp_path / "masks.png")]
    command += ["--url", f"https://{proxy}", "--ca", str(certificates / "ca.pem")]
    assert main(command) == 3
    monkeypatch.setenv("MEDIMAGEPARSE_API_KEY", KEY)
    assert main(command) == 0
    monkeypatch.delenv("MEDIMAGEPARSE_API_KEY")
    (tmp_path / "key").write_text(f"{KEY}\n")
    assert main([*command, "--api-key-file", str(tmp_path / "key")]) == 0
    told = "".join(capsys.readouterr())
    logged = "".join((folder / name).read_text() for name in ("access.log", "error.log", "start.log"))
    assert " radiology " in logged
    for secret in (KEY, "merlin", "osprey"):
        assert secret not in logged
    for secret in (KEY, "merlin"):
        assert secret not in told
    assert [path for name in ("client_body", "proxy") for path in (folder / name).rglob("*") if path.is_file()] == []
