"""deploy/nginx.conf before gRPC and the gateway: TLS, a key for each caller, and nothing but what callers need."""

import gzip
import http.client
import json
import os
import re
import shutil
import ssl
import subprocess
import time
from pathlib import Path

import grpc
import numpy as np
import pytest
from helpers.certificates import make_certificates
from helpers.gateway_process import gateway_process
from helpers.places import ROOT
from helpers.running_server import wait_until
from medimageparse_client import Client, InvalidRequest, ServerUnavailable
from medimageparse_client.cli import main
from medimageparse_serving.launch.serve import REPOSITORY, free_port
from tritonclient.grpc import service_pb2, service_pb2_grpc

DEPLOY = ROOT / "deploy"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
KEY = "kestrel-5502-kestrel-5502"
LARGEST_BODY = 200_000


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def configuration(folder, certificates, grpc, gateway, port):
    """The example with this test's files and ports in place of the installed ones, and a smaller body."""
    text = (DEPLOY / "nginx.conf").read_text()
    for installed, ours in {
        "/etc/nginx/medimageparse_api_keys": folder / "api_keys",
        "/etc/nginx/medimageparse.pem": certificates / "server.pem",
        "/etc/nginx/medimageparse.key": certificates / "server.key",
        "/var/log/nginx/medimageparse.log": folder / "access.log",
        "/var/log/nginx/medimageparse_error.log crit": f"{folder / 'error.log'} info",
        "server 127.0.0.1:8001;": f"server {grpc};",
        "server 127.0.0.1:8080;": f"server {gateway};",
        "listen 8443 ssl http2;": f"listen 127.0.0.1:{port} ssl http2;",
        "client_max_body_size 1g;": f"client_max_body_size {LARGEST_BODY};",
        "client_max_body_size 1025m;": f"client_max_body_size {LARGEST_BODY};",
        "rate=10r/s": "rate=1000r/s",
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
def gateway(folder, both_models):
    """The "host:port" of a gateway without keys."""
    with gateway_process(folder / "gateway", both_models.grpc_url) as gateway:
        yield gateway.url.removeprefix("http://")


@pytest.fixture(scope="module")
def proxy(folder, certificates, both_models, gateway):
    """Its "host:port"."""
    if NGINX is None:
        pytest.skip("there is no nginx here: apt-get install nginx")
    port = free_port()
    process = run_nginx(folder, configuration(folder, certificates, both_models.grpc_url, gateway, port))
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
        return Client(
            f"grpcs://{proxy}",
            **{"ca": certificates / "ca.pem", "api_key": KEY, "timeout_s": 120, "retries": 0} | options,
        )

    return connect


def test_with_the_key_it_is_the_server(connect, both_models, image, volume):
    with connect() as client, Client(both_models.grpc_url) as direct:
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


def test_without_tls_nobody_is_served(proxy):
    connection = http.client.HTTPConnection(proxy, timeout=30)
    connection.request("GET", "/v1/models")
    answer = connection.getresponse()
    assert (answer.status, message_of(answer.read())) == (
        400,
        "this port speaks TLS: write https:// or grpcs:// before the host",
    )
    connection.close()


def test_too_large_a_request(connect):
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    with connect() as client, pytest.raises(InvalidRequest, match="larger than the proxy"):
        client.segment_image(noise, ["lung"])


def ask(proxy, certificates, method, path, headers, body=None, **options):
    context = ssl.create_default_context(cafile=certificates / "ca.pem")
    connection = http.client.HTTPSConnection(proxy, timeout=30, context=context)
    connection.request(method, path, body, headers, **options)
    answer = connection.getresponse()
    status, body = answer.status, answer.read()
    connection.close()
    return status, body


def message_of(body):
    return json.loads(body)["error"]["message"]


WITH_KEY = {"Authorization": f"Bearer {KEY}"}


def form(image, prompt="lung"):
    head = '--b\r\nContent-Disposition: form-data; name="{}"{}\r\n\r\n'
    parts = (
        head.format("prompt", "").encode() + prompt.encode(),
        head.format("image", '; filename="a"').encode() + image,
    )
    return b"\r\n".join([*parts, b"--b--\r\n"])


FORM = {"Content-Type": "multipart/form-data; boundary=b", "Accept": "image/png"}


def test_the_gateway_answers_through_it(proxy, gateway, certificates, image):
    status, through = ask(proxy, certificates, "POST", "/v1/images", WITH_KEY | FORM, form(image))
    assert status == 200
    connection = http.client.HTTPConnection(gateway, timeout=60)
    connection.request("POST", "/v1/images", form(image), FORM)
    assert connection.getresponse().read() == through
    connection.close()


@pytest.mark.parametrize(
    ("path", "status"),
    [("/ready", 200), ("/", 200), ("/viewer", 200), ("/v1/models", 401), ("/v1/structures", 401), ("/score", 401)],
)
def test_what_a_page_needs_is_open_and_the_rest_wants_a_key(proxy, certificates, path, status):
    found, body = ask(proxy, certificates, "GET", path, {})
    assert found == status
    assert status == 200 or message_of(body) == "the API key is missing or not known here"


@pytest.mark.parametrize(
    ("headers", "body", "options", "status"),
    [
        ({"Content-Encoding": "gzip"}, gzip.compress(bytes(10**6)), {}, 415),
        ({"Content-Encoding": "deflate"}, b"x", {}, 415),
        ({}, iter([b"x"] * 1000), {"encode_chunked": True}, 411),
        ({}, bytes(LARGEST_BODY + 1), {}, 413),
    ],
    ids=["gzip", "deflate", "chunks", "too large"],
)
def test_bodies_that_grow_or_have_no_length_are_refused(proxy, certificates, headers, body, options, status):
    try:
        found, words = ask(proxy, certificates, "POST", "/score", WITH_KEY | headers, body, **options)
    except (ConnectionError, ssl.SSLError):
        assert status in (411, 413)  # refused and closed before all was sent
        return
    assert found == status
    assert message_of(words)


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed_messages_are_refused(proxy, certificates, both_models, compression):
    """tritonserver would unpack them, whatever their size."""
    request = service_pb2.ModelInferRequest(model_name="medimageparse")
    tensor = request.inputs.add(name="image", datatype="BYTES", shape=[1])
    tensor.contents.bytes_contents.append(bytes(50 * 2**20))
    before = memory_of(both_models.process.pid)
    with secure_channel(proxy, certificates, compression) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError, match="compressed messages are not taken") as refused:
            stub.ModelInfer(request, metadata=[("authorization", f"Bearer {KEY}")], timeout=60)
    assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert memory_of(both_models.process.pid) - before < 20 * 2**20


def secure_channel(proxy, certificates, compression=None):
    credentials = grpc.ssl_channel_credentials((certificates / "ca.pem").read_bytes())
    options = [("grpc.max_send_message_length", -1)]
    return grpc.secure_channel(proxy, credentials, options, compression=compression)


def memory_of(pid):
    """Bytes in memory."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024


@pytest.mark.parametrize("method", ["RepositoryIndex", "SystemSharedMemoryStatus", "ModelStatistics", "LogSettings"])
def test_the_operators_calls_do_not_pass_even_with_their_key(proxy, certificates, both_models, method):
    metadata = [("authorization", f"Bearer {KEY}"), *both_models.admin_headers.items()]
    with secure_channel(proxy, certificates) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        request = getattr(service_pb2, f"{method}Request")()
        with pytest.raises(grpc.RpcError) as refused:
            getattr(stub, method)(request, metadata=metadata, timeout=60)
    assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED  # gRPC's word for 404


def test_the_limit_of_bodies_is_that_of_the_model():
    config = (REPOSITORY / "decode_volume" / "config.pbtxt").read_text()
    largest = int(re.search(r'"max_image_bytes" value \{ string_value: "(\d+)"', config)[1])
    [limit] = re.findall(r"client_max_body_size (\d+)m;", (DEPLOY / "nginx.conf").read_text())
    assert largest < int(limit) * 2**20 <= largest + 2**20


def test_a_caller_has_only_so_many_requests_at_once(proxy, certificates, folder):
    limit = int(re.search(r"limit_conn at_once (\d+)", (DEPLOY / "nginx.conf").read_text())[1])
    context = ssl.create_default_context(cafile=certificates / "ca.pem")
    held = []
    try:
        for _ in range(limit):
            held.append(http.client.HTTPSConnection(proxy, timeout=30, context=context))
            held[-1].putrequest("POST", "/v1/images")
            for name, value in (WITH_KEY | FORM | {"Content-Length": "1000"}).items():
                held[-1].putheader(name, value)
            held[-1].endheaders(b"-")  # and no more
        wait_until(lambda: ask(proxy, certificates, "GET", "/v1/models", WITH_KEY)[0] == 429)
        assert ask(proxy, certificates, "GET", "/ready", {})[0] == 200  # others are not concerned
    finally:
        for connection in held:
            connection.close()
    wait_until(lambda: ask(proxy, certificates, "GET", "/v1/models", WITH_KEY)[0] == 200)


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
        "/v2/models/medimageparse/infer",
        "/v2/models/medimageparse/generate",
        "/v2",
        "/metrics",
        "/nothing",
    ],
)
def test_what_callers_do_not_need_is_closed(proxy, certificates, both_models, path):
    for method in ("GET", "POST"):
        status, body = ask(proxy, certificates, method, path, WITH_KEY | both_models.admin_headers)
        assert (status, message_of(body)) == (404, "there is nothing at this address")


def test_no_key_and_no_image_in_its_files(proxy, certificates, folder, image, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("MEDIMAGEPARSE_API_KEY", "merlin-8813-merlin")
    (tmp_path / "xray.png").write_bytes(image)
    command = ["segment-image", str(tmp_path / "xray.png"), "osprey-4471", "--force", "-o", str(tmp_path / "masks.png")]
    command += ["--url", f"grpcs://{proxy}", "--ca", str(certificates / "ca.pem")]
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
