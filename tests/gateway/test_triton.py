"""The gateway's gRPC, against a server that speaks Triton's protocol."""

import asyncio
import itertools
import socket
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from helpers.grpc_service import PATIENCE_S, Service, listening
from medimageparse_contract.sentences import TOOK_TOO_LONG
from medimageparse_gateway import repeat
from medimageparse_gateway.errors import TritonError
from medimageparse_gateway.triton import Triton, connect
from tritonclient.grpc import service_pb2_grpc

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


@pytest.fixture
def service():
    return Service()


@pytest.fixture
def address(service):
    with listening(service) as address:
        yield address


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
