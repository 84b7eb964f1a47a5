"""gRPC over TLS: who proves what to whom, and a renewed certificate."""

import re
import shutil
import signal
import ssl
import subprocess
import sys

import pytest
from helpers.certificates import make_certificates
from helpers.running_server import triton_server
from helpers.served_repository import pared, unbuilt_repository
from medimageparse_client import Client, ServerUnavailable
from medimageparse_client.cli import main
from medimageparse_serving.launch.serve import ServeError, Tls, TritonServer


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
    repository = pared(unbuilt_repository(tmp_path_factory.mktemp("images") / "model_repository"))
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


def test_a_renewed_certificate_of_grpc_is_taken_by_the_next_start(images_only, certificates, tmp_path):
    def bring(name):
        for ending in ("pem", "key"):
            shutil.copy(certificates / f"{name}.{ending}", tmp_path / f"tls.{ending}")

    def has(name):
        host, port = server.grpc_url.split(":")
        served = ssl.get_server_certificate((host, int(port)))
        return ssl.PEM_cert_to_DER_cert(served) == ssl.PEM_cert_to_DER_cert((certificates / f"{name}.pem").read_text())

    bring("server")
    with triton_server(images_only, tls=Tls(tmp_path / "tls.pem", tmp_path / "tls.key")) as server:
        bring("stranger")
        assert has("server")
        server.stop()
        server.start()
        assert has("stranger")
