"""The only way to the models: gRPC, with tensors built here from values, never from a caller's shape or JSON."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import grpc
from medimageparse_client.errors import ENSEMBLE_PREFIX, QUEUE_FULL, WAITED_TOO_LONG
from medimageparse_client.servers import channel_options
from medimageparse_client.urls import split_url
from medimageparse_client.wire import SERVICE, Value, encode_request
from medimageparse_contract.models import PUBLIC_MODELS
from medimageparse_contract.sentences import STEP_DIED, TOOK_TOO_LONG, split_code
from numpy.typing import NDArray
from tritonclient.grpc import InferResult, service_pb2

from medimageparse_gateway.errors import Kind, TritonError
from medimageparse_gateway.repeat import Patience, repeated

Arrays: TypeAlias = dict[str, NDArray[Any]]

ASK_S = 5.0  # for whether a model is ready
KINDS: dict[grpc.StatusCode, Kind] = {
    grpc.StatusCode.INVALID_ARGUMENT: "invalid_argument",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "invalid_argument",  # the message is larger than Triton takes
    grpc.StatusCode.DEADLINE_EXCEEDED: "timeout",
    grpc.StatusCode.CANCELLED: "cancelled",
    grpc.StatusCode.UNAVAILABLE: "unavailable",
    grpc.StatusCode.NOT_FOUND: "unavailable",
}
# what is told of each kind whose words may hold addresses, paths or names of processes
SENTENCES: dict[Kind, str] = {
    "queue_full": "the model is busy and its queue is full; try again later",
    "timeout": "the model did not answer within the time limit; a smaller input may help",
    "cancelled": "the request was cancelled before the model answered",
    "unavailable": "the model does not answer now; try again later",
    "internal": "a step of the model failed; the server's log says why",
}


class Triton:
    """One connection to a tritonserver, for one event loop. Opened by the first call."""

    def __init__(
        self, address: str, credentials: grpc.ChannelCredentials | None = None, retry_for_s: float = 0
    ) -> None:
        """retry_for_s: seconds that `infer` waits for a server that is away; a stream is not asked again."""
        self.address, self.credentials, self.retry_for_s = address, credentials, retry_for_s
        self._open: grpc.aio.Channel | None = None

    @property
    def _channel(self) -> grpc.aio.Channel:
        if self._open is None:
            options = channel_options(self.address)
            self._open = (
                grpc.aio.secure_channel(self.address, self.credentials, options)
                if self.credentials
                else grpc.aio.insecure_channel(self.address, options)
            )
        return self._open

    async def close(self) -> None:
        if self._open is not None:
            await self._open.close()

    async def infer(
        self,
        model: str,
        inputs: Mapping[str, Value],
        outputs: Sequence[str],
        *,
        timeout_s: float,
        request_id: str = "",
    ) -> Arrays:
        """The outputs by name. Cancelling the task that awaits this cancels the model's work. Raises TritonError."""
        request = await asyncio.to_thread(encode_request, model, inputs, outputs, timeout_s, request_id)

        # bytes in, bytes out: a large message is packed and unpacked in a thread, not on the event loop
        async def ask(left_s: float) -> bytes:
            with errors_translated():
                answer: bytes = await self._channel.unary_unary(SERVICE + "ModelInfer")(request, timeout=left_s)
            return answer

        answer = await repeated(ask, timeout_s, self.retry_for_s)
        arrays = await asyncio.to_thread(decode_answer, answer)
        if not arrays.keys() >= set(outputs):
            raise TritonError("internal", SENTENCES["internal"])
        return arrays

    async def stream(
        self,
        model: str,
        inputs: Mapping[str, Value],
        outputs: Sequence[str],
        *,
        timeout_s: float,
        request_id: str = "",
    ) -> AsyncGenerator[Arrays, None]:
        """The responses of a decoupled model, each with the outputs that it has. Closing it cancels the work.

        Where a restart ends it before the last response, it is asked again, and `progress` begins anew.
        """
        request = await asyncio.to_thread(encode_request, model, inputs, outputs, timeout_s, request_id)
        patience, is_answered = Patience(timeout_s, self.retry_for_s), False
        while True:
            try:
                async with aclosing(self._stream_once(request, patience.left_s)) as answers:
                    async for arrays in answers:
                        is_answered = is_answered or "progress" not in arrays
                        yield arrays
                return
            except TritonError as error:
                if is_answered:  # the whole result has come
                    return
                await patience.after(error)

    async def _stream_once(self, request: bytes, timeout_s: float) -> AsyncGenerator[Arrays, None]:
        with errors_translated():
            call = self._channel.stream_stream(SERVICE + "ModelStreamInfer")(_one(request), timeout=timeout_s)
            try:
                async for answer in call:
                    arrays = await asyncio.to_thread(decode_stream_answer, answer)
                    if arrays:
                        yield arrays
            finally:
                call.cancel()

    async def models_ready(self) -> dict[str, bool]:
        """Whether each public model takes requests now; all False where there is no server."""
        return dict(zip(PUBLIC_MODELS, await asyncio.gather(*map(self.has, PUBLIC_MODELS)), strict=True))

    async def has(self, model: str) -> bool:
        """Whether a model takes requests now."""
        request = service_pb2.ModelReadyRequest(name=model).SerializeToString()
        try:
            answer = await self._channel.unary_unary(SERVICE + "ModelReady")(request, timeout=ASK_S)
        except grpc.RpcError:
            return False
        return bool(service_pb2.ModelReadyResponse.FromString(answer).ready)

    async def ready(self) -> bool:
        """Whether any public model takes requests; a server may serve only one."""
        return any((await self.models_ready()).values())


def connect(url: str, ca: str = "", retry_for_s: float = 0) -> Triton:
    """For "host:port", or with TLS "grpcs://host:port"; ValueError or OSError say what is wrong."""
    _, address, is_encrypted = split_url(url, "grpc")
    if not is_encrypted:
        return Triton(address, retry_for_s=retry_for_s)
    authority = Path(ca).read_bytes() if ca else None  # without it, the well-known ones
    return Triton(address, grpc.ssl_channel_credentials(authority), retry_for_s)


async def _one(request: bytes) -> AsyncIterator[bytes]:
    yield request


def decode_answer(answer: bytes) -> Arrays:
    return arrays_of(service_pb2.ModelInferResponse.FromString(answer))


def decode_stream_answer(answer: bytes) -> Arrays:
    message = service_pb2.ModelStreamInferResponse.FromString(answer)
    if message.error_message:
        code, words = split_code(message.error_message)
        raise error_of(grpc.StatusCode[code or "INTERNAL"], words)
    return arrays_of(message.infer_response)


def arrays_of(response: Any) -> Arrays:
    result = InferResult(response)
    return {output.name: result.as_numpy(output.name) for output in response.outputs}


@contextmanager
def errors_translated() -> Iterator[None]:
    """Raises what gRPC raises in the block as TritonError."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise error_of(error.code(), error.details() or "") from None  # its traceback would hold the request


def error_of(status: grpc.StatusCode, words: str) -> TritonError:
    """What is told of an error: of refusals the model's own sentence, of all else a fixed one."""
    words = ENSEMBLE_PREFIX.sub("", words).split("\n", 1)[0]
    kind = KINDS.get(status, "internal")
    if words == QUEUE_FULL:
        kind = "queue_full"
    elif words == WAITED_TOO_LONG or words.startswith(TOOK_TOO_LONG):
        kind = "timeout"
    elif STEP_DIED.match(words):
        kind = "unavailable"
    if status is grpc.StatusCode.RESOURCE_EXHAUSTED:
        words = "the request is larger than the model takes"
    return TritonError(kind, SENTENCES.get(kind, words))
