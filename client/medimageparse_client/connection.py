"""One connection to a Triton server, over gRPC or HTTP: errors become this package's, odd answers too."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path

from medimageparse_client.access import key_headers, tls_options
from medimageparse_client.errors import OddAnswer, translate_errors
from medimageparse_client.proxies import proxies_named
from medimageparse_client.results.answer import Answer, odd_answers_refused
from medimageparse_client.servers import GrpcServer, HttpServer, Inputs
from medimageparse_client.urls import Protocol, split_url

PROGRESS = "progress"  # the output of a stream's responses before the last


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
        self.timeout_s, self._is_closed = timeout_s, False
        headers = key_headers(api_key, self.url, is_encrypted)
        transport: type[GrpcServer | HttpServer] = GrpcServer if self.protocol == "grpc" else HttpServer
        self._server = transport(self.url, timeout_s=timeout_s, headers=headers, **tls)

    def close(self) -> None:
        """Over gRPC what is under way is cancelled."""
        self._is_closed = True
        self._server.close()

    def infer(self, model: str, inputs: Inputs, outputs: Sequence[str], limit_s: float, request_id: str = "") -> Answer:
        """The named outputs of a model, in at most so many seconds; each input is one element."""
        with self._errors_translated():
            answer = self._server.infer(model, inputs, outputs, limit_s=limit_s, request_id=request_id)
            return Answer({name: answer.as_numpy(name) for name in outputs})

    def stream(
        self, model: str, inputs: Inputs, outputs: Sequence[str], limit_s: float, request_id: str = ""
    ) -> Generator[Answer, None, None]:
        """The responses of a decoupled model, over gRPC: some with `progress` alone, then one with the named outputs.

        Closing the iterator before its end cancels the request.
        """
        outputs = (PROGRESS, *outputs)
        results = self._server.stream(model, inputs, outputs, limit_s=limit_s, request_id=request_id)
        with self._errors_translated(), closing(results):
            for result in results:
                answer = Answer({output.name: result.as_numpy(output.name) for output in result.get_response().outputs})
                yield answer
                if PROGRESS not in answer:
                    return
            raise OddAnswer("the server ended its stream without an answer")

    def is_live(self) -> bool:
        with self._errors_translated():
            return self._server.is_live()

    def is_ready(self, model: str) -> bool:
        with self._errors_translated():
            return self._server.is_ready(model)

    def describe(self) -> str:
        """The server's name and version."""
        with self._errors_translated():
            metadata = self._server.metadata()
            return f"{metadata['name']} {metadata['version']}"

    @contextmanager
    def _errors_translated(self) -> Iterator[None]:
        """Only gRPC knows proxies."""
        if self._is_closed:
            raise ValueError("this client is closed; make another one")
        with (
            proxies_named(self.url) if self.protocol == "grpc" else nullcontext(),
            translate_errors(self.url, self.timeout_s),
            odd_answers_refused("outputs"),
        ):
            yield
