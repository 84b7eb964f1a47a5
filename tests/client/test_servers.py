"""The client's transports: over gRPC against a server that speaks Triton's protocol."""

import threading

import grpc
import numpy as np
import pytest
from helpers.grpc_service import PATIENCE_S, Service, listening
from medimageparse_client import InvalidRequest, RequestTimeout, ServerError, ServerUnavailable
from medimageparse_client.connection import Connection
from medimageparse_client.errors import OddAnswer
from medimageparse_client.servers import tensors_of
from tritonclient.grpc import service_pb2

INPUTS = {"image": b"\0bytes", "joint": True, "draws": 3, "p_value_threshold": 0.05}
OUTPUTS = ["report", "scores"]
WAYS = ("infer", "stream")


class Recording(Service):
    """Keeps what comes beside the requests: the headers, and the seconds that are left."""

    def respond(self, request, context):
        self.headers, self.left_s = dict(context.invocation_metadata()), context.time_remaining()
        return super().respond(request, context)


@pytest.fixture
def service():
    return Recording()


@pytest.fixture
def connect(service):
    """connect(timeout_s, api_key) to the service."""
    with listening(service) as address:
        made = []

        def connect(timeout_s=PATIENCE_S, api_key=None):
            options = {"ca": None, "certificate": None, "certificate_key": None, "api_key": api_key}
            made.append(Connection(address, "grpc", timeout_s, **options))
            return made[-1]

        yield connect
        for connection in made:
            connection.close()


def ask(connection, way, limit_s=PATIENCE_S, request_id=""):
    """The last answer."""
    if way == "infer":
        return connection.infer("m", INPUTS, OUTPUTS, limit_s, request_id)
    return list(connection.stream("m_stream", INPUTS, OUTPUTS, limit_s, request_id))[-1]


@pytest.mark.parametrize("way", WAYS)
def test_a_request_goes_and_its_answer_comes(connect, service, way):
    answer = ask(connect(api_key="secret"), way, limit_s=50, request_id="7")
    assert answer.texts("report") == ("{}",)
    assert np.array_equal(answer.tensor("scores", np.float32, 2), np.ones((2, 3)))
    [request] = service.requests
    assert (request.id, [tensor.name for tensor in request.inputs]) == ("7", list(INPUTS))
    assert [output.name for output in request.outputs] == [*["progress"] * (way == "stream"), *OUTPUTS]
    assert request.parameters["timeout"].int64_param == 50_000_000  # microseconds
    assert service.headers["authorization"] == "Bearer secret"
    assert 0 < service.left_s < 51  # gRPC rounds what it sends up


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("status", "words", "kind"),
    [
        ("INVALID_ARGUMENT", "in ensemble 'm', the prompt is bad; send another", InvalidRequest),
        ("UNAVAILABLE", "socket closed", ServerUnavailable),
        ("INTERNAL", "boom\n\nAt:\n  /srv/model.py(3): execute", ServerError),
    ],
)
def test_an_error_of_grpc_is_one_of_ours(connect, service, way, status, words, kind):
    service.failure = (grpc.StatusCode[status], words)
    with pytest.raises(kind, match="the prompt is bad|socket closed|^boom$"):
        ask(connect(), way)


@pytest.mark.parametrize(
    ("message", "kind", "words"),
    [
        ("INVALID_ARGUMENT: the prompt is bad; send another", InvalidRequest, "the prompt is bad; send another"),
        ("UNAVAILABLE: Stub process 'x' is not healthy", ServerUnavailable, "one of its processes has died"),
        ("boom", ServerError, "^boom$"),
    ],
)
def test_an_error_in_a_stream_has_the_kind_that_its_sentence_begins_with(connect, service, message, kind, words):
    service.responses = [service_pb2.ModelStreamInferResponse(error_message=message)]
    with pytest.raises(kind, match=words) as caught:
        ask(connect(), "stream")
    assert type(caught.value) is kind


@pytest.mark.parametrize("way", WAYS)
def test_who_does_not_answer_in_time_is_left(connect, service, way):
    service.is_held = True
    with pytest.raises(RequestTimeout):
        ask(connect(), way, limit_s=0.2)
    assert service.cancelled.wait(PATIENCE_S)


@pytest.mark.parametrize("way", WAYS)
def test_closing_the_connection_cancels_what_is_under_way(connect, service, way):
    service.is_held, connection, ends = True, connect(), []

    def wait():
        with pytest.raises(ServerError) as caught:
            ask(connection, way)
        ends.append(caught.value)

    thread = threading.Thread(target=wait)
    thread.start()
    assert service.began.wait(PATIENCE_S)
    connection.close()
    thread.join(PATIENCE_S)
    assert len(ends) == 1
    assert service.cancelled.wait(PATIENCE_S)
    with pytest.raises(ValueError, match="closed"):
        ask(connection, way)


def test_a_stream_that_is_left_is_cancelled(connect, service):
    service.is_held = True
    answers = connect().stream("m_stream", INPUTS, OUTPUTS, PATIENCE_S)
    assert "progress" in next(answers)
    assert service.began.wait(PATIENCE_S)
    answers.close()
    assert service.cancelled.wait(PATIENCE_S)


def test_a_stream_that_ends_without_an_answer_is_odd(connect, service):
    service.responses = []
    with pytest.raises(OddAnswer, match="without an answer"):
        ask(connect(), "stream")


def test_over_http_every_input_is_one_element_of_its_type():
    tensors = {tensor.name(): tensor for tensor in tensors_of(INPUTS)}
    assert {tensor.datatype() for tensor in tensors.values()} == {"BYTES", "BOOL", "INT32", "FP32"}
    assert all(tensor.shape() == [1] for tensor in tensors.values())
    sent = {name: tensor._get_binary_data() for name, tensor in tensors.items()}
    assert sent == {
        "image": b"\6\0\0\0\0bytes",
        "joint": b"\1",
        "draws": np.int32(3).tobytes(),
        "p_value_threshold": np.float32(0.05).tobytes(),
    }
