import socket
import threading

import medimageparse_client
import pytest
from medimageparse_client import (
    AccessDenied,
    Client,
    InvalidImage,
    InvalidRequest,
    InvalidVolume,
    MedImageParseError,
    RequestTimeout,
    ServerError,
    ServerUnavailable,
    errors,
)
from medimageparse_client.errors import translate_errors
from medimageparse_contract.sentences import TOOK_TOO_LONG
from tritonclient.utils import InferenceServerException


@pytest.mark.parametrize(
    ("grpc_status", "http_status", "kind"),
    [
        ("StatusCode.INVALID_ARGUMENT", "400", InvalidRequest),
        ("StatusCode.UNAVAILABLE", "503", ServerUnavailable),
        ("StatusCode.NOT_FOUND", "404", ServerUnavailable),
        ("StatusCode.DEADLINE_EXCEEDED", "504", RequestTimeout),
        ("StatusCode.INTERNAL", "500", ServerError),
        ("StatusCode.UNIMPLEMENTED", "501", ServerError),
        ("StatusCode.UNAUTHENTICATED", "401", AccessDenied),
        ("StatusCode.PERMISSION_DENIED", "403", AccessDenied),
        ("StatusCode.UNAVAILABLE", "502", ServerUnavailable),
        ("StatusCode.INVALID_ARGUMENT", "413", InvalidRequest),
        (None, "418", ServerError),
    ],
)
def test_every_status_has_its_error(grpc_status, http_status, kind):
    for status in (grpc_status, http_status):
        with pytest.raises(MedImageParseError) as caught, translate_errors("host:1", 5):
            raise InferenceServerException("the words", status)
        assert type(caught.value) is kind
        assert ("host:1" if kind is RequestTimeout else "the words") in str(caught.value)


def test_the_sentence_comes_without_ensemble_and_traceback():
    message = "in ensemble 'medimageparse_3d', in ensemble 'inner', send another\n\nAt:\n  /srv/model.py(3): execute"
    with pytest.raises(InvalidRequest, match=r"^send another$"), translate_errors("host:1", 5):
        raise InferenceServerException(message, "400")


def test_who_waited_too_long_in_the_queue_is_told_so():
    with pytest.raises(RequestTimeout, match="waited in the queue of host:1"), translate_errors("host:1", 5):
        raise InferenceServerException("Request timeout expired", "StatusCode.UNAVAILABLE")


def test_work_that_the_server_ended_is_a_request_that_took_too_long():
    sentence = f"{TOOK_TOO_LONG}, 600 s; send a smaller image, or fewer prompts"
    for status in ("StatusCode.CANCELLED", "499"):
        with pytest.raises(RequestTimeout, match=f"^{sentence}$"), translate_errors("host:1", 5):
            raise InferenceServerException(sentence, status)


def test_what_is_not_tritons_is_not_quoted():
    page = "an exception occurred in the client while decoding the response: Expecting value\nresponse: <html>"
    sentence = r"not available: a proxy, .* answered with HTTP 502$"
    with pytest.raises(ServerUnavailable, match=sentence), translate_errors("host:1", 5):
        raise InferenceServerException(page, "502")


def test_the_tree():
    assert issubclass(InvalidVolume, InvalidRequest)
    assert issubclass(InvalidImage, InvalidRequest)
    for name in ("InvalidRequest", "RequestTimeout", "ServerError", "ServerUnavailable"):
        assert getattr(errors, name).__base__ is MedImageParseError


def test_the_public_list_is_complete():
    public = {name for name, value in vars(medimageparse_client).items() if isinstance(value, type)}
    assert public == set(medimageparse_client.__all__)


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_nobody_there(protocol, listener, volume, affine):
    port = listener.getsockname()[1]
    listener.close()
    with Client(f"127.0.0.1:{port}", protocol=protocol, timeout_s=5, retries=0) as client:
        with pytest.raises(ServerUnavailable, match=f"127.0.0.1:{port} is not available"):
            client.segment(volume, "liver", affine=affine)
        assert not client.health().is_live
        assert "not available" in client.health().problem


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_no_answer(protocol, listener, volume, affine):
    address = f"127.0.0.1:{listener.getsockname()[1]}"
    with (
        Client(address, protocol=protocol, timeout_s=0.2) as client,
        pytest.raises(RequestTimeout, match=r"within 0\.2 s"),
    ):
        client.segment(volume, "liver", affine=affine)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_not_a_triton_server(protocol, listener, volume, affine):
    def hang_up():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(100)
                connection.sendall(b"SSH-2.0-other\r\n\r\n")

    threading.Thread(target=hang_up, daemon=True).start()
    address = f"127.0.0.1:{listener.getsockname()[1]}"
    with Client(address, protocol=protocol, timeout_s=5, retries=0) as client, pytest.raises(ServerUnavailable):
        client.segment(volume, "liver", affine=affine)
