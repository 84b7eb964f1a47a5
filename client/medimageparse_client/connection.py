"""One connection to a Triton server, over gRPC or HTTP: errors become this package's, odd answers too."""

import math
import queue
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import tritonclient.grpc
import tritonclient.http
from medimageparse_contract.sentences import split_code
from tritonclient.grpc import MAX_GRPC_MESSAGE_SIZE
from tritonclient.utils import InferenceServerException

from medimageparse_client.access import key_headers, tls_options
from medimageparse_client.errors import OddAnswer, translate_errors
from medimageparse_client.proxies import proxies_named
from medimageparse_client.results.answer import Answer, odd_answers_refused
from medimageparse_client.urls import Protocol, is_this_machine, split_url

# milliseconds. Firewalls and load balancers forget a silent connection after four minutes, some after one
PING_EVERY, PING_ANSWER = 30_000, 60_000
ONLY_UNCOMPRESSED = 1  # the bit of "identity" among gRPC's compressions
RECONNECT_MS = 1000  # gRPC's own is two minutes: so long after a restart nobody would be answered
# what an input of a model is made of -> its type there, and numpy's
TENSOR_TYPES: dict[type, tuple[str, Any]] = {
    bytes: ("BYTES", np.object_),
    bool: ("BOOL", np.bool_),
    int: ("INT32", np.int32),
    float: ("FP32", np.float32),
}
PROGRESS = "progress"  # the output of a stream's responses before the last
Inputs: TypeAlias = Mapping[str, bytes | bool | float]


class HttpServer(tritonclient.http.InferenceServerClient):  # type: ignore[misc]
    """As tritonclient's, but for compressed answers: it unpacks them whatever their size, and none is asked for."""

    def _post(self, *arguments: Any, **options: Any) -> Any:
        response = super()._post(*arguments, **options)
        if response.get("Content-Encoding") not in (None, "identity"):
            response.release()
            raise OddAnswer("the server's answer is compressed, which it was not asked for")
        return response


def with_code(error: Exception) -> Exception:
    """An error of a stream with the code that its sentence begins with, as errors elsewhere have it."""
    if not isinstance(error, InferenceServerException) or error.status() is not None:
        return error
    code, words = split_code(error.message())
    coded: Exception = InferenceServerException(words, f"StatusCode.{code}") if code else error
    return coded


class Connection:
    """For one thread; `Client` says what the arguments are."""

    def __init__(
        self,
        url: str,
        protocol: Protocol | None,
        timeout_s: float,
        *,
        ca: str | Path | None,
        certificate: str | Path | None,
        certificate_key: str | Path | None,
        api_key: str | None,
    ) -> None:
        if not timeout_s > 0 or timeout_s == float("inf"):
            raise ValueError("timeout_s is a finite number of seconds above 0")
        self.protocol, self.url, is_encrypted = split_url(url, protocol)
        if not is_encrypted and (ca or certificate or certificate_key):
            raise ValueError("certificates need https:// or grpcs:// before the host")
        tls = tls_options(self.protocol, ca, certificate, certificate_key) if is_encrypted else {}
        self.timeout_s = timeout_s
        self._options: dict[str, Any] = key_headers(api_key, self.url, is_encrypted)
        self._triton: Any = tritonclient.grpc if self.protocol == "grpc" else tritonclient.http
        if self.protocol == "grpc":
            self._options["client_timeout"] = timeout_s
            self._server = tritonclient.grpc.InferenceServerClient(
                self.url, channel_args=channel_options(self.url), **tls
            )
        else:
            self._server = HttpServer(self.url, connection_timeout=timeout_s, network_timeout=timeout_s, **tls)
        self._is_closed = self._is_streaming = False

    def close(self) -> None:
        self._is_closed = True
        if self._is_streaming:
            self._server.stop_stream(cancel_requests=True)  # else `close` waits for its end
        self._server.close()

    def infer(self, model: str, inputs: Inputs, outputs: Sequence[str], limit_s: float) -> Answer:
        """The named outputs of a model, in at most so many seconds; each input is one element."""
        tensors, wanted = self._tensors_of(inputs), self._wanted(outputs)
        with self._errors_translated():
            answer = self._server.infer(model, tensors, outputs=wanted, **self._options | self._limits(limit_s))
            return Answer({name: answer.as_numpy(name) for name in outputs})

    def stream(
        self, model: str, inputs: Inputs, outputs: Sequence[str], limit_s: float
    ) -> Generator[Answer, None, None]:
        """The responses of a decoupled model, over gRPC: some with `progress` alone, then one with the named outputs.

        Closing the iterator before its end cancels the request.
        """
        tensors, wanted = self._tensors_of(inputs), self._wanted([PROGRESS, *outputs])
        came: queue.SimpleQueue[tuple[Any, Exception | None]] = queue.SimpleQueue()
        headers, is_last = self._options.get("headers", {}), False
        with self._errors_translated():
            self._server.start_stream(
                lambda result, error: came.put((result, error)), stream_timeout=limit_s, headers=headers
            )
        self._is_streaming = True
        try:
            with self._errors_translated():
                self._server.async_stream_infer(
                    model, tensors, outputs=wanted, timeout=self._limits(limit_s)["timeout"]
                )
            while not is_last:
                with self._translated():  # another thread may have closed the client, and so ended the stream
                    answer = self._next(came, limit_s)
                is_last = PROGRESS not in answer
                yield answer
        finally:
            self._is_streaming = False
            self._server.stop_stream(cancel_requests=not is_last)

    def _next(self, came: "queue.SimpleQueue[tuple[Any, Exception | None]]", limit_s: float) -> Answer:
        try:
            result, error = came.get(timeout=limit_s)
        except queue.Empty:  # a stream that ended without an answer, or an error, says nothing
            raise TimeoutError from None
        if error:
            raise with_code(error)
        return Answer({output.name: result.as_numpy(output.name) for output in result.get_response().outputs})

    def _limits(self, limit_s: float) -> dict[str, Any]:
        """The server stops within a window of slices: over gRPC once the call ends, over HTTP at this time-out."""
        of_call = {"client_timeout": limit_s} if self.protocol == "grpc" else {}
        return {"timeout": math.ceil(limit_s * 1e6), **of_call}  # microseconds

    def _tensors_of(self, inputs: Inputs) -> list[Any]:
        tensors = []
        for name, value in inputs.items():
            triton_type, numpy_type = TENSOR_TYPES[type(value)]
            tensors.append(self._triton.InferInput(name, [1], triton_type))
            tensors[-1].set_data_from_numpy(np.array([value], numpy_type))
        return tensors

    def _wanted(self, outputs: Sequence[str]) -> list[Any]:
        return [self._triton.InferRequestedOutput(name) for name in outputs]

    def is_live(self) -> bool:
        with self._errors_translated():
            return bool(self._server.is_server_live(**self._options))

    def is_ready(self, model: str) -> bool:
        with self._errors_translated():
            return bool(self._server.is_model_ready(model, **self._options))

    def describe(self) -> str:
        """The server's name and version."""
        as_json = {"as_json": True} if self.protocol == "grpc" else {}
        with self._errors_translated():
            metadata = self._server.get_server_metadata(**self._options, **as_json)
            return f"{metadata['name']} {metadata['version']}"

    @contextmanager
    def _errors_translated(self) -> Iterator[None]:
        if self._is_closed:
            raise ValueError("this client is closed; make another one")
        with self._translated():
            yield

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Only gRPC knows proxies."""
        with (
            proxies_named(self.url) if self.protocol == "grpc" else nullcontext(),
            translate_errors(self.url, self.timeout_s),
            odd_answers_refused("outputs"),
        ):
            yield


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
