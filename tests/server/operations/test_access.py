"""What a server refuses unless told otherwise: other machines, the APIs of its operator, connections without TLS."""

import http.client
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tritonclient.grpc
from helpers.certificates import make_certificates
from helpers.running_server import triton_server
from medimageparse.repository_copy import copy_models
from medimageparse_client import Client, ServerUnavailable
from medimageparse_client.cli import main
from medimageparse_serving.launch.serve import REPOSITORY, ServeError, Tls, TritonServer
from tritonclient.utils import InferenceServerException

MODEL = "medimageparse"
CLOSED_HTTP = [
    ("POST", "/v2/repository/index"),
    ("POST", f"/v2/repository/models/{MODEL}/load"),
    ("POST", f"/v2/repository/models/{MODEL}/unload"),
    ("GET", "/v2/systemsharedmemory/status"),
    ("POST", "/v2/systemsharedmemory/region/ours/register"),
    ("POST", "/v2/systemsharedmemory/region/ours/unregister"),
    ("POST", "/v2/systemsharedmemory/unregister"),
    ("GET", "/v2/cudasharedmemory/status"),
    ("POST", "/v2/cudasharedmemory/region/ours/register"),
    ("POST", "/v2/cudasharedmemory/unregister"),
    ("GET", f"/v2/models/{MODEL}/stats"),
    ("GET", "/v2/models/stats"),
    ("GET", "/v2/trace/setting"),
    ("POST", "/v2/trace/setting"),
    ("GET", f"/v2/models/{MODEL}/trace/setting"),
    ("POST", f"/v2/models/{MODEL}/trace/setting"),
    ("GET", "/v2/logging"),
    ("POST", "/v2/logging"),
]
# 127.0.0.1, and the same as an IPv6 address, in the words of /proc
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F"}
CLOSED_GRPC = {
    "get_model_repository_index": (),
    "load_model": (MODEL,),
    "unload_model": (MODEL,),
    "get_system_shared_memory_status": (),
    "register_system_shared_memory": ("ours", "/ours", 8),
    "unregister_system_shared_memory": (),
    "get_cuda_shared_memory_status": (),
    "register_cuda_shared_memory": ("ours", b"", 0, 8),
    "unregister_cuda_shared_memory": (),
    "get_inference_statistics": (),
    "get_trace_settings": (),
    "update_trace_settings": (MODEL, {"trace_level": ["TENSORS"]}),
    "get_log_settings": (),
    "update_log_settings": ({"log_verbose_level": 1},),
}


def ask(address, method, path, headers=None):
    """Status and body of one HTTP request."""
    connection = http.client.HTTPConnection(address, timeout=30)
    connection.request(method, path, body=b"{}" if method == "POST" else None, headers=headers or {})
    answer = connection.getresponse()
    status, body = answer.status, answer.read().decode()
    connection.close()
    return status, body


@pytest.mark.parametrize(("method", "path"), CLOSED_HTTP)
def test_the_operators_apis_are_closed_over_http(both_models, method, path):
    for headers in ({}, {"admin-key": ""}, {"admin-key": "KEY"}, {"triton-grpc-protocol-admin-key": "KEY"}):
        status, body = ask(both_models.http_url, method, path, headers)
        assert status == 403
        assert "restricted" in body


@pytest.mark.parametrize("call", CLOSED_GRPC)
def test_the_operators_apis_are_closed_over_grpc(both_models, call):
    with tritonclient.grpc.InferenceServerClient(both_models.grpc_url) as triton:
        for headers in ({}, {"triton-grpc-protocol-admin-key": "KEY"}, {"admin-key": both_models.admin_key}):
            with pytest.raises(InferenceServerException, match="restricted") as refused:
                getattr(triton, call)(*CLOSED_GRPC[call], headers=headers)
            assert refused.value.status() == "StatusCode.UNAVAILABLE"


def test_the_key_opens_them(both_models):
    assert ask(both_models.http_url, "GET", "/v2/logging", both_models.admin_headers)[0] == 200
    with tritonclient.grpc.InferenceServerClient(both_models.grpc_url) as triton:
        assert triton.get_model_repository_index(headers=both_models.admin_headers).models


def test_what_a_caller_needs_is_open(both_models, image):
    for path in ("/v2", "/v2/health/live", "/v2/health/ready", f"/v2/models/{MODEL}", f"/v2/models/{MODEL}/ready"):
        assert ask(both_models.http_url, "GET", path)[0] == 200
    for url, protocol in ((both_models.grpc_url, "grpc"), (both_models.http_url, "http")):
        with Client(url, protocol=protocol) as client:
            assert client.health().is_ready
            assert client.segment_image(image, ["lung"]).label_map.any()


def listening_addresses(process):
    """Where a process listens, as /proc writes it."""
    links = [str(fd.readlink()) for fd in Path(f"/proc/{process}/fd").iterdir()]
    sockets = {match[1] for link in links if (match := re.fullmatch(r"socket:\[(\d+)\]", link))}
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{process}/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == "0A" and inode in sockets:
                found.append(local)
    return found


def test_nothing_listens_to_other_machines(both_models):
    addresses = listening_addresses(both_models.process.pid)
    assert len({address.split(":")[1] for address in addresses}) == 3
    assert {address.split(":")[0] for address in addresses} <= LOOPBACK


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def of(certificates, ca=None, certificate=None):
    """Options of the client, from the names of files."""
    options = {"ca": certificates / f"{ca}.pem"} if ca else {}
    if certificate:
        options["certificate"] = certificates / f"{certificate}.pem"
        options["certificate_key"] = certificates / f"{certificate}.key"
    return options


@pytest.fixture(scope="module")
def images_only(tmp_path_factory, tiny_2d_networks):
    """A repository with networks for images."""
    repository = tmp_path_factory.mktemp("images") / "model_repository"
    copy_models(REPOSITORY, repository)
    shutil.copytree(tiny_2d_networks, repository, dirs_exist_ok=True)
    return repository


@pytest.fixture(scope="module")
def encrypted(images_only, certificates):
    """A server with TLS for gRPC; any client may come."""
    with triton_server(images_only, tls=Tls(certificates / "server.pem", certificates / "server.key")) as server:
        yield server


@pytest.fixture(scope="module")
def mutual(images_only, certificates):
    """The gRPC address of a `serve.py` that wants to know its clients."""
    command = [sys.executable, "-m", "medimageparse_serving.launch", "--runtime", "cpu", "--repository", images_only]
    command += [f"--{name}-port=0" for name in ("http", "grpc", "metrics", "probe")]
    command += ["--tls-certificate", certificates / "server.pem", "--tls-key", certificates / "server.key"]
    command += ["--tls-client-ca", certificates / "ca.pem"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        ready = process.stdout.readline()
        assert ready.startswith("ready: ")
        yield re.search(r"grpc (\S+),", ready)[1]
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


def test_tls(encrypted, certificates, image):
    url = encrypted.grpc_url
    with Client(f"grpcs://{url}", **of(certificates, "ca")) as client:
        assert client.health().is_ready
        found = client.segment_image(image, ["lung"])
    assert found.report["prompts"][0]["text"] == "lung"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_mutual_tls(mutual, certificates, image, host):
    url = f"grpcs://{host}:{mutual.rpartition(':')[2]}"
    with Client(url, **of(certificates, "ca", "client")) as client:
        assert client.health().is_ready
        client.segment_image(image, ["lung"])


@pytest.mark.parametrize("ca", [None, "other_ca"])
def test_a_server_that_cannot_prove_itself_is_not_trusted(encrypted, certificates, image, ca):
    with (
        Client(f"grpcs://{encrypted.grpc_url}", timeout_s=10, retries=0, **of(certificates, ca)) as client,
        pytest.raises(ServerUnavailable, match="its authority is not trusted here; name that authority's file as ca"),
    ):
        client.segment_image(image, ["lung"])


def test_a_client_without_tls_is_told_what_to_write(encrypted, image):
    with (
        Client(encrypted.grpc_url, timeout_s=10, retries=0) as client,
        pytest.raises(ServerUnavailable, match="if it speaks TLS, write grpcs://"),
    ):
        client.segment_image(image, ["lung"])


def test_tls_to_a_server_without_it(both_models, certificates, image):
    for url in (f"grpcs://{both_models.grpc_url}", f"https://{both_models.http_url}"):
        with (
            Client(url, timeout_s=10, retries=0, **of(certificates, "ca")) as client,
            pytest.raises(ServerUnavailable, match="if it speaks TLS"),
        ):
            client.segment_image(image, ["lung"])


@pytest.mark.parametrize("certificate", [None, "stranger"])
def test_a_client_that_cannot_prove_itself_is_not_served(mutual, certificates, image, certificate):
    with (
        Client(f"grpcs://{mutual}", timeout_s=10, retries=0, **of(certificates, "ca", certificate)) as client,
        pytest.raises(ServerUnavailable, match="if it wants to know its clients, give a certificate that it trusts"),
    ):
        client.segment_image(image, ["lung"])


def test_the_command_line(mutual, certificates, capsys):
    command = ["health", "--url", f"grpcs://{mutual}", "--ca", str(certificates / "ca.pem"), "--timeout", "10"]
    assert main(command) == 3
    assert "give a certificate that it trusts" in capsys.readouterr().err
    names = {"--certificate": "client.pem", "--certificate-key": "client.key"}
    command += [part for option, name in names.items() for part in (option, str(certificates / name))]
    assert main(command) == 0
    assert "medimageparse: ready" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (("server.pem", "client.key"), "belong together"),
        (("extensions", "server.key"), "PEM files"),
        (("client.pem", "locked.key"), "without a passphrase"),
        (("nothing.pem", "server.key"), "certificate or its key cannot be read: No such file"),
        (("server.pem", "server.key", "extensions"), "CA of the clients is not a PEM file"),
        (("server.pem", "server.key", "nothing.pem"), "CA of the clients cannot be read: No such file"),
    ],
)
def test_files_that_are_no_use_are_refused_at_the_start(images_only, certificates, files, sentence):
    with pytest.raises(ServeError, match=sentence):
        TritonServer(images_only, tls=Tls(*(certificates / file for file in files)))
