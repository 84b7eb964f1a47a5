"""The gateway's gRPC, against a server that speaks Triton's protocol."""

import asyncio
import itertools
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from helpers.gateway import PATIENCE_S
from medimageparse_contract.sentences import TOOK_TOO_LONG
from medimageparse_gateway import repeat
from medimageparse_gateway.errors import TritonError
from medimageparse_gateway.triton import Triton, connect, encode_request
from tritonclient.grpc import InferInput, service_pb2, service_pb2_grpc
from tritonclient.utils import deserialize_bytes_tensor

INPUTS = {"image": b"\0bytes", "text": "Leber, groß", "joint": True, "p_value_threshold": 0.05}

FAILURES = [
    ("INVALID_ARGUMENT", "in ensemble 'x', the prompt is bad; send another", "invalid_argument", "the prompt is bad"),
    ("UNAVAILABLE", "Exceeds maximum queue size", "queue_full", "queue is full"),
    ("UNAVAILABLE", "Request timeout expired", "timeout", "time limit"),
    ("CANCELLED", f"{TOOK_TOO_LONG}, 600 s; send less", "timeout", "time limit"),
    ("UNAVAILABLE", "failed to connect to 10.0.0.1:8001", "unavailable", "does not answer"),
    ("NOT_FOUND", "Request for unknown model: 'medimageparse_3d' is not found", "unavailable", "does not answer"),
    ("INTERNAL", "Stub process 'x' is not healthy", "unavailable", "does not answer"),
    ("INTERNAL", "boom\n\nAt:\n  /srv/model.py(3): execute", "internal", "a step of the model failed"),
    ("UNKNOWN", "PATIENT", "internal", "a step of the model failed"),
    ("DEADLINE_EXCEEDED", "Deadline Exceeded", "timeout", "time limit"),
    ("CANCELLED", "the request was cancelled", "cancelled", "cancelled"),
    ("RESOURCE_EXHAUSTED", "Received message larger than max (5 vs. 4)", "invalid_argument", "larger than"),
]


class Service(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Answers with `responses`, or ends with `failure`; a held request waits until it is cancelled."""

    failure = None
    is_held = False
    ready = ("medimageparse",)

    def __init__(self):
        self.requests, self.cancelled, self.began = [], threading.Event(), threading.Event()

    def respond(self, request, context):
        self.requests.append(request)
        self.began.set()
        if self.is_held:
            context.add_callback(self.cancelled.set)
            self.cancelled.wait(PATIENCE_S)
        if self.failure:
            context.abort(*self.failure)
        return response(report=np.array([b"{}"], np.object_), scores=np.ones((2, 3), np.float32))

    def ModelInfer(self, request, context):
        return self.respond(request, context)

    def ModelStreamInfer(self, request_iterator, context):
        for request in request_iterator:
            yield service_pb2.ModelStreamInferResponse(infer_response=response(progress=np.array([b"1"], np.object_)))
            answer = self.respond(request, context)
            yield service_pb2.ModelStreamInferResponse(infer_response=answer)
            yield service_pb2.ModelStreamInferResponse()  # as Triton marks the end

    def ModelReady(self, request, context):
        if request.name == "nobody":
            context.abort(grpc.StatusCode.UNAVAILABLE, "away")
        return service_pb2.ModelReadyResponse(ready=request.name in self.ready)


def response(**arrays):
    answer = service_pb2.ModelInferResponse()
    for name, array in arrays.items():
        tensor = InferInput(name, array.shape, "BYTES" if array.dtype == np.object_ else "FP32")
        tensor.set_data_from_numpy(array)
        answer.outputs.add(name=name, datatype=tensor.datatype(), shape=array.shape)
        answer.raw_output_contents.append(tensor._get_content())
    return answer


@pytest.fixture
def service():
    return Service()


@pytest.fixture
def address(service):
    server = grpc.server(ThreadPoolExecutor(4))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    service.cancelled.set()
    server.stop(None).wait()


def run(address, work, **options):
    """work(triton) in an event loop of its own."""

    async def running():
        triton = Triton(address, **options)
        try:
            return await work(triton)
        finally:
            await triton.close()

    return asyncio.run(running())


def infer(triton):
    return triton.infer("medimageparse_3d", INPUTS, ["report", "scores"], timeout_s=PATIENCE_S, request_id="7")


async def stream(triton):
    outputs = ["progress", "report", "scores"]
    answers = triton.stream("medimageparse_3d_stream", INPUTS, outputs, timeout_s=PATIENCE_S)
    return [arrays async for arrays in answers]


def test_every_input_is_one_element_of_its_type():
    request = service_pb2.ModelInferRequest.FromString(encode_request("m", INPUTS, ["report"], 1.5, "7"))
    assert (request.model_name, request.id, request.parameters["timeout"].int64_param) == ("m", "7", 1_500_000)
    assert [output.name for output in request.outputs] == ["report"]
    sent = dict(zip([tensor.name for tensor in request.inputs], request.raw_input_contents, strict=True))
    kinds = {tensor.name: (tensor.datatype, list(tensor.shape)) for tensor in request.inputs}
    assert kinds["image"] == kinds["text"] == ("BYTES", [1])
    assert (kinds["joint"], kinds["p_value_threshold"]) == (("BOOL", [1]), ("FP32", [1]))
    assert deserialize_bytes_tensor(sent["image"]).item() == b"\0bytes"
    assert deserialize_bytes_tensor(sent["text"]).item() == "Leber, groß".encode()
    assert (sent["joint"], sent["p_value_threshold"]) == (b"\1", np.float32(0.05).tobytes())


@pytest.mark.parametrize("n_bytes", [0, 1, 123, 124, 16379, 16380, 2**21 - 5, 2**21 - 4])
def test_contents_of_every_length_arrive_whole(n_bytes):
    content = bytearray(b"x" * n_bytes)
    request = service_pb2.ModelInferRequest.FromString(encode_request("m", {"image": content, "text": "a"}, [], 1, ""))
    image, text = map(deserialize_bytes_tensor, request.raw_input_contents)
    assert (image.item(), text.item()) == (bytes(content), b"a")


def test_outputs_come_back_as_arrays(service, address):
    answer = run(address, infer)
    assert answer["report"].item() == b"{}"
    np.testing.assert_array_equal(answer["scores"], np.ones((2, 3), np.float32))
    assert [request.model_name for request in service.requests] == ["medimageparse_3d"]


@pytest.fixture
def no_pauses(monkeypatch):
    monkeypatch.setattr(repeat, "pauses", lambda: itertools.repeat(1e-3))


def failing_at_first(service, *failures):
    """The service ends with the failures, one a request, and then answers."""
    failures, usual = list(failures), service.respond

    def respond(request, context):
        service.failure = failures.pop(0) if failures else None
        return usual(request, context)

    service.respond = respond


@pytest.mark.parametrize(
    "failure", [failure for failure in FAILURES if failure[2] == "unavailable"], ids=lambda failure: failure[0]
)
@pytest.mark.usefixtures("no_pauses")
def test_a_server_that_restarts_is_asked_again(service, address, failure):
    failing_at_first(service, *[(grpc.StatusCode[failure[0]], failure[1])] * 3)
    assert run(address, infer, retry_for_s=60)["report"].item() == b"{}"
    assert len(service.requests) == 4
    assert len({request.SerializeToString(deterministic=True) for request in service.requests}) == 1


@pytest.mark.parametrize(
    "failure", [failure for failure in FAILURES if failure[2] != "unavailable"], ids=lambda failure: failure[1][:20]
)
def test_what_would_only_fail_again_is_asked_once(service, address, failure):
    failing_at_first(service, (grpc.StatusCode[failure[0]], failure[1]))
    with pytest.raises(TritonError):
        run(address, infer, retry_for_s=60)
    assert len(service.requests) == 1


@pytest.mark.usefixtures("no_pauses")
def test_a_stream_that_a_restart_ends_is_asked_again_and_has_one_result(service, address):
    failing_at_first(service, *[(grpc.StatusCode.UNAVAILABLE, "away")] * 2)
    *told, result = run(address, stream, retry_for_s=60)
    assert [arrays["progress"].item() for arrays in told] == [b"1"] * 3  # anew each time
    assert set(result) == {"report", "scores"}
    assert len(service.requests) == 3


@pytest.mark.parametrize("retry_for_s", [0, 60])
def test_a_stream_that_breaks_after_its_result_is_not_asked_again(service, address, retry_for_s):
    whole = Service.ModelStreamInfer

    def broken(self, request_iterator, context):
        yield from whole(self, request_iterator, context)
        context.abort(grpc.StatusCode.UNAVAILABLE, "away")

    service.ModelStreamInfer = broken.__get__(service)
    progress, result = run(address, stream, retry_for_s=retry_for_s)
    assert (set(progress), set(result)) == ({"progress"}, {"report", "scores"})
    assert len(service.requests) == 1


@pytest.mark.parametrize("call", [infer, stream])
@pytest.mark.usefixtures("no_pauses")
def test_a_server_that_stays_away_is_given_up(service, address, call):
    service.failure = (grpc.StatusCode.UNAVAILABLE, "away")
    with pytest.raises(TritonError):
        run(address, call, retry_for_s=5.5e-3)
    assert len(service.requests) == 6


def test_an_answer_without_an_output_is_a_failed_step(address):
    with pytest.raises(TritonError) as caught:
        run(address, lambda triton: triton.infer("m", INPUTS, ["report", "nifti_file"], timeout_s=PATIENCE_S))
    assert caught.value.kind == "internal"


def test_a_stream_gives_each_response_as_it_comes(address):
    progress, result = run(address, stream)
    assert progress["progress"].item() == b"1"
    assert set(result) == {"report", "scores"}


@pytest.mark.parametrize(("status", "words", "kind", "told"), FAILURES)
@pytest.mark.parametrize("call", [infer, stream])
def test_failures_have_a_kind_and_a_sentence_without_addresses(service, address, call, status, words, kind, told):
    service.failure = (grpc.StatusCode[status], words)
    with pytest.raises(TritonError) as caught:
        run(address, call)
    assert caught.value.kind == kind
    assert told in caught.value.sentence
    assert not any(secret in caught.value.sentence for secret in ("10.0.0.1", "/srv", "Stub", "PATIENT", "ensemble"))


def test_nobody_at_the_address_is_unavailable():
    with pytest.raises(TritonError) as caught:
        run("127.0.0.1:1", infer)
    assert caught.value.kind == "unavailable"


@pytest.mark.parametrize("call", [infer, stream])
def test_cancelling_the_task_cancels_the_call(service, address, call):
    service.is_held = True

    async def cancel(triton):
        task = asyncio.ensure_future(call(triton))
        await asyncio.to_thread(service.began.wait, PATIENCE_S)
        task.cancel()
        await asyncio.wait((task,))
        return await asyncio.to_thread(service.cancelled.wait, PATIENCE_S)

    assert run(address, cancel)


def test_time_limits_end_the_call(service, address):
    service.is_held = True
    with pytest.raises(TritonError) as caught:
        run(address, lambda triton: triton.infer("m", INPUTS, ["report"], timeout_s=0.05))
    assert caught.value.kind == "timeout"


@pytest.mark.parametrize(("models", "is_ready"), [((), False), (("medimageparse",), True)])
def test_it_is_ready_while_any_public_model_is(service, address, models, is_ready):
    service.ready = models
    assert run(address, lambda triton: triton.ready()) is is_ready
    assert run(address, lambda triton: triton.models_ready())["medimageparse"] is is_ready


def test_a_server_that_is_away_is_not_ready():
    assert run("127.0.0.1:1", lambda triton: triton.ready()) is False


def test_a_server_that_comes_back_is_asked_again():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    async def away_and_back(triton):
        was_ready = await triton.has("medimageparse")
        server = grpc.server(ThreadPoolExecutor(4))
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Service(), server)
        server.add_insecure_port(triton.address)
        server.start()
        while not await triton.has("medimageparse"):
            await asyncio.sleep(0.01)
        await asyncio.to_thread(server.stop(None).wait)
        return was_ready

    assert run(f"127.0.0.1:{port}", away_and_back) is False


@pytest.mark.parametrize("url", ["", "nohost", "host:port", "ftp://host:1", "http://host:1"])
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(ValueError, match="host:port|protocol"):
        connect(url)
