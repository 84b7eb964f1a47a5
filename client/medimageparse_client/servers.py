"""A Triton server over gRPC or HTTP: values in, tritonclient's results and errors out."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import grpc
import numpy as np
import tritonclient.http
from medimageparse_contract.sentences import split_code
from tritonclient.grpc import MAX_GRPC_MESSAGE_SIZE, InferResult, service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

from medimageparse_client.errors import OddAnswer
from medimageparse_client.urls import is_this_machine
from medimageparse_client.wire import SERVICE, encode_request, encode_value, microseconds

# milliseconds. Firewalls and load balancers forget a silent connection after four minutes, some after one
PING_EVERY, PING_ANSWER = 30_000, 60_000
ONLY_UNCOMPRESSED = 1  # the bit of "identity" among gRPC's compressions
RECONNECT_MS = 1000  # gRPC's own is two minutes: so long after a restart nobody would be answered
Inputs: TypeAlias = Mapping[str, bytes | bool | float]


class GrpcServer:
    """By tritonclient's messages; its own client copies a file three times more before it is sent."""

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float,
        headers: Mapping[str, str],
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        options = channel_options(url)
        self._channel = (
            grpc.secure_channel(url, credentials, options) if credentials else grpc.insecure_channel(url, options)
        )
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._options = {"metadata": tuple(headers.items()), "timeout": timeout_s}

    def close(self) -> None:
        """Cancels what is under way."""
        self._channel.close()

    def is_live(self) -> bool:
        with errors_of_grpc():
            return bool(self._stub.ServerLive(service_pb2.ServerLiveRequest(), **self._options).live)

    def is_ready(self, model: str) -> bool:
        with errors_of_grpc():
            return bool(self._stub.ModelReady(service_pb2.ModelReadyRequest(name=model), **self._options).ready)

    def metadata(self) -> dict[str, Any]:
        with errors_of_grpc():
            told = self._stub.ServerMetadata(service_pb2.ServerMetadataRequest(), **self._options)
        return {"name": told.name, "version": told.version}

    def infer(
        self, model: str, inputs: Inputs, outputs: Sequence[str], *, limit_s: float, request_id: str
    ) -> InferResult:
        """The server stops within a window of slices once the call ends."""
        answer = service_pb2.ModelInferResponse.FromString
        method = self._channel.unary_unary(SERVICE + "ModelInfer", response_deserializer=answer)
        request = encode_request(model, inputs, outputs, limit_s, request_id)
        with errors_of_grpc():
            return InferResult(method(request, **self._options | {"timeout": limit_s}))

    def stream(
        self, model: str, inputs: Inputs, outputs: Sequence[str], *, limit_s: float, request_id: str
    ) -> Generator[InferResult, None, None]:
        """The responses of a decoupled model. Closing the iterator before its end cancels the request."""
        answer = service_pb2.ModelStreamInferResponse.FromString
        method = self._channel.stream_stream(SERVICE + "ModelStreamInfer", response_deserializer=answer)
        request = encode_request(model, inputs, outputs, limit_s, request_id)
        with errors_of_grpc():
            call = method(iter([request]), **self._options | {"timeout": limit_s})
            try:
                for response in call:
                    if response.error_message:
                        raise coded_error(response.error_message)
                    yield InferResult(response.infer_response)
            finally:
                call.cancel()


class HttpServer(tritonclient.http.InferenceServerClient):  # type: ignore[misc]
    """As tritonclient's, but for compressed answers: it unpacks them whatever their size, and none is asked for."""

    def __init__(self, url: str, *, timeout_s: float, headers: Mapping[str, str], **tls: Any) -> None:
        super().__init__(url, connection_timeout=timeout_s, network_timeout=timeout_s, **tls)
        self._headers = dict(headers)

    def is_live(self) -> bool:
        return bool(self.is_server_live(headers=self._headers))

    def is_ready(self, model: str) -> bool:
        return bool(self.is_model_ready(model, headers=self._headers))

    def metadata(self) -> dict[str, Any]:
        told: dict[str, Any] = self.get_server_metadata(headers=self._headers)
        return told

    def infer(
        self, model: str, inputs: Inputs, outputs: Sequence[str], *, limit_s: float, request_id: str
    ) -> tritonclient.http.InferResult:
        """The server stops within a window of slices at the time-out that the request names, not before."""
        wanted = [tritonclient.http.InferRequestedOutput(name) for name in outputs]
        options = {"request_id": request_id, "timeout": microseconds(limit_s), "headers": self._headers}
        return super().infer(model, tensors_of(inputs), outputs=wanted, **options)

    def _post(self, *arguments: Any, **options: Any) -> Any:
        response = super()._post(*arguments, **options)
        if response.get("Content-Encoding") not in (None, "identity"):
            response.release()
            raise OddAnswer("the server's answer is compressed, which it was not asked for")
        return response


def tensors_of(inputs: Inputs) -> list[Any]:
    """For HTTP; each input is one element of the type that its value has."""
    tensors = []
    for name, value in inputs.items():
        datatype, _ = encode_value(value)
        tensors.append(tritonclient.http.InferInput(name, [1], datatype))
        tensors[-1].set_data_from_numpy(np.array([value], triton_to_np_dtype(datatype)))
    return tensors


def channel_options(url: str) -> list[tuple[str, int]]:
    """What gRPC wants to be told of the connection to this "host:port"."""
    return [
        ("grpc.max_send_message_length", MAX_GRPC_MESSAGE_SIZE),
        ("grpc.max_receive_message_length", MAX_GRPC_MESSAGE_SIZE),
        # or a small answer of somebody else's server could unpack to gigabytes
        ("grpc.compression_enabled_algorithms_bitset", ONLY_UNCOMPRESSED),
        ("grpc.keepalive_time_ms", PING_EVERY),
        ("grpc.keepalive_timeout_ms", PING_ANSWER),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),  # no limit
        ("grpc.max_reconnect_backoff_ms", RECONNECT_MS),
        ("grpc.enable_http_proxy", int(not is_this_machine(url))),
    ]


@contextmanager
def errors_of_grpc() -> Iterator[None]:
    """Raises what gRPC raises in the block as tritonclient does."""
    try:
        yield
    except grpc.RpcError as error:
        status, words = str(error.code()), error.details()
        raise InferenceServerException(words, status, error.debug_error_string()) from None


def coded_error(message: str) -> InferenceServerException:
    """Of a stream's response: with the code that its sentence begins with, as errors elsewhere have it."""
    code, words = split_code(message)
    return InferenceServerException(words, f"StatusCode.{code}" if code else None)
