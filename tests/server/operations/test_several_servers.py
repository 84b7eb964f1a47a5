"""Two real servers behind deploy/envoy: one is killed, one is drained, under load, and no caller sees it."""

import os
import signal
import ssl
import threading
import urllib.error
from contextlib import ExitStack

import grpc
import nibabel as nib
import numpy as np
import pytest
from helpers.certificates import make_certificates
from helpers.envoy import balancer
from helpers.image_answers import image_file
from helpers.running_server import PATIENCE_S, open_local, serving, wait_until
from medimageparse_client import Client
from tritonclient.grpc import InferenceServerClient, InferenceServerException

N_CLIENTS = 3
ROUND = 4 * N_CLIENTS  # answers between two blows


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """started(repository): one more running server."""
    with ExitStack() as stack:

        def start(repository):
            log = tmp_path_factory.mktemp("server") / "log"
            return stack.enter_context(serving(log, repository))

        yield start


@pytest.fixture(scope="module")
def servers(started, both_demos, both_alone):
    """Of both demos; the first has streams too."""
    return [started(both_demos), started(both_alone)]


class Callers:
    """Clients that ask one question after the other, an own one each, until `close`."""

    def __init__(self, questions, url, ca):
        """questions: functions that ask a client, and the answer each gets alone."""
        self.n_right, self.wrong, self.errors, self.is_over = 0, 0, [], threading.Event()
        self.pause_s, self.lock = 0, threading.Lock()
        self.threads = [threading.Thread(target=self.call, args=(*q, url, ca)) for q in questions]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *exception):
        self.is_over.set()
        for thread in self.threads:
            thread.join(PATIENCE_S)
        assert not any(thread.is_alive() for thread in self.threads)

    def call(self, ask, expected, url, ca):
        with Client(url, ca=ca, timeout_s=PATIENCE_S, retry_for_s=PATIENCE_S) as client:
            while not self.is_over.is_set():
                try:
                    is_right = np.array_equal(ask(client), expected)
                except Exception as error:
                    self.errors.append(f"{type(error).__name__}: {error}")
                    return
                with self.lock:
                    self.n_right += is_right
                    self.wrong += not is_right
                self.is_over.wait(self.pause_s)

    def wait_for_more(self, n=ROUND):
        goal = self.n_right + n
        wait_until(lambda: self.n_right >= goal or self.errors or self.wrong)


@pytest.fixture(scope="module")
def questions(servers, volume, picture, tmp_path_factory):
    """A volume and two pictures, each with the answer that a server gives when nobody else asks."""
    file = tmp_path_factory.mktemp("volume") / "volume.nii.gz"
    nib.save(volume, file)
    pictures = [image_file(picture), image_file(picture[::-1].copy())]
    asked = [lambda client: client.segment(file, ["liver", "spleen"]).label_map]
    for image in pictures:
        asked.append(lambda client, image=image: client.segment_image(image, ["left lung"]).probabilities)
    with Client(servers[0].grpc) as client:
        return [(ask, ask(client)) for ask in asked]


@pytest.fixture(scope="module")
def fronted(tmp_path_factory, certificates, servers):
    """An Envoy before one server."""
    with balancer(tmp_path_factory.mktemp("fronted"), servers[:1], certificates) as envoy:
        yield envoy


def test_operators_calls_and_keys_do_not_pass(fronted, certificates):
    address = fronted.url.removeprefix("grpcs://")
    with InferenceServerClient(address, ssl=True, root_certificates=certificates / "ca.pem") as client:
        assert client.is_server_ready()
        with pytest.raises(InferenceServerException, match="UNIMPLEMENTED|404"):
            client.get_model_repository_index()


def test_compressed_messages_do_not_pass(fronted, certificates):
    credentials = grpc.ssl_channel_credentials((certificates / "ca.pem").read_bytes())
    with grpc.secure_channel(fronted.url.removeprefix("grpcs://"), credentials) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelMetadata")
        question = b"\n\x10medimageparse_3d"
        assert b"medimageparse_3d" in call(question, timeout=60)
        with pytest.raises(grpc.RpcError) as caught:
            call(question, timeout=60, compression=grpc.Compression.Gzip)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_progress_passes_while_it_happens(fronted, certificates, volume, tmp_path):
    nib.save(volume, tmp_path / "volume.nii.gz")
    told = []
    with Client(fronted.url, ca=certificates / "ca.pem") as client:
        client.segment(tmp_path / "volume.nii.gz", ["liver"], progress=lambda *words: told.append(words))
    assert len(told) > 1


def test_a_probe_and_prometheus_are_answered_and_nothing_else(fronted):
    def status(path):
        try:
            with open_local(f"http://{fronted.probes}{path}", timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, ""

    assert status("/ready")[0] == 200
    assert "envoy_cluster_upstream_rq_retry{" in status("/metrics")[1]
    assert status("/stats")[0] == status("/quitquitquit")[0] == 404


def test_a_renewed_certificate_is_taken_without_a_restart(fronted, certificates, picture):
    host, port = fronted.url.removeprefix("grpcs://").split(":")
    image = image_file(picture)
    with Client(fronted.url, ca=certificates / "ca.pem") as client:
        before = client.segment_image(image, ["left lung"]).probabilities
        fronted.bring(certificates / "stranger.pem", certificates / "stranger.key")
        renewed = ssl.PEM_cert_to_DER_cert((certificates / "stranger.pem").read_text())
        wait_until(lambda: ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate((host, int(port)))) == renewed)
        assert np.array_equal(client.segment_image(image, ["left lung"]).probabilities, before)  # the old connection
    with Client(fronted.url, ca=certificates / "other_ca.pem") as client:
        assert np.array_equal(client.segment_image(image, ["left lung"]).probabilities, before)


def test_a_balancer_without_a_ready_server_says_that_it_is_worth_trying_again(fronted, certificates):
    fronted.put_before([])
    wait_until(lambda: fronted.healthy() == set())
    credentials = grpc.ssl_channel_credentials((certificates / "other_ca.pem").read_bytes())
    with grpc.secure_channel(fronted.url.removeprefix("grpcs://"), credentials) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"", timeout=60)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


def test_callers_lose_nothing_when_servers_are_killed_and_drained(
    tmp_path, certificates, started, both_alone, servers, questions
):
    first, second = servers
    with (
        balancer(tmp_path, servers, certificates) as envoy,
        Callers(questions, envoy.url, certificates / "ca.pem") as callers,
    ):
        callers.wait_for_more()
        os.kill(first.process.pid, signal.SIGKILL)
        first.process.wait()
        callers.wait_for_more()
        assert envoy.healthy() == {second.grpc}
        callers.pause_s = 0.5
        third = started(both_alone)
        callers.pause_s = 0
        envoy.put_before([second, third])
        wait_until(lambda: envoy.healthy() == {second.grpc, third.grpc})
        callers.wait_for_more()
        second.process.send_signal(signal.SIGTERM)
        assert second.process.wait(PATIENCE_S) == 0
        callers.wait_for_more()
        n_retries = envoy.count("cluster.servers.upstream_rq_retry")
    assert callers.errors == []
    assert callers.wrong == 0
    assert callers.n_right >= 4 * ROUND
    assert n_retries > 0  # or it was lost and repeated by the client, or nothing was under way
