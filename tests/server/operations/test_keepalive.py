"""Pings over gRPC: a client may send as many as it likes, and a client that is gone is noticed."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import tritonclient.grpc
from helpers.http2 import Relay
from helpers.running_server import let_wait, triton_server
from medimageparse_client import Client, servers

MODEL = "medimageparse_3d"
PATIENCE_S = 60
MANY = 8  # a server without our flags hangs up before


class Slow:
    """A server whose decoder waits as long as a file is there."""

    def __init__(self, folder, repository):
        self.file, self.repository = folder / "wait", folder / "repository"
        shutil.copytree(repository, self.repository)
        let_wait(self.repository, "mask_decoder_3d", self.file)


@pytest.fixture(scope="module")
def slow(tmp_path_factory, volumes_alone):
    return Slow(tmp_path_factory.mktemp("slow"), volumes_alone)


@pytest.fixture(scope="module")
def waiting_server(slow):
    with triton_server(slow.repository, models=(MODEL,)) as server:
        yield server


@pytest.fixture
def _pinging_often(monkeypatch):
    """Every second, the most that gRPC does."""
    monkeypatch.setattr(servers, "PING_EVERY", 1000)


@pytest.mark.usefixtures("_pinging_often")
def test_many_pings_during_a_long_request_do_not_end_it(slow, waiting_server, volume):
    slow.file.touch()
    with (
        Relay(waiting_server.grpc_url) as relay,
        Client(relay.address, timeout_s=PATIENCE_S) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        answer = pool.submit(client.segment, volume, ["liver"])
        try:
            while not answer.done() and relay.pings.n < MANY:
                relay.pings.has_grown_by(1, 1)
            assert not answer.done(), answer.exception()
        finally:
            slow.file.unlink()
        assert answer.result(PATIENCE_S).label_map.any()


@pytest.mark.usefixtures("_pinging_often")
def test_many_pings_without_a_request_keep_the_connection(waiting_server):
    with (
        Relay(waiting_server.grpc_url) as relay,
        Client(relay.address) as client,
    ):
        assert client.health().is_live
        assert relay.pings.has_grown_by(MANY, PATIENCE_S)
        assert client.health().is_live
        assert relay.connections == 1


def test_a_client_that_is_gone_without_a_word_is_hung_up_on(images_alone):
    """As always, but sooner: an operator may say when."""
    flags = ("--grpc-keepalive-time=200", "--grpc-keepalive-timeout=200")
    with (
        triton_server(images_alone, flags=flags) as server,
        Relay(server.grpc_url) as relay,
        tritonclient.grpc.InferenceServerClient(relay.address) as triton,
    ):
        assert triton.is_server_live()
        relay.hold()
        assert relay.hung_up.wait(PATIENCE_S)
